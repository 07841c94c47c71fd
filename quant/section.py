"""Operators across the section: all symbols present at one slot; and one symbol's value for all.

Values that are not finite are left out. Sums are folded over the sorted values, so a result depends on the
set of present values only: not on the order of the symbols, nor on absent ones, nor on other slots.
"""

from collections.abc import Callable

import mlx.core as mx

from quant.arrays import fill, finite, keep, present, select
from quant.signature import Number, Operator

INFINITY = float("inf")


def _total(x: mx.array) -> mx.array:
    """Sum of the finite values of each row [rows, S], as [rows, 1]."""
    ordered = mx.sort(fill(finite(x), INFINITY), axis=1)
    folded = select(ordered < INFINITY, ordered, mx.zeros_like(ordered))
    width = 1 << (folded.shape[1] - 1).bit_length()
    folded = mx.pad(folded, [(0, 0), (0, width - folded.shape[1])])
    while width > 1:
        width //= 2
        folded = folded[:, :width] + folded[:, width:]
    return folded


def _count(x: mx.array) -> mx.array:
    return mx.sum(present(finite(x)).astype(mx.float32), axis=1, keepdims=True)  # whole numbers: exact in any order


def _demean(x: mx.array) -> mx.array:
    return x - _total(x) / _count(x)


def _zscore(x: mx.array) -> mx.array:
    apart = _demean(x)
    count = _count(x)
    return finite(apart / mx.sqrt(_total(apart * apart) / keep(count - 1, count > 1)))


def _scale(x: mx.array) -> mx.array:
    return finite(x / _total(mx.abs(x)))


def _rank(x: mx.array) -> mx.array:
    """Average rank of ties, as a share of the count: in (0, 1]."""
    known = finite(x)
    filled = fill(known, INFINITY)
    order = mx.argsort(filled, axis=1)
    ordered = mx.take_along_axis(filled, order, axis=1)
    first, last = _runs(ordered)
    average = (first + last).astype(mx.float32) / 2 + 1
    ranks = mx.take_along_axis(average, mx.argsort(order, axis=1), axis=1)
    return keep(ranks / _count(x), present(known))


def _quantile(ordered: mx.array, count: mx.array, q: float) -> mx.array:
    """The q-quantile of each row, linear between the two nearest values; rows are sorted, `count` are present."""
    place = q * mx.maximum(count - 1, 0.0)
    below = mx.floor(place)
    pair = [mx.take_along_axis(ordered, at.astype(mx.int32), axis=1) for at in (below, mx.ceil(place))]
    return pair[0] + (pair[1] - pair[0]) * (place - below)


def _winsorize(x: mx.array, share: float) -> mx.array:
    known = finite(x)
    ordered, count = mx.sort(fill(known, INFINITY), axis=1), _count(x)
    return mx.minimum(mx.maximum(known, _quantile(ordered, count, share)), _quantile(ordered, count, 1 - share))


def _neutralize(x: mx.array, by: mx.array) -> mx.array:
    """Sums run over the sorted values of each group from its first one on, so other groups do not change a bit."""
    together = mx.logical_and(present(finite(x)), present(finite(by)))
    known, group = keep(x, together), fill(keep(by, together), INFINITY)
    by_value = mx.argsort(fill(known, INFINITY), axis=1)
    by_group = mx.argsort(mx.take_along_axis(group, by_value, axis=1), axis=1)  # stable: values stay in order
    order = mx.take_along_axis(by_value, by_group, axis=1)
    first, last = _runs(mx.take_along_axis(group, order, axis=1))
    total = fill(mx.take_along_axis(known, order, axis=1), 0.0) + 0.0  # no -0: further steps would lose its sign
    place = mx.broadcast_to(mx.arange(total.shape[1]), total.shape)
    width = 1
    while width < total.shape[1]:
        earlier = mx.pad(total, [(0, 0), (width, 0)])[:, : total.shape[1]]
        total = total + select(place - width >= first, earlier, mx.zeros_like(total))
        width *= 2
    mean = mx.take_along_axis(total, last, axis=1) / (last - first + 1).astype(mx.float32)
    return known - mx.take_along_axis(mean, mx.argsort(order, axis=1), axis=1)


def _of(x: mx.array, place: int) -> mx.array:
    return mx.broadcast_to(x[:, place : place + 1], x.shape)


def _runs(ordered: mx.array) -> tuple[mx.array, mx.array]:
    """First and last position of the run of equal values that each position belongs to; rows are sorted."""
    rows, width = ordered.shape
    place = mx.broadcast_to(mx.arange(width), (rows, width))
    edge = mx.ones((rows, 1), dtype=mx.bool_)
    changes = ordered[:, 1:] != ordered[:, :-1]
    starts = mx.concatenate([edge, changes], axis=1)
    ends = mx.concatenate([changes, edge], axis=1)
    first = mx.cummax(mx.where(starts, place, 0), axis=1)
    last = mx.cummin(mx.where(ends, place, width), axis=1, reverse=True)
    return first, last


def _section(
    name: str,
    compute: Callable[..., mx.array],
    summary: str,
    series: tuple[str, ...] = ("x",),
    numbers: tuple[Number, ...] = (),
) -> Operator:
    return Operator(name, series, numbers, compute, lambda *_: (0, 0), summary, crosses=True)


OPERATORS = (
    _section("rank", _rank, "rank among the section's symbols as a share of their number, ties averaged: in (0, 1]"),
    _section("demean", _demean, "x less the section's mean"),
    _section("zscore", _zscore, "x less the section's mean, in sample standard deviations of the section"),
    _section("scale", _scale, "x divided by the section's sum of |x|"),
    _section(
        "winsorize",
        _winsorize,
        "x held between the section's quantiles `share` and 1 - `share`",
        numbers=(Number("share", 0.025, low=0, high=0.5, whole=False),),
    ),
    _section(
        "neutralize",
        _neutralize,
        "x less the mean of the section's symbols with the same value of `by`; missing where `by` is",
        series=("x", "by"),
    ),
    Operator("of", ("x",), (), _of, lambda *_: (0, 0), "x of the named symbol at the same slot, for every symbol"),
)
