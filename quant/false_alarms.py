"""How often a check fails falsely: the rate that calibration windows can promise, and the law of the number of alarms.

A threshold that a of b windows exceed is an order statistic of b draws. All that are exchangeable with them are as
likely to fall into any of the b + 1 gaps between them: the next one exceeds it with probability (a + 1) / (b + 1). The
next m share the threshold, whose own luck makes their number vary more than a binomial: it is beta-binomial.
"""

import math
from collections.abc import Sequence
from functools import reduce

import numpy as np
import numpy.typing as npt
from scipy import stats

Floats = npt.NDArray[np.float64]


def rate_of(independent: int, rate: float) -> tuple[float, int]:
    """The largest rate up to `rate` that so many windows can promise (or else the least), and how many may exceed."""
    exceed = max(0, math.floor(rate * (independent + 1) + 1e-9) - 1)
    return (exceed + 1) / (independent + 1), exceed


def law(windows: int, independent: int, rate: float) -> Floats:
    """The chances of 0 .. `windows` alarms of as many windows, exchangeable with the `independent` of calibration.

    Windows that do not overlap; those that lie in one spell of a market are not exchangeable with others, and their
    alarms vary more. rate: as it was asked for.
    """
    _, exceed = rate_of(independent, rate)
    found: Floats = stats.betabinom(windows, exceed + 1, independent - exceed).pmf(np.arange(windows + 1))
    return found


def total(laws: Sequence[Floats]) -> Floats:
    """The law of the sum of numbers that know nothing of each other, as of several markets."""
    return reduce(np.convolve, laws)


def band(chances: Floats, share: float) -> tuple[int, int]:
    """The lowest and the highest number that belong to it: below and above lies no more than (1 - share) / 2 each."""
    outside = (1 - share) / 2
    low = np.searchsorted(np.cumsum(chances), outside, side="right")
    high = np.searchsorted(np.cumsum(chances[::-1]), outside, side="right")
    return int(low), len(chances) - 1 - int(high)
