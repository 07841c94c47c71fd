"""Charts: round ticks, lines thin enough to draw without losing their extremes, and ranges that hold what is drawn."""

import math

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st

from assets.chart import MOST_POINTS, Plot, extent, thinned, ticks

NUMBER = st.floats(-1e6, 1e6, allow_nan=False)


@given(NUMBER, NUMBER, st.integers(2, 10))
def test_ticks_are_few_evenly_spaced_and_inside(low: float, high: float, count: int) -> None:
    assume(high - low > 1e-6 * max(1.0, abs(low), abs(high)))
    found = ticks(low, high, count)
    room = (high - low) * 1e-6
    assert 1 <= len(found) <= count + 2 or (high - low) / count < 1e-9
    assert all(low - room <= value <= high + room for value in found)
    steps = np.diff(found)
    assert np.allclose(steps, steps[:1], rtol=1e-4) if len(steps) else True


@given(st.lists(NUMBER, min_size=1, max_size=30), st.booleans())
def test_an_extent_holds_every_value_and_zero_where_asked(values: list[float], zero: bool) -> None:
    low, high = extent(values, zero=zero)
    assert low <= min(values)
    assert max(values) <= high
    assert not zero or low <= 0 <= high


def test_a_long_line_keeps_its_extremes_and_its_ends() -> None:
    x = np.arange(100_000.0)
    y = np.sin(x / 500)
    y[77_777], y[12_345] = 9.0, -9.0
    found = thinned(x, y)
    assert len(found) <= MOST_POINTS
    assert {(77_777.0, 9.0), (12_345.0, -9.0), (0.0, 0.0), (99_999.0, float(y[-1]))} <= set(found)
    assert [point[0] for point in found] == sorted(point[0] for point in found)


def test_a_line_breaks_where_there_is_no_value() -> None:
    plot = Plot((0, 4), (0, 1))
    plot.line([0, 1, 2, 3, 4], [0.1, 0.2, math.nan, 0.3, 0.4], "s-model")
    assert plot.svg("x").count("M") == 2
    assert "nan" not in plot.svg("x")


def test_words_of_the_data_cannot_become_markup() -> None:
    plot = Plot((0, 1), (0, 1))
    plot.text(0, 0, "<script>alert(1)</script>")
    plot.dot(0, 0, "f-model", '"><b>')
    assert "<script" not in plot.svg('a "b"')
    assert "<b>" not in plot.svg("x")
