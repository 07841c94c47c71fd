"""The Sharpe ratio, how sure of it one can be, and what is left of it after many trials."""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from quant.stats import lags_for, long_run_variance

Floats = npt.NDArray[np.float64]
NORMAL = NormalDist()
EULER = 0.5772156649015329  # Euler and Mascheroni's constant


@dataclass(frozen=True)
class Sharpe:
    """A Sharpe ratio a section; NaN where nothing was ever held."""

    ratio: float
    error: float  # its standard error
    skew: float
    kurtosis: float  # 3 for the normal distribution
    sections: int


def sharpe(returns: Floats, overlap: int) -> Sharpe:
    """Of returns [n], each of which shares holdings with the next `overlap`.

    The deviation is Newey and West's, so that overlap does not flatter; the error is Mertens' (2002), which is Lo's
    (2002) where returns are normal: sqrt((1 - skew SR + (kurtosis - 1) / 4 SR^2) / (n - 1)).
    """
    n = len(returns)
    deviation = math.sqrt(long_run_variance(returns, lags_for(n, overlap))) if n > 1 else 0.0
    spread = float(returns.std()) if n else 0.0
    if not (deviation > 0 and spread > 0):
        return Sharpe(math.nan, math.nan, math.nan, math.nan, n)
    ratio = float(returns.mean()) / deviation
    z = (returns - returns.mean()) / spread
    skew, kurtosis = float((z**3).mean()), float((z**4).mean())
    return Sharpe(ratio, deviation_of(ratio, n, skew, kurtosis), skew, kurtosis, n)


def deviation_of(ratio: float, sections: int, skew: float = 0.0, kurtosis: float = 3.0) -> float:
    """Standard error of an estimated Sharpe ratio a section (Mertens, 2002)."""
    inside = 1 - skew * ratio + (kurtosis - 1) / 4 * ratio**2
    return math.sqrt(max(inside, 0.0) / (sections - 1))


def probabilistic(found: Sharpe, benchmark: float) -> float:
    """Chance that the true ratio exceeds `benchmark`, both a section (Bailey and López de Prado, 2012)."""
    if not found.error > 0:
        return math.nan
    return NORMAL.cdf((found.ratio - benchmark) / found.error)


def luckiest(variance: float, trials: int) -> float:
    """Expected best Sharpe ratio of `trials` strategies without skill whose estimates have this variance.

    Bailey and López de Prado (2014), "The Deflated Sharpe Ratio", equation 1; trials: at least 2.
    """
    if trials < 2:
        raise ValueError(f"{trials} trials have no luckiest: at least 2")
    upper = NORMAL.inv_cdf(1 - 1 / trials)
    uppermost = NORMAL.inv_cdf(1 - 1 / (trials * math.e))
    return math.sqrt(variance) * ((1 - EULER) * upper + EULER * uppermost)


def deflated(found: Sharpe, variance: float, trials: int) -> float:
    """The deflated Sharpe ratio (2014): chance that skill is above 0 although it is the best of `trials`.

    variance: of the trials' Sharpe ratios a section. Every trial counts as independent of the others: trials that
    are alike make the true figure larger than this one.
    """
    return probabilistic(found, luckiest(variance, trials))
