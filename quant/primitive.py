"""What operators are made of: elementwise steps over a symbol's own slots, written down and not yet computed.

An operator's definition runs once, over `Series` that record what is done to them; evaluators then compute the
steps. A step reads its own slot and earlier ones only, by a fixed sequence of float32 operations, so its bits
depend neither on the panel's length nor on how it was cut, and every evaluator gives the same ones. Equal steps
are one step: windows share their levels, and rules their counts, without being told.
"""

from dataclasses import dataclass, field
from functools import cached_property
from weakref import WeakValueDictionary

import numpy as np

MASKS = frozenset(("less", "less_equal", "greater", "greater_equal", "equal", "not_equal", "present", "both"))
_FOLD = {"add": np.add, "subtract": np.subtract, "multiply": np.multiply, "divide": np.divide}

_NAN = float("nan")  # one object: a tuple holding it equals itself

Number = float | int
Fixed = tuple[float | str, ...]


@dataclass(frozen=True, eq=False)
class Step:
    """One operation. args: what it reads; lags: how many slots before its own it reads each at, never negative.

    fixed: a column's name, a constant, what `fill` fills in, or an operator across the section with its numbers.
    """

    op: str
    args: tuple["Step", ...] = ()
    lags: tuple[int, ...] = ()
    fixed: Fixed = ()
    __weakref__: object = field(init=False, repr=False)

    @cached_property
    def is_constant(self) -> bool:
        """The same at every slot, missing bars or not."""
        return self.op == "constant" or (bool(self.args) and all(arg.is_constant for arg in self.args))


_interned: WeakValueDictionary[tuple[object, ...], Step] = WeakValueDictionary()


def _step(op: str, args: tuple[Step, ...], lags: tuple[int, ...], fixed: Fixed) -> Step:
    key = (op, tuple(map(id, args)), lags, fixed)
    found = _interned.get(key)
    if found is None:
        found = _interned[key] = Step(op, args, lags, fixed)
    return found


@dataclass(frozen=True)
class Series:
    """The values of a step, read `shift` slots before each slot; a negative shift looks ahead."""

    step: Step
    shift: int = 0

    def lag(self, slots: int) -> "Series":
        return self if self.step.is_constant else Series(self.step, self.shift + slots)

    def __add__(self, other: "Series | Number") -> "Series":
        return apply("add", self, other)

    def __radd__(self, other: Number) -> "Series":
        return apply("add", other, self)

    def __sub__(self, other: "Series | Number") -> "Series":
        return apply("subtract", self, other)

    def __rsub__(self, other: Number) -> "Series":
        return apply("subtract", other, self)

    def __mul__(self, other: "Series | Number") -> "Series":
        return apply("multiply", self, other)

    def __rmul__(self, other: Number) -> "Series":
        return apply("multiply", other, self)

    def __truediv__(self, other: "Series | Number") -> "Series":
        return apply("divide", self, other)

    def __rtruediv__(self, other: Number) -> "Series":
        return apply("divide", other, self)

    def __neg__(self) -> "Series":
        return apply("negate", self)

    # Comparisons are masks, not floats: choose with them, or ask for `as_float`.

    def __lt__(self, other: "Series | Number") -> "Series":
        return apply("less", self, other)

    def __le__(self, other: "Series | Number") -> "Series":
        return apply("less_equal", self, other)

    def __gt__(self, other: "Series | Number") -> "Series":
        return apply("greater", self, other)

    def __ge__(self, other: "Series | Number") -> "Series":
        return apply("greater_equal", self, other)


def apply(op: str, *args: Series | Number, fixed: Fixed = ()) -> Series:
    """The series of one operation; the arguments' common shift moves to the result."""
    series = [arg if isinstance(arg, Series) else constant(arg) for arg in args]
    if op in _FOLD and all(arg.step.op == "constant" for arg in series):
        left, right = (np.float32(arg.step.fixed[0]) for arg in series)
        return constant(float(_FOLD[op](left, right)))
    shift = min((arg.shift for arg in series if not arg.step.is_constant), default=0)
    lags = tuple(0 if arg.step.is_constant else arg.shift - shift for arg in series)
    return Series(_step(op, tuple(arg.step for arg in series), lags, fixed), shift)


def constant(value: Number) -> Series:
    """The float32 nearest to a number, at every slot."""
    nearest = float(np.float32(value))
    return Series(_step("constant", (), (), (_NAN if nearest != nearest else nearest,)))


def column(name: str) -> Series:
    return Series(_step("column", (), (), (name,)))


def minimum(x: Series | Number, y: Series | Number) -> Series:
    return apply("minimum", x, y)


def maximum(x: Series | Number, y: Series | Number) -> Series:
    return apply("maximum", x, y)


def equal(x: Series | Number, y: Series | Number) -> Series:
    return apply("equal", x, y)


def not_equal(x: Series | Number, y: Series | Number) -> Series:
    return apply("not_equal", x, y)


def both(x: Series, y: Series) -> Series:
    """Where two masks hold."""
    return apply("both", x, y)


def present(x: Series) -> Series:
    """Where x is not NaN."""
    return apply("present", x)


def as_float(mask: Series) -> Series:
    """1 where the mask holds, else 0."""
    return apply("as_float", mask)


def select(mask: Series, x: Series | Number, y: Series | Number) -> Series:
    """x where the mask holds, y elsewhere; the same bits out."""
    return apply("select", mask, x, y)


def fill(x: Series, value: Number) -> Series:
    """x with NaN replaced by the value."""
    return apply("fill", x, fixed=(float(np.float32(value)),))


def keep(x: Series, mask: Series) -> Series:
    """x where the mask holds, NaN elsewhere."""
    return select(mask, x, float("nan"))


def sqrt(x: Series) -> Series:
    return apply("sqrt", x)


def absolute(x: Series) -> Series:
    return apply("absolute", x)


def sign(x: Series) -> Series:
    """-1, 0 or 1; 0 for NaN."""
    return apply("sign", x)


def finite(x: Series) -> Series:
    """x where it is finite, NaN where it is infinite: inf - inf is NaN."""
    return x + (x - x)
