"""Panels: long bars become dense arrays, and nothing is moved, doubled or lost on the way."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from quant.panel import Panel, to_frame

START = datetime(2024, 1, 2, 14, 30, tzinfo=UTC)
TIME = np.datetime64("2024-01-02T14:30", "us") + np.arange(4) * np.timedelta64(60_000_000, "us")


def bars(*rows: tuple[str, int, float | None]) -> pl.DataFrame:
    """Rows of symbol, minute and close."""
    stamps = [START + timedelta(minutes=minute) for _, minute, _ in rows]
    return pl.DataFrame(
        {
            "symbol": [symbol for symbol, _, _ in rows],
            "timestamp": pl.Series(stamps, dtype=pl.Datetime("us", "UTC")),
            "close": pl.Series([close for _, _, close in rows], dtype=pl.Float64),
        }
    )


def test_a_gap_never_becomes_a_flat_bar() -> None:
    panel = Panel.from_frame(bars(("A", 0, 1.0), ("A", 2, 3.0), ("B", 3, None)), TIME, ["A", "B"], ["close"])
    nan = np.nan
    np.testing.assert_array_equal(panel.columns["close"], [[1, nan], [nan, nan], [3, nan], [nan, nan]])
    assert panel.columns["close"].dtype == np.float32
    assert panel.columns["close"].flags.c_contiguous


def test_rows_may_come_in_any_order() -> None:
    rows = [("B", 1, 5.0), ("A", 0, 1.0), ("B", 0, 4.0), ("A", 3, 2.0)]
    one = Panel.from_frame(bars(*rows), TIME, ["A", "B"], ["close"])
    other = Panel.from_frame(bars(*reversed(rows)), TIME, ["A", "B"], ["close"])
    np.testing.assert_array_equal(one.columns["close"], other.columns["close"])


@pytest.mark.parametrize("minute", [-1, 4, 2.5])
def test_a_row_off_the_grid_is_refused_by_name(minute: float) -> None:
    with pytest.raises(ValueError, match=r"1 of 2 rows are off the grid, first A at 2024-01-02 14:"):
        Panel.from_frame(bars(("A", 0, 1.0), ("A", minute, 2.0)), TIME, ["A"], ["close"])


def test_a_symbol_outside_the_panel_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="symbol Z has rows"):
        Panel.from_frame(bars(("A", 0, 1.0), ("Z", 0, 2.0)), TIME, ["A"], ["close"])


def test_two_bars_of_one_slot_are_refused() -> None:
    with pytest.raises(ValueError, match="A has more than one row at 2024-01-02 14:31"):
        Panel.from_frame(bars(("A", 1, 1.0), ("A", 1, 2.0)), TIME, ["A"], ["close"])


def test_stamps_in_another_zone_mean_the_same_instant() -> None:
    here = bars(("A", 1, 1.0))
    there = here.with_columns(pl.col("timestamp").dt.convert_time_zone("America/New_York"))
    panel = Panel.from_frame(there, TIME, ["A"], ["close"])
    np.testing.assert_array_equal(panel.columns["close"][:, 0], [np.nan, 1, np.nan, np.nan])


def test_a_panel_survives_the_way_to_a_frame_and_back() -> None:
    values = np.array([[1, np.nan], [2, 3], [np.nan, np.nan], [4, 5]], np.float32)
    frame = to_frame(TIME, ["B", "A"], {"x": values})
    assert frame.schema["x"] == pl.Float32
    assert frame["x"].null_count() == 3
    assert frame["timestamp"].is_sorted()
    np.testing.assert_array_equal(Panel.from_frame(frame, TIME, ["B", "A"], ["x"]).columns["x"], values)


def test_panels_join_only_over_the_same_slots_and_symbols() -> None:
    zeros = np.zeros((4, 1), np.float32)
    one = Panel(TIME, ("A",), {"x": zeros})
    assert set(one.joined(Panel(TIME, ("A",), {"y": zeros})).columns) == {"x", "y"}
    with pytest.raises(ValueError, match="both have column x"):
        one.joined(one)
    with pytest.raises(ValueError, match="differ"):
        one.joined(Panel(TIME, ("B",), {"y": zeros}))


@pytest.mark.parametrize(
    ("time", "symbols", "values", "message"),
    [
        (TIME[::-1], ("A",), np.zeros((4, 1), np.float32), "not strictly increasing"),
        (TIME, ("A", "A"), np.zeros((4, 2), np.float32), "twice"),
        (TIME, ("A",), np.zeros((4, 1)), "column x is float64"),
        (TIME, ("A",), np.zeros((3, 1), np.float32), "column x is float32"),
    ],
)
def test_a_malformed_panel_is_refused(
    time: np.ndarray, symbols: tuple[str, ...], values: np.ndarray, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Panel(time, symbols, {"x": values})
