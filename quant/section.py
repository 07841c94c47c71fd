"""Operators across the section: all symbols present at one slot.

Values that are not finite are left out. Sums are folded over the sorted values, so a result depends on the
set of present values only: not on the order of the symbols, nor on absent ones, nor on other slots.
"""

from collections.abc import Callable

import mlx.core as mx

from quant.arrays import fill, keep, present, select
from quant.elementwise import finite
from quant.signature import Operator

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


def _section(name: str, compute: Callable[[mx.array], mx.array], summary: str) -> Operator:
    return Operator(name, ("x",), (), compute, lambda: (0, 0), summary, crosses=True)


OPERATORS = (
    _section("rank", _rank, "rank among the section's symbols as a share of their number, ties averaged: in (0, 1]"),
    _section("demean", _demean, "x less the section's mean"),
    _section("zscore", _zscore, "x less the section's mean, in sample standard deviations of the section"),
    _section("scale", _scale, "x divided by the section's sum of |x|"),
)
