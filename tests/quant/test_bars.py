"""A second arrival: what is the same, what is a revision, and when each was known."""

import math
from datetime import UTC, datetime, timedelta

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from quant.bars import BARS, conform, expression_columns, extras, revise

NOW = datetime(2024, 6, 1, tzinfo=UTC)
START = datetime(2024, 1, 2, 14, 30, tzinfo=UTC)


def stored(closes: dict[int, float | None], **more: float) -> pl.DataFrame:
    """Bars of one symbol: minute -> close, known one minute later."""
    at = [START + timedelta(minutes=minute) for minute in closes]
    price = list(closes.values())
    columns = {name: price for name in ("open", "high", "low", "close", "volume")}
    frame = pl.DataFrame(
        {"symbol": ["A"] * len(at), "timestamp": at, **columns, "source": ["file"] * len(at)},
        schema_overrides={
            **{name: BARS[name] for name in ("symbol", "timestamp", "source")},
            **dict.fromkeys(columns, pl.Float64),
        },
    )
    known = pl.col("timestamp").dt.offset_by("1m").alias("known_at")
    return frame.with_columns(known, *(pl.lit(value).alias(name) for name, value in more.items()))


def test_a_bar_that_comes_again_unchanged_keeps_the_time_it_was_known() -> None:
    bars = stored({0: 1.0, 1: None})
    later = bars.with_columns(known_at=pl.lit(NOW).cast(BARS["known_at"]), source=pl.lit("another"))
    merged, counts = revise(bars, later, NOW)
    assert counts == {"new": 0, "same": 2, "revised": 0, "kept": 0}
    assert merged["known_at"].to_list() == bars["known_at"].to_list()


def test_a_changed_bar_is_known_from_now_and_the_newest_values_win() -> None:
    merged, counts = revise(stored({0: 1.0, 1: 2.0, 2: None}), stored({1: 2.5, 2: 3.0}), NOW)
    assert counts == {"new": 0, "same": 0, "revised": 2, "kept": 1}
    assert merged["close"].to_list() == [1.0, 2.5, 3.0]
    assert merged["known_at"].to_list()[1:] == [NOW, NOW]


def test_a_changed_bar_that_was_pushed_is_known_since_it_came() -> None:
    came = NOW - timedelta(hours=3)
    pushed = stored({1: 2.5}).with_columns(known_at=pl.lit(came).cast(BARS["known_at"]))
    merged, _ = revise(stored({0: 1.0, 1: 2.0}), pushed, NOW)
    assert merged["known_at"][1] == came


def test_a_new_bar_brings_its_own_time() -> None:
    incoming = stored({3: 1.0})
    merged, counts = revise(stored({0: 1.0}), incoming, NOW)
    assert counts == {"new": 1, "same": 0, "revised": 0, "kept": 1}
    assert merged["known_at"][1] == incoming["known_at"][0]


def test_a_column_new_to_the_table_revises_every_bar_that_came_again() -> None:
    merged, counts = revise(stored({0: 1.0}), stored({0: 1.0}, vwap=1.5), NOW)
    assert counts["revised"] == 1
    assert merged["vwap"].to_list() == [1.5]


CLOSES = st.dictionaries(st.integers(0, 8), st.one_of(st.none(), st.sampled_from([1.0, 2.0])), max_size=8)


@given(old=CLOSES, new=CLOSES)
@settings(max_examples=60)
def test_revising_twice_is_revising_once_and_no_key_is_lost(old: dict, new: dict) -> None:
    merged, counts = revise(stored(old), stored(new), NOW)
    assert merged.height == len(old.keys() | new.keys()) == sum(counts.values())
    assert not merged.select("symbol", "timestamp").is_duplicated().any()
    assert counts["revised"] == sum(1 for minute in old.keys() & new.keys() if old[minute] != new[minute])
    again, counts = revise(merged, stored(new), NOW + timedelta(days=1))
    assert again.equals(merged)
    assert counts["new"] == counts["revised"] == 0


def test_types_and_order_are_the_tables_and_nan_is_missing() -> None:
    messy = (
        stored({0: 1.0})
        .with_columns(vwap=pl.lit(math.nan), trades=pl.lit(3))
        .select(
            "trades",
            "close",
            "symbol",
            "low",
            "source",
            "high",
            "open",
            "vwap",
            pl.col("timestamp").dt.cast_time_unit("ns"),
            volume=pl.lit(7),
        )
    )
    tidy = conform(messy)
    assert tidy.columns == ["symbol", "timestamp", "open", "high", "low", "close", "volume", "source", "trades", "vwap"]
    assert tidy.schema["timestamp"] == BARS["timestamp"]
    assert tidy.row(0)[6:] == (7.0, "file", 3.0, None)
    assert extras(tidy) == ["trades", "vwap"]


def test_expressions_read_adjusted_and_raw_values_and_extras() -> None:
    bars = stored({0: 10.0}, price_factor=2.0, volume_factor=0.5, vwap=9.0)
    row = expression_columns(bars).row(0, named=True)
    assert (row["close"], row["raw_close"], row["volume"], row["raw_volume"], row["vwap"]) == (20, 10, 5, 10, 9)
