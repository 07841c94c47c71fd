"""Bounds: what an entry declares is checked the same way in a table and in the service."""

import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from quant.bounds import bounds_of, broken, outside
from quant.sets import Entry

floats = st.floats(width=32, allow_nan=False, allow_infinity=False)
bound = st.none() | st.floats(-10, 10) | st.sampled_from([0.1, -0.1, 1 / 3])


@given(st.lists(st.none() | floats | st.sampled_from([0.1, -0.1, 1 / 3]), min_size=1), bound, bound)
def test_a_table_and_the_service_find_the_same_values_outside(
    values: list[float | None], low: float | None, high: float | None
) -> None:
    column = pl.Series("a", values, dtype=pl.Float32)
    rules = [rule for reason, rule in broken("a", low, high).items() if reason != "not_finite"]
    stored = column.to_frame().select(pl.any_horizontal(pl.lit(False), *rules).fill_null(False)).to_series()
    dense = {"a": column.to_numpy().astype(np.float32)}
    served = np.broadcast_to(outside(dense, {"a": (low, high)}), len(values))
    assert np.broadcast_to(stored.to_numpy(), len(values)).tolist() == served.tolist()


def test_a_bound_itself_is_inside_and_a_missing_value_breaks_none() -> None:
    values = {"a": np.array([-1, 0.1, np.nan, 0.2, 0.05], np.float32)}
    assert outside(values, {"a": (0.1, 0.2)}).tolist() == [True, False, False, False, True]


def test_only_entries_that_declare_a_bound_have_one() -> None:
    entries = {"a": Entry("a", "close", "g", low=0.0), "b": Entry("b", "close", "g", nulls=0.1)}
    assert bounds_of(entries) == {"a": (0.0, None)}
