"""Statistics of a window that read each of its slots against one value: their cost grows with n, not log n."""

import mlx.core as mx

from quant.arrays import fill
from quant.kernels import COUNT, SUM, Windows


def rank_in_window(w: Windows, n: int) -> mx.array:
    """Rank of the newest value among the present ones, as a share of their number, ties averaged: in (0, 1]."""
    (newest,) = w.latest(n)
    (count,) = w.window(COUNT, n)
    filled = fill(w.inputs[0], float("inf"))  # a missing slot counts as larger; it is taken off again below
    less = mx.zeros_like(newest)  # smaller values less larger ones
    for at in range(n - 1):
        less = less + mx.sign(newest - filled[at : at + newest.shape[0]])
    return (1 + n + less) / (2 * count) + w.gate(n)


def mean_deviation(w: Windows, n: int) -> mx.array:
    """Mean distance of the present values from their mean."""
    (total,), (count,) = w.window(SUM, n), w.window(COUNT, n)
    mean = total / count
    x, here = fill(w.inputs[0], 0.0), w.window(COUNT, 1)[0]
    apart = mx.zeros_like(mean)
    for at in range(n):
        rows = slice(at, at + mean.shape[0])
        apart = apart + mx.abs(x[rows] - mean) * here[rows]
    return apart / count + w.gate(n)
