"""Operators over a window of the last n slots, each a few lines over the doubling kernel.

Missing slots are skipped. A value exists when its own slot is present and at least half of the window is (by
weight, where slots have weights), and as many slots as the statistic needs.
"""

import math
from collections.abc import Callable

from quant import anchored, kernels, lagged, sorting
from quant.kernels import Rule, Windows
from quant.primitive import Series, finite, sqrt
from quant.signature import Number, Operator

HYNDMAN_FAN = 'Hyndman and Fan, "Sample Quantiles in Statistical Packages" (1996), type 7'
JOANES_GILL = 'Joanes and Gill, "Comparing Measures of Sample Skewness and Kurtosis" (1998)'
WILDER = 'Wilder, "New Concepts in Technical Trading Systems" (1978)'
KAKUSHADZE = 'Kakushadze, "101 Formulaic Alphas", Wilmott (2016)'

RESIDUAL = 1e-5  # weight of all that an exponential mean leaves out, of a total of 1
N = Number("n")
TWO = Number("n", low=2)
DDOF = Number("ddof", 1, low=0, high=1)
SORTED = Number("n", high=500)  # slots that are sorted, or read one by one
SHARE = Number("q", 0.5, low=0, high=1, whole=False)


def _rolling(
    name: str,
    compute: Callable[..., Series],
    summary: str,
    series: str = "x",
    numbers: tuple[Number, ...] = (N,),
    slots: Callable[..., int] = lambda n, *_: n,
    source: str = "",
) -> Operator:
    def reads(*values: int) -> tuple[int, int]:
        return 1 - slots(*values), 0

    return Operator(name, tuple(series.split()), numbers, compute, reads, summary, rolling=True, source=source)


# Sums and extremes


def _plain(rule: Rule) -> Callable[[Windows, int], Series]:
    return lambda w, n: w.window(rule, n)[0] + w.gate(n)


def _mean(w: Windows, n: int) -> Series:
    return w.window(kernels.SUM, n)[0] / w.window(kernels.COUNT, n)[0] + w.gate(n)


def _since(rule: Rule) -> Callable[[Windows, int], Series]:
    return lambda w, n: w.window(rule, n)[1] + w.gate(n)


# Moments


def _var(w: Windows, n: int, ddof: int) -> Series:
    count, _, m2 = w.window(kernels.MOMENTS, n)
    return m2 / (count - ddof) + w.gate(n, 1 + ddof)


def _std(w: Windows, n: int, ddof: int) -> Series:
    return sqrt(_var(w, n, ddof))


def _skew(w: Windows, n: int) -> Series:
    count, _, m2, m3, _ = w.window(kernels.HIGH_MOMENTS, n)
    biased = m3 * sqrt(count) / (m2 * sqrt(m2))
    return finite(biased * sqrt(count * (count - 1)) / (count - 2)) + w.gate(n, 3)


def _kurt(w: Windows, n: int) -> Series:
    count, _, m2, _, m4 = w.window(kernels.HIGH_MOMENTS, n)
    excess = count * m4 / (m2 * m2) - 3
    return finite(((count + 1) * excess + 6) * (count - 1) / ((count - 2) * (count - 3))) + w.gate(n, 4)


# Two series, and a series against time


def _cov(w: Windows, n: int, ddof: int) -> Series:
    count, *_, mxy = w.window(kernels.CO_MOMENTS, n)
    return mxy / (count - ddof) + w.gate(n, 1 + ddof)


def _corr(w: Windows, n: int) -> Series:
    *_, mxx, myy, mxy = w.window(kernels.CO_MOMENTS, n)
    return finite(mxy / (sqrt(mxx) * sqrt(myy))) + w.gate(n, 2)


def _beta(w: Windows, n: int) -> Series:
    *_, myy, mxy = w.window(kernels.CO_MOMENTS, n)
    return finite(mxy / myy) + w.gate(n, 2)


def _slope(w: Windows, n: int) -> Series:
    *_, mtt, mxt = w.window(kernels.TREND, n)
    return finite(mxt / mtt) + w.gate(n, 2)


def _rsquare(w: Windows, n: int) -> Series:
    *_, mxx, mtt, mxt = w.window(kernels.TREND, n)
    return finite(mxt / mxx * (mxt / mtt)) + w.gate(n, 2)


def _residual(w: Windows, n: int) -> Series:
    _, mean, time, _, mtt, mxt = w.window(kernels.TREND, n)
    return finite(w.inputs[0] - mean + mxt / mtt * time) + w.gate(n, 2)


# Weighted means


