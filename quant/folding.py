"""Arithmetic of constants, done once in double precision while an expression is read."""

import math
from collections.abc import Callable

_FOLD: dict[str, Callable[..., float]] = {
    "+": lambda x, y: x + y,
    "-": lambda x, y: x - y,
    "*": lambda x, y: x * y,
    "/": lambda x, y: x / y,
    "**": lambda x, y: x**y,
    "abs": abs,
    "sign": lambda x: math.copysign(1, x) if x else 0.0,
    "sqrt": math.sqrt,
    "log": math.log,
    "exp": math.exp,
    "sigmoid": lambda x: 1 / (1 + math.exp(-x)),
    "tanh": math.tanh,
    "sin": math.sin,
    "cos": math.cos,
    "maximum": max,
    "minimum": min,
    "clip": lambda x, lower, upper: min(max(x, lower), upper),
}
FOLDED = frozenset(_FOLD)


def fold(op: str, values: tuple[float, ...]) -> float:
    """The value of an operator in FOLDED over constants; NaN where it is not a finite number."""
    try:
        value = _FOLD[op](*values)
    except (OverflowError, ValueError, ZeroDivisionError):
        return math.nan
    return math.nan if isinstance(value, complex) or not math.isfinite(value) else float(value)
