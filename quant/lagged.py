"""Statistics of a window that read each of its slots against one value: their cost grows with n, not log n."""

from quant.kernels import COUNT, SUM, Windows
from quant.primitive import Series, absolute, constant, fill, sign


def rank_in_window(w: Windows, n: int) -> Series:
    """Rank of the newest value among the present ones, as a share of their number, ties averaged: in (0, 1]."""
    newest = w.inputs[0]
    (count,) = w.window(COUNT, n)
    filled = fill(w.inputs[0], float("inf"))  # a missing slot counts as larger; it is taken off again below
    less = constant(0)  # smaller values less larger ones
    for age in range(n - 1, 0, -1):
        less = less + sign(newest - filled.lag(age))
    return (1 + n + less) / (2 * count) + w.gate(n)


def mean_deviation(w: Windows, n: int) -> Series:
    """Mean distance of the present values from their mean."""
    (total,), (count,) = w.window(SUM, n), w.window(COUNT, n)
    mean = total / count
    x, here = fill(w.inputs[0], 0.0), w.window(COUNT, 1)[0]
    apart = constant(0)
    for age in range(n - 1, -1, -1):
        apart = apart + absolute(x.lag(age) - mean) * here.lag(age)
    return apart / count + w.gate(n)