def _taps(keep_share: float) -> int:
    """Slots that hold all but RESIDUAL of the weight, rounded up to two binary digits: such a window merges once."""
    needed = max(1, math.ceil(math.log(RESIDUAL) / math.log(keep_share))) if keep_share else 1
    half = 1 << needed.bit_length() - 1
    return half + (1 << (needed - half - 1).bit_length() if needed > half else 0)


def _decayed_mean(w: Windows, keep_share: float) -> Series:
    taps = _taps(keep_share)
    total, weight = w.window(kernels.decayed(keep_share), taps)
    whole = (1 - keep_share**taps) / (1 - keep_share)
    return total / weight + w.gate_where(weight >= whole / 2)


def _ema_keep(n: int) -> float:
    return 1 - 2 / (n + 1)


def _wilder_keep(n: int) -> float:
    return 1 - 1 / n


def _wma(w: Windows, n: int) -> Series:
    count, total, ages, aged = w.window(kernels.AGED, n)
    weight = n * count - ages
    return (n * total - aged) / weight + w.gate_where(weight >= n * (n + 1) / 4)


OPERATORS = (
    _rolling("sum", _plain(kernels.SUM), "sum of the present values"),
    _rolling("count", _plain(kernels.COUNT), "how many slots are present"),
    _rolling("product", _plain(kernels.PRODUCT), "product of the present values"),
    _rolling("mean", _mean, "average of the present values"),
    _rolling("min", _plain(kernels.MIN), "smallest value"),
    _rolling("max", _plain(kernels.MAX), "largest value"),
    _rolling(
        "argmin",
        _since(kernels.ARGMIN),
        "how many slots ago the smallest value was; the newest of equal ones",
    ),
    _rolling("argmax", _since(kernels.ARGMAX), "how many slots ago the largest value was; the newest of equal ones"),
    _rolling(
        "quantile",
        sorting.quantile,
        "the value that a share q of the window's values is below, linear between the nearest two",
        numbers=(SORTED, SHARE),
        source=HYNDMAN_FAN,
    ),
    _rolling(
        "rank_in_window",
        lagged.rank_in_window,
        "rank of the newest value in its window as a share of the present ones, ties averaged: in (0, 1]",
        numbers=(SORTED,),
    ),
    _rolling("mean_deviation", lagged.mean_deviation, "mean distance from the window's mean", numbers=(SORTED,)),
    *(
        _rolling(
            f"{word}_since",
            anchored.since(rule),
            f"{what} since the newest slot where start is not 0; missing where it is not among the last n slots",
            "x start",
        )
        for word, rule, what in (
            ("sum", kernels.SUM, "sum of the present values"),
            ("min", kernels.MIN, "smallest value"),
            ("max", kernels.MAX, "largest value"),
        )
    ),
    _rolling("var", _var, "variance, divided by count - ddof", numbers=(TWO, DDOF)),
    _rolling("std", _std, "standard deviation, divided by count - ddof", numbers=(TWO, DDOF)),
    _rolling(
        "skew",
        _skew,
        "sample skewness G1, as pandas and SAS have it",
        numbers=(Number("n", low=3),),
        source=JOANES_GILL,
    ),
    _rolling(
        "kurt",
        _kurt,
        "sample excess kurtosis G2, as pandas and SAS have it",
        numbers=(Number("n", low=4),),
        source=JOANES_GILL,
    ),
    _rolling("cov", _cov, "covariance, divided by count - ddof", "x y", (TWO, DDOF)),
    _rolling("corr", _corr, "Pearson correlation; missing where one of them is constant", "x y", (TWO,)),
    _rolling("beta", _beta, "slope of the regression of x on y", "x y", (TWO,)),
    _rolling("slope", _slope, "slope of the regression on time, per slot", numbers=(TWO,)),
    _rolling("rsquare", _rsquare, "share of the variance that the regression on time explains", numbers=(TWO,)),
    _rolling("residual", _residual, "last value less the regression on time", numbers=(TWO,)),
    _rolling(
        "ema",
        lambda w, n: _decayed_mean(w, _ema_keep(n)),
        "exponential mean of span n (weight 2 / (n + 1)), over the slots that hold 1 - 1e-5 of the weight",
        slots=lambda n: _taps(_ema_keep(n)),
    ),
    _rolling(
        "wilder",
        lambda w, n: _decayed_mean(w, _wilder_keep(n)),
        "Wilder's exponential mean (weight 1 / n), over the slots that hold 1 - 1e-5 of the weight",
        slots=lambda n: _taps(_wilder_keep(n)),
        source=WILDER,
    ),
    *(
        _rolling(name, _wma, "mean weighted n, n - 1 … 1 from the newest slot to the oldest", source=source)
        for name, source in (("wma", ""), ("decay_linear", KAKUSHADZE))
    ),
)
