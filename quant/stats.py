"""The mean of a time series and its standard error when neighbours are correlated."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Mean:
    """A mean with its autocorrelation-aware standard error; NaN where the series is too short to say."""

    mean: float
    std: float
    error: float
    t: float
    n: int


def mean_of(series: npt.NDArray[np.float64], lags: int) -> Mean:
    """Mean, sample deviation, Newey-West standard error and t of a series [n] without NaN."""
    n = len(series)
    if n < 2:
        return Mean(float(series[0]) if n else np.nan, np.nan, np.nan, np.nan, n)
    mean, error = float(series.mean()), float(np.sqrt(long_run_variance(series, lags) / n))
    return Mean(mean, float(series.std(ddof=1)), error, mean / error if error > 0 else np.nan, n)


def long_run_variance(series: npt.NDArray[np.float64], lags: int) -> float:
    """Newey and West (1987): autocovariances up to `lags` with Bartlett weights; never negative.

    With 0 lags it is the population variance. Lags beyond n - 1 do not exist and are left out.
    """
    centred = series - series.mean()
    n = len(series)
    total = float(centred @ centred) / n
    for lag in range(1, min(lags, n - 1) + 1):
        total += 2 * (1 - lag / (lags + 1)) * float(centred[lag:] @ centred[:-lag]) / n
    return max(total, 0.0)


def lags_for(n: int, overlap: int) -> int:
    """Lags for n values that share their outcome with the next `overlap`: Newey-West's rule, or more.

    Bartlett weights shrink what they count: lags equal to the overlap leave the error a fifth too small,
    three times the overlap leaves a few hundredths.
    """
    return max(3 * overlap, int(4 * (n / 100) ** (2 / 9)))
