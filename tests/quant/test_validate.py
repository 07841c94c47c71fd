"""Every row is either good or rejected with the reason it deserves."""

import math
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quant.bars import BarsError
from quant.grid import CalendarSpec, Grid
from quant.validate import REASONS, validate

MINUTES = Grid(CalendarSpec("XNYS"), "1m")
DAYS = Grid(CalendarSpec("XNYS"), "1d")
OPEN = "2024-01-02T14:30"


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def bars(rows: list[tuple], **more: list) -> pl.DataFrame:
    """(symbol, time, open, high, low, close, volume) rows as a source gives them."""
    prices = dict.fromkeys(["open", "high", "low", "close", "volume"], pl.Float64)
    return pl.DataFrame(
        [(symbol, utc(when), *rest, "test") for symbol, when, *rest in rows],
        schema={"symbol": pl.String, "timestamp": pl.Datetime("us", "UTC"), **prices, "source": pl.String},
        orient="row",
    ).with_columns(pl.Series(name, values) for name, values in more.items())


def reasons(frame: pl.DataFrame) -> list[str]:
    return validate(frame, MINUTES).rejected["reason"].to_list()


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (("A", OPEN, None, 2.0, 1.0, 1.5, 10.0), "null_price"),
        (("A", OPEN, math.nan, 2.0, 1.0, 1.5, 10.0), "null_price"),
        (("A", OPEN, 1.5, math.inf, 1.0, 1.5, 10.0), "non_finite"),
        (("A", OPEN, 1.5, 2.0, 1.0, 1.5, math.inf), "non_finite"),
        (("A", OPEN, 1.5, 2.0, 0.0, 1.5, 10.0), "non_positive"),
        (("A", OPEN, 1.5, 2.0, 1.0, 1.5, -1.0), "negative_volume"),
        (("A", OPEN, 1.5, 1.4, 1.0, 1.2, 10.0), "ohlc_order"),
        (("A", OPEN, 1.5, 2.0, 1.6, 1.7, 10.0), "ohlc_order"),
        (
            ("A", "2024-01-02T21:00", 1.5, 2.0, 1.0, 1.5, 10.0),
            "off_grid",
        ),  # the auction print after the close
        (("A", "2024-07-04T15:00", 1.5, 2.0, 1.0, 1.5, 10.0), "off_grid"),
        (("A", "2024-01-02T14:30:30", 1.5, 2.0, 1.0, 1.5, 10.0), "off_grid"),
        ((None, OPEN, 1.5, 2.0, 1.0, 1.5, 10.0), "null_key"),
    ],
)
def test_a_bad_row_is_rejected_for_its_reason_and_its_neighbour_is_kept(row: tuple, reason: str) -> None:
    good = ("B", OPEN, 1.5, 2.0, 1.0, 1.5, 10.0)
    checked = validate(bars([row, good]), MINUTES)
    assert checked.rejected["reason"].to_list() == [reason]
    assert checked.good["symbol"].to_list() == ["B"]
    assert checked.counts == {reason: 1}


def test_a_row_without_a_time_is_rejected_and_counted() -> None:
    frame = bars([("A", OPEN, 1.5, 2.0, 1.0, 1.5, 10.0)]).with_columns(timestamp=pl.lit(None, pl.Datetime("us", "UTC")))
    assert reasons(frame) == ["null_key"]


def test_a_volume_that_is_missing_is_no_reason() -> None:
    frame = bars([("A", OPEN, 1.0, 1.0, 1.0, 1.0, None), ("B", OPEN, 1.0, 1.0, 1.0, 1.0, math.nan)])
    checked = validate(frame, MINUTES)
    assert checked.good["volume"].to_list() == [None, None]
    assert validate(frame.drop("volume"), MINUTES).good["volume"].to_list() == [None, None]


def test_a_price_spike_in_a_consistent_bar_is_no_reason() -> None:
    prices = [100.0, 50.0, 100.0]
    frame = bars([("LNT", f"2024-01-02T14:3{i}", p, p, p, p, 1.0) for i, p in enumerate(prices)])
    assert validate(frame, MINUTES).good["close"].to_list() == prices


def test_of_contradicting_bars_the_last_to_arrive_is_kept() -> None:
    first, last = ("A", OPEN, 1.0, 1.0, 1.0, 1.0, 5.0), ("A", OPEN, 2.0, 2.0, 2.0, 2.0, 5.0)
    checked = validate(bars([first, last, first, last]), MINUTES)
    assert checked.good["close"].to_list() == [2.0]
    assert checked.rejected["reason"].to_list() == ["duplicate_key", "duplicate", "duplicate_key"]


