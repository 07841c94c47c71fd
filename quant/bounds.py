"""The bounds that entries declare: the same rule judges a stored row and a served one."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import polars as pl

from quant.sets import Entry

Bounds = Mapping[str, tuple[float | None, float | None]]  # by name: lowest and highest value, None where undeclared

# A value breaks the first of these that holds for it.
REASONS = {
    "not_finite": "the value is infinite or NaN",
    "below_low": "the value is below the `low` that its set declares",
    "above_high": "the value is above the `high` that its set declares",
}


def bounds_of(entries: Mapping[str, Entry]) -> Bounds:
    """The entries that declare a bound."""
    declared = {name: (entry.low, entry.high) for name, entry in entries.items()}
    return {name: pair for name, pair in declared.items() if pair != (None, None)}


def broken(name: str, low: float | None = None, high: float | None = None) -> dict[str, pl.Expr]:
    """By reason, where a Float32 column breaks it; null where the value is missing, which is no fault."""
    rules = {"not_finite": ~pl.col(name).is_finite()}
    if low is not None:
        rules["below_low"] = pl.col(name) < low
    if high is not None:
        rules["above_high"] = pl.col(name) > high
    return rules


def outside(values: Mapping[str, npt.NDArray[np.float32]], bounds: Bounds) -> npt.NDArray[np.bool_] | np.bool_:
    """Where any bounded value breaks a bound, in the shape of the arrays; NaN is a missing value and breaks none.

    A bound is rounded to float32, as Polars does for `broken`.
    """
    found: npt.NDArray[np.bool_] | np.bool_ = np.False_
    for name, (low, high) in bounds.items():
        if low is not None:
            found = found | (values[name] < np.float32(low))
        if high is not None:
            found = found | (values[name] > np.float32(high))
    return found
