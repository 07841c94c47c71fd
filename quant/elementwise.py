"""Operators that read one slot of one symbol: arithmetic, comparison, choice, and the shifts in time.

Division, powers, logarithms and exponentials that are not finite are missing (NaN), so that one zero does not
poison every window that holds it.
"""

from collections.abc import Callable

from quant.primitive import (
    Series,
    absolute,
    apply,
    as_float,
    both,
    constant,
    equal,
    finite,
    keep,
    maximum,
    minimum,
    not_equal,
    present,
    select,
    sign,
    sqrt,
)
from quant.signature import Number, Operator


def _truth(x: Series) -> Series:
    return _compare(not_equal)(x, constant(0))


def _compare(test: Callable[[Series, Series], Series]) -> Callable[[Series, Series], Series]:
    def compare(x: Series, y: Series) -> Series:
        return keep(as_float(test(x, y)), both(present(x), present(y)))

    return compare


def _power(x: Series, y: Series) -> Series:
    return keep(finite(apply("power", x, y)), both(present(x), present(y)))  # else missing ** 0 were 1


def _where(condition: Series, x: Series, y: Series) -> Series:
    return keep(select(not_equal(condition, 0), x, y), present(condition))


def _elementwise(name: str, series: str, compute: Callable[..., Series], summary: str) -> Operator:
    return Operator(name, tuple(series.split()), (), compute, lambda: (0, 0), summary)


_SHIFT = Number("n", 1, low=0)


OPERATORS = (
    _elementwise("+", "x y", Series.__add__, "sum"),
    _elementwise("-", "x y", Series.__sub__, "difference"),
    _elementwise("*", "x y", Series.__mul__, "product"),
    _elementwise("/", "x y", lambda x, y: finite(x / y), "quotient; missing where y is 0"),
    _elementwise("**", "x y", _power, "power; missing where it is not a finite number"),
    _elementwise("negate", "x", Series.__neg__, "-x"),
    _elementwise("<", "x y", _compare(Series.__lt__), "1 where x is less than y, else 0; missing where either is"),
    _elementwise("<=", "x y", _compare(Series.__le__), "1 where x is at most y, else 0; missing where either is"),
    _elementwise(">", "x y", _compare(Series.__gt__), "1 where x is greater than y, else 0; missing where either is"),
    _elementwise(">=", "x y", _compare(Series.__ge__), "1 where x is at least y, else 0; missing where either is"),
    _elementwise("==", "x y", _compare(equal), "1 where x equals y, else 0; missing where either is"),
    _elementwise("!=", "x y", _compare(not_equal), "1 where x differs from y, else 0; missing where either is"),
    _elementwise("and", "x y", lambda x, y: minimum(_truth(x), _truth(y)), "1 where both are not 0, else 0"),
    _elementwise("or", "x y", lambda x, y: maximum(_truth(x), _truth(y)), "1 where one is not 0, else 0"),
    _elementwise("not", "x", lambda x: 1 - _truth(x), "1 where x is 0, else 0"),
    _elementwise("where", "condition x y", _where, "x where the condition is not 0, y where it is 0"),
    _elementwise("maximum", "x y", maximum, "the larger of x and y; missing where either is"),
    _elementwise("minimum", "x y", minimum, "the smaller of x and y; missing where either is"),
    _elementwise("clip", "x lower upper", lambda x, a, b: minimum(maximum(x, a), b), "x held in lower … upper"),
    _elementwise("abs", "x", absolute, "|x|"),
    _elementwise("sign", "x", lambda x: keep(sign(x), present(x)), "-1, 0 or 1"),
    _elementwise("sqrt", "x", sqrt, "square root; missing below 0"),
    _elementwise("log", "x", lambda x: finite(apply("log", x)), "natural logarithm; missing at 0 and below"),
    _elementwise("exp", "x", lambda x: finite(apply("exp", x)), "e to the x"),
    _elementwise("sigmoid", "x", lambda x: apply("sigmoid", x), "1 / (1 + e^-x)"),
    _elementwise("tanh", "x", lambda x: apply("tanh", x), "hyperbolic tangent"),
    _elementwise("sin", "x", lambda x: finite(apply("sin", x)), "sine of x in radians"),
    _elementwise("cos", "x", lambda x: finite(apply("cos", x)), "cosine of x in radians"),
    Operator("lag", ("x",), (_SHIFT,), Series.lag, lambda n: (-n, -n), "x of n slots ago"),
    Operator("lead", ("x",), (_SHIFT,), lambda x, n: x.lag(-n), lambda n: (n, n), "x of n slots later: looks ahead"),
)