def test_a_bad_repeat_never_displaces_a_good_bar() -> None:
    good, bad = ("A", OPEN, 1.0, 1.0, 1.0, 1.0, 5.0), ("A", OPEN, 1.0, 1.0, -1.0, 1.0, 5.0)
    checked = validate(bars([good, bad]), MINUTES)
    assert checked.good.height == 1
    assert checked.counts == {"non_positive": 1}


def test_bars_out_of_order_are_sorted_and_it_is_said() -> None:
    frame = bars([("A", f"2024-01-02T14:3{i}", 1.0, 1.0, 1.0, 1.0, 1.0) for i in (2, 0, 1)])
    checked = validate(frame, MINUTES)
    assert checked.good["timestamp"].is_sorted()
    assert checked.counts == {}
    assert checked.notes == ("unsorted: time runs backwards at 1 places; bars were sorted",)


def test_history_is_known_at_the_end_of_the_bar_and_a_pushed_bar_at_its_arrival() -> None:
    frame = bars([("A", OPEN, 1.0, 1.0, 1.0, 1.0, 1.0)])
    assert validate(frame, MINUTES).good["known_at"].to_list() == [utc("2024-01-02T14:31")]
    daily = bars([("A", "2024-07-03", 1.0, 1.0, 1.0, 1.0, 1.0)])
    assert validate(daily, DAYS).good["known_at"].to_list() == [utc("2024-07-03T17:00")]  # a half day
    arrival = utc("2024-01-02T14:31:02")
    pushed = frame.with_columns(known_at=pl.lit(arrival).cast(pl.Datetime("us", "UTC")))
    assert validate(pushed, MINUTES).good["known_at"].to_list() == [arrival]


def test_a_reason_that_a_source_gave_is_kept() -> None:
    frame = bars([("A", OPEN, 1.0, 1.0, 1.0, 1.0, 1.0)], reason=["ambiguous_time"])
    checked = validate(frame, MINUTES)
    assert checked.counts == {"ambiguous_time": 1}
    assert "reason" not in checked.good.columns


def test_the_summary_counts_each_trouble_in_words() -> None:
    frame = bars([("A", OPEN, 1.0, 1.0, 1.0, 1.0, 1.0), ("A", "2024-01-02T12:00", 1.0, 1.0, 1.0, 1.0, 1.0)])
    assert validate(frame, MINUTES).summary().splitlines()[:2] == [
        "1 of 2 bars are good",
        "1 rejected, off_grid: " + REASONS["off_grid"],
    ]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda frame: frame.drop("close"), "lack the column.* close"),
        (lambda frame: frame.with_columns(pl.col("timestamp").dt.replace_time_zone(None)), "no time zone"),
        (lambda frame: frame.with_columns(note=pl.lit("x")), "'note' is String"),
    ],
)
def test_a_frame_that_is_no_bars_is_refused_with_the_column(change, said: str) -> None:
    with pytest.raises(BarsError, match=said):
        validate(change(bars([("A", OPEN, 1.0, 1.0, 1.0, 1.0, 1.0)])), MINUTES)


PRICE = st.one_of(st.none(), st.sampled_from([1.0, 2.0, 3.0, 0.0, -1.0, math.nan, math.inf]))
ROW = st.tuples(st.sampled_from(["A", "B", None]), st.integers(-2, 5), PRICE, PRICE, PRICE, PRICE, PRICE)


@given(rows=st.lists(ROW, max_size=30))
@settings(max_examples=60)
def test_no_row_is_ever_lost_and_every_good_one_keeps_the_rules(rows: list[tuple]) -> None:
    start = utc(OPEN)
    frame = bars([(symbol, (start + timedelta(minutes=at)).isoformat()[:19], *rest) for symbol, at, *rest in rows])
    checked = validate(frame, MINUTES)
    good = checked.good
    assert good.height + checked.rejected.height == len(rows)
    assert sum(checked.counts.values()) == checked.rejected.height
    assert set(checked.counts) <= set(REASONS)
    assert not good.select("symbol", "timestamp").is_duplicated().any()
    for row in good.iter_rows(named=True):
        assert 0 < row["low"] <= min(row["open"], row["close"]) <= max(row["open"], row["close"]) <= row["high"]
        assert row["timestamp"] >= start
        assert row["volume"] is None or 0 <= row["volume"] < math.inf
    again = validate(good, MINUTES)
    assert again.good.equals(good)
    assert again.rejected.is_empty()
