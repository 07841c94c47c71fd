"""Whether a model's realized scores have fallen short of what was promised: two means, each with its own error."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from quant.stats import Mean, lags_for, mean_of


@dataclass(frozen=True)
class Decay:
    """What realized scores say of a promise. Numbers are NaN where there are too few to say."""

    realized: Mean
    promised: Mean
    asked: float  # what they must at least be: the part of the promise that is to be kept
    p: float  # of scores as low as these, if the true mean were just what is asked
    decayed: bool
    why: str


def decay(
    realized: npt.NDArray[np.float64],
    promised: npt.NDArray[np.float64],
    *,
    kept: float,
    level: float,
    min_sections: int,
    overlap: int,
) -> Decay:
    """Test two series of section scores [n], [m], each in the order of time, without NaN.

    It has decayed where the mean of the realized ones lies below `kept` times the mean of the promised ones in a
    one-sided test at `level`. overlap: sections that share their outcome with the next so many. The errors are Newey
    and West's, made larger for few sections as in `quant.judge.p_above`; Student's t with degrees of freedom as Welch
    and Satterthwaite have them. A promise of nothing cannot be broken.
    """
    from scipy.special import stdtr

    ours, theirs = (mean_of(series, lags_for(len(series), overlap)) for series in (realized, promised))
    asked = kept * theirs.mean
    if ours.n < min_sections or theirs.n < min_sections:
        why = f"{ours.n} realized and {theirs.n} promised sections have a score; {min_sections} of each are asked for"
        return Decay(ours, theirs, asked, math.nan, False, why)
    if not theirs.mean > 0:
        why = f"a score of {theirs.mean:+.4f} promised nothing to fall short of"
        return Decay(ours, theirs, asked, math.nan, False, why)
    (one, free), (other, more) = _variance(ours, overlap), _variance(theirs, overlap)
    other *= kept**2
    total = one + other
    if total > 0:
        degrees = total**2 / (one**2 / free + other**2 / more)
        p = float(stdtr(degrees, (ours.mean - asked) / math.sqrt(total)))
    else:
        p = float(ours.mean >= asked)
    decayed = p <= level
    said = "" if decayed else "not shown to be "
    why = (
        f"realized {ours.mean:+.4f} ± {ours.error:.4f} on {ours.n} sections is {said}below {kept:g} of the promised "
        f"{theirs.mean:+.4f} ± {theirs.error:.4f} (p {p:.3f}, level {level:g})"
    )
    return Decay(ours, theirs, asked, p, decayed, why)


def _variance(found: Mean, overlap: int) -> tuple[float, float]:
    """The variance of a mean, larger where the lags are many for its length, and its degrees of freedom."""
    b = min(1.0, (lags_for(found.n, overlap) + 1) / found.n)
    return found.error**2 / (1 - b + b * b / 3), 1.5 / b
