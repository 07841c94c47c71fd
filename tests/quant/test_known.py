"""When a value could be known."""

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from quant.known import NEVER, latest, of_values
from quant.program import Program


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=40), st.integers(0, 60))
def test_latest_is_pandas_rolling_maximum(values: list[int], lookback: int) -> None:
    ours = latest(np.array(values, dtype=np.int64)[:, None], lookback)[:, 0]
    theirs = pd.Series(values).rolling(lookback + 1, min_periods=1).max().to_numpy()
    np.testing.assert_array_equal(ours, theirs)


def test_a_missing_bar_delays_nothing() -> None:
    known = np.array([[5], [NEVER], [3]])
    assert latest(known, 1).ravel().tolist() == [5, 5, 3]


def test_a_value_is_known_when_the_last_bar_that_it_reads_is() -> None:
    known = np.array([[1, 9, 2], [4, 3, 5]])

    def of(text: str) -> list[list[int]]:
        return of_values(Program.compile({"x": text}, ["close"]), known, ("A", "B", "C")).tolist()

    assert of("close") == [[1, 9, 2], [4, 3, 5]]
    assert of("mean(close, 2)") == [[1, 9, 2], [4, 9, 5]]
    assert of("rank(close)") == [[9, 9, 9], [5, 5, 5]]
    assert of('of("B", close) / close') == [[9, 9, 9], [4, 3, 5]]
