"""Operators that read one slot of one symbol: arithmetic, comparison, choice, and the shifts in time.

Division, powers, logarithms and exponentials that are not finite are missing (NaN), so that one zero does not
poison every window that holds it.
"""

from collections.abc import Callable

import mlx.core as mx

from quant.arrays import keep, present, select
from quant.signature import Number, Operator


def finite(x: mx.array) -> mx.array:
    """x where it is finite, NaN where it is infinite: inf - inf is NaN."""
    return x + (x - x)


def _truth(x: mx.array) -> mx.array:
    return _compare(mx.not_equal)(x, mx.array(0.0))


def _compare(test: Callable[[mx.array, mx.array], mx.array]) -> Callable[[mx.array, mx.array], mx.array]:
    def compare(x: mx.array, y: mx.array) -> mx.array:
        return keep(test(x, y).astype(mx.float32), mx.logical_and(present(x), present(y)))

    return compare


def _where(condition: mx.array, x: mx.array, y: mx.array) -> mx.array:
    return keep(select(condition != 0, x, y), present(condition))


def _elementwise(name: str, series: str, compute: Callable[..., mx.array], summary: str) -> Operator:
    return Operator(name, tuple(series.split()), (), compute, lambda: (0, 0), summary)


_SHIFT = Number("n", 1, low=0)


OPERATORS = (
    _elementwise("+", "x y", mx.add, "sum"),
    _elementwise("-", "x y", mx.subtract, "difference"),
    _elementwise("*", "x y", mx.multiply, "product"),
    _elementwise("/", "x y", lambda x, y: finite(x / y), "quotient; missing where y is 0"),
    _elementwise("**", "x y", lambda x, y: finite(mx.power(x, y)), "power; missing where it is not a finite number"),
    _elementwise("negate", "x", mx.negative, "-x"),
    _elementwise("<", "x y", _compare(mx.less), "1 where x is less than y, else 0; missing where either is"),
    _elementwise("<=", "x y", _compare(mx.less_equal), "1 where x is at most y, else 0; missing where either is"),
    _elementwise(">", "x y", _compare(mx.greater), "1 where x is greater than y, else 0; missing where either is"),
    _elementwise(">=", "x y", _compare(mx.greater_equal), "1 where x is at least y, else 0; missing where either is"),
    _elementwise("==", "x y", _compare(mx.equal), "1 where x equals y, else 0; missing where either is"),
    _elementwise("!=", "x y", _compare(mx.not_equal), "1 where x differs from y, else 0; missing where either is"),
    _elementwise("and", "x y", lambda x, y: mx.minimum(_truth(x), _truth(y)), "1 where both are not 0, else 0"),
    _elementwise("or", "x y", lambda x, y: mx.maximum(_truth(x), _truth(y)), "1 where one is not 0, else 0"),
    _elementwise("not", "x", lambda x: 1 - _truth(x), "1 where x is 0, else 0"),
    _elementwise("where", "condition x y", _where, "x where the condition is not 0, y where it is 0"),
    _elementwise("maximum", "x y", mx.maximum, "the larger of x and y; missing where either is"),
    _elementwise("minimum", "x y", mx.minimum, "the smaller of x and y; missing where either is"),
    _elementwise("clip", "x lower upper", lambda x, a, b: mx.minimum(mx.maximum(x, a), b), "x held in lower … upper"),
    _elementwise("abs", "x", mx.abs, "|x|"),
    _elementwise("sign", "x", lambda x: keep(mx.sign(x), present(x)), "-1, 0 or 1"),
    _elementwise("sqrt", "x", mx.sqrt, "square root; missing below 0"),
    _elementwise("log", "x", lambda x: finite(mx.log(x)), "natural logarithm; missing at 0 and below"),
    _elementwise("exp", "x", lambda x: finite(mx.exp(x)), "e to the x"),
    _elementwise("sigmoid", "x", mx.sigmoid, "1 / (1 + e^-x)"),
    _elementwise("tanh", "x", mx.tanh, "hyperbolic tangent"),
    _elementwise("sin", "x", lambda x: finite(mx.sin(x)), "sine of x in radians"),
    _elementwise("cos", "x", lambda x: finite(mx.cos(x)), "cosine of x in radians"),
    Operator("lag", ("x",), (_SHIFT,), lambda x, n: x, lambda n: (-n, -n), "x of n slots ago"),
    Operator("lead", ("x",), (_SHIFT,), lambda x, n: x, lambda n: (n, n), "x of n slots later: looks ahead"),
)
