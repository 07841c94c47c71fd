"""Coarser bars hold exactly what their finer ones held, and stay inside sessions."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quant.bars import BarsError
from quant.grid import CalendarSpec, Grid
from quant.resample import resample
from quant.validate import validate

XNYS = CalendarSpec("XNYS")
FINE = Grid(XNYS, "1m")


def minutes(start: date, end: date, seed: int = 0, keep: float = 1.0) -> pl.DataFrame:
    """Validated one-minute bars of a random walk; a share of them missing."""
    slots = FINE.slots(start, end)
    random = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(random.normal(0, 0.001, len(slots))))
    open_ = np.roll(close, 1)
    frame = pl.DataFrame(
        {
            "symbol": ["A"] * len(slots),
            "timestamp": pl.Series(slots).dt.replace_time_zone("UTC"),
            "open": open_,
            "high": np.maximum(open_, close) * 1.001,
            "low": np.minimum(open_, close) * 0.999,
            "close": close,
            "volume": random.integers(0, 5, len(slots)).astype(float),
            "source": ["test"] * len(slots),
            "vwap": close,
            "spread": random.random(len(slots)),
        }
    )
    return validate(frame.filter(pl.Series(random.random(len(slots)) < keep)), FINE).good


@pytest.mark.parametrize("interval", ["5m", "15m", "1h"])
def test_full_days_resample_as_pandas_does_from_the_open(interval: str) -> None:
    bars = minutes(date(2024, 7, 1), date(2024, 7, 5), keep=0.7)  # with a half day and a holiday
    found = resample(bars, FINE, Grid(XNYS, interval))
    table = bars.to_pandas().set_index("timestamp")
    rules = {"open": "first", "high": "max", "low": "min", "close": "last", "volume": "sum"}
    offset = "30min" if interval == "1h" else None
    expected = table.resample(interval.replace("m", "min"), offset=offset).agg(rules).dropna()
    assert found["timestamp"].to_list() == [time.to_pydatetime() for time in expected.index]
    for name in rules:
        assert found[name].to_list() == expected[name].tolist(), name


def test_a_bar_of_thin_data_is_not_known_before_it_ends_and_a_late_part_delays_it() -> None:
    bars = minutes(date(2024, 7, 2), date(2024, 7, 2), keep=0.3)
    coarse = Grid(XNYS, "1h")
    found = resample(bars, FINE, coarse)
    ends = pl.Series(coarse.ends(found["timestamp"].to_numpy())).dt.replace_time_zone("UTC")
    assert found["known_at"].to_list() == ends.to_list()
    late = bars.with_columns(
        known_at=pl.when(pl.int_range(pl.len()) == 0).then(ends[0] + timedelta(hours=3)).otherwise("known_at")
    )
    moved = resample(late, FINE, coarse)["known_at"]
    assert moved[0] == ends[0] + timedelta(hours=3)
    assert moved.to_list()[1:] == ends.to_list()[1:]


def test_a_truncated_bin_ends_at_the_close_of_the_half_day() -> None:
    bars = minutes(date(2024, 7, 3), date(2024, 7, 3))
    found = resample(bars, FINE, Grid(XNYS, "1h"))
    assert found.height == 4  # 09:30, 10:30, 11:30 and the half hour from 12:30
    assert found["timestamp"][-1] == datetime(2024, 7, 3, 16, 30, tzinfo=UTC)
    assert found["known_at"][-1] == datetime(2024, 7, 3, 17, tzinfo=UTC)
    assert found["volume"].sum() == bars["volume"].sum()


def test_daily_bars_carry_the_session_date() -> None:
    bars = minutes(date(2024, 7, 1), date(2024, 7, 5))
    found = resample(bars, FINE, Grid(XNYS, "1d"))
    assert found["timestamp"].dt.date().to_list() == [date(2024, 7, day) for day in (1, 2, 3, 5)]
    assert found["open"][0] == bars["open"][0]
    assert found["close"][-1] == bars["close"][-1]


def test_an_evening_session_becomes_the_next_day() -> None:
    calendar = CalendarSpec("template", "America/New_York", "18:00", "17:00")
    fine = Grid(calendar, "1h")
    slots = fine.slots(date(2024, 1, 8), date(2024, 1, 9))
    frame = pl.DataFrame({"timestamp": pl.Series(slots).dt.replace_time_zone("UTC")}).with_columns(
        symbol=pl.lit("A"), source=pl.lit("test"), **{p: pl.lit(1.0) for p in ("open", "high", "low", "close")}
    )
    found = resample(validate(frame, fine).good, fine, Grid(calendar, "1d"))
    assert found["timestamp"].dt.date().to_list() == [date(2024, 1, 8), date(2024, 1, 9)]


def test_no_fine_bar_means_no_coarse_bar() -> None:
    bars = minutes(date(2024, 7, 2), date(2024, 7, 2))
    gap = pl.col("timestamp").dt.hour() != 15
    found = resample(bars.filter(gap), FINE, Grid(XNYS, "15m"))
    assert not (found["timestamp"].dt.hour() == 15).any()
    assert found.height == 26 - 4


def test_vwap_is_weighted_by_volume_and_other_extras_are_the_last() -> None:
    bars = minutes(date(2024, 7, 2), date(2024, 7, 2)).head(5)
    (row,) = resample(bars, FINE, Grid(XNYS, "5m")).iter_rows(named=True)
    assert row["vwap"] == pytest.approx(np.average(bars["vwap"], weights=bars["volume"]))
    assert row["spread"] == bars["spread"][-1]
    silent = bars.with_columns(volume=pl.lit(None, pl.Float64))
    (row,) = resample(silent, FINE, Grid(XNYS, "5m")).iter_rows(named=True)
    assert row["volume"] is None
    assert row["vwap"] == pytest.approx(bars["vwap"].mean())


@given(seed=st.integers(0, 1000), keep=st.floats(0.05, 1))
@settings(max_examples=20)
def test_resampling_in_two_steps_is_resampling_in_one(seed: int, keep: float) -> None:
    bars = minutes(date(2024, 7, 2), date(2024, 7, 3), seed, keep).drop("vwap")
    middle, coarse = Grid(XNYS, "5m"), Grid(XNYS, "30m")
    twice = resample(resample(bars, FINE, middle), middle, coarse)
    assert twice.equals(resample(bars, FINE, coarse))


def test_bars_off_the_fine_grid_and_impossible_intervals_are_refused() -> None:
    bars = minutes(date(2024, 7, 2), date(2024, 7, 2)).head(3)
    with pytest.raises(BarsError, match="3 bars are off the grid"):
        resample(bars.with_columns(pl.col("timestamp").dt.offset_by("30s")), FINE, Grid(XNYS, "5m"))
    with pytest.raises(BarsError, match="does not divide"):
        resample(bars, Grid(XNYS, "5m"), Grid(XNYS, "7m"))
    with pytest.raises(BarsError, match="longer interval"):
        resample(bars, FINE, FINE)
    with pytest.raises(BarsError, match="same calendar"):
        resample(bars, FINE, Grid(CalendarSpec("24/7"), "5m"))


@pytest.mark.parametrize(("interval", "rows"), [("5m", 96_095), ("15m", 38_119), ("1d", 1_507)])
def test_real_minutes_keep_their_volume_and_extremes(market_data: Path, interval: str, rows: int) -> None:
    frame = pl.read_parquet(market_data / "dev_eq_us_1m_2024.parquet").with_columns(source=pl.lit("file"))
    good = validate(frame, FINE).good
    found = resample(good, FINE, Grid(XNYS, interval))
    assert found.height == rows
    assert Grid(XNYS, interval).contains(found["timestamp"].to_numpy()).all()
    whole = [pl.col("volume").sum(), pl.col("high").max(), pl.col("low").min()]
    per_symbol = [frame.group_by("symbol").agg(whole).sort("symbol") for frame in (good, found)]
    assert per_symbol[0].equals(per_symbol[1])
