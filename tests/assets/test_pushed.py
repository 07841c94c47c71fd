"""The bars step takes what was pushed to the service: in the place of the source's bars, known when it came."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest

from assets import partitions
from resources.arrivals import Journal

NUMBERS = ("open", "high", "low", "close", "volume")


def journal(root: Path, *batches: tuple[pl.DataFrame, timedelta]) -> None:
    """Append bars as the service does, each batch so long after its newest bar's start."""
    made = Journal(root, "5m")
    for bars, after in batches:
        at = bars["timestamp"].max() + after
        columns = {"symbol": bars["symbol"].to_list(), "timestamp": bars["timestamp"].dt.epoch("us").to_list()}
        made.append(at, columns | {name: bars[name].to_list() for name in NUMBERS}).result(10)
    made.close()


@pytest.fixture
def made(pipeline: Callable[..., object], tmp_path: Path):  # type: ignore[no-untyped-def]
    found = pipeline()
    found.run("bars")
    return found


def test_a_bar_that_only_the_journal_has_enters_the_table_known_when_it_arrived(made, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    root = Path(made.lake.root).parent
    bars = made.table("bars")
    gap = missing(made, bars)
    journal(root, (gap, timedelta(minutes=6)))
    told = made.run("bars")
    after = made.table("bars")
    new = after.join(bars, on=["symbol", "timestamp"], how="anti")
    assert new.select("symbol", "timestamp", *NUMBERS).equals(gap.select("symbol", "timestamp", *NUMBERS))
    assert new["known_at"].to_list() == [gap["timestamp"][0] + timedelta(minutes=6)]
    assert new["source"].to_list() == ["pushed"]
    assert (told.metadata["bars"]["rows pushed"], told.metadata["bars"]["rows new"]) == (1, 1)
    assert all(check.passed for check in told.checks.values())
    assert made.run("bars").metadata["bars"]["changed"] is False


def test_a_pushed_bar_stands_in_the_place_of_the_sources_and_the_newest_push_counts(made) -> None:  # type: ignore[no-untyped-def]
    root = Path(made.lake.root).parent
    bars = made.table("bars")
    one = bars[50:51]
    first = one.with_columns(pl.col("close") * 1.001, pl.col("high") * 1.01)
    second = one.with_columns(pl.col("close") * 1.002, pl.col("high") * 1.01)
    journal(root, (first, timedelta(minutes=5)), (second, timedelta(minutes=7)))
    told = made.run("bars")
    after = made.table("bars")
    assert after.height == bars.height
    changed = after.filter(pl.col("symbol") == one["symbol"], pl.col("timestamp") == one["timestamp"])
    assert changed["close"].to_list() == second["close"].to_list()
    assert told.metadata["bars"]["rows replaced by pushed ones"] == 1
    assert told.metadata["bars"]["rows revised"] == 1
    assert all(check.passed for check in told.checks.values())


def test_a_pushed_jump_is_kept_apart_and_leaves_the_sources_bar_in_its_place(made) -> None:  # type: ignore[no-untyped-def]
    root = Path(made.lake.root).parent
    bars = made.table("bars")
    one = bars[400:401]
    wrong = one.with_columns(pl.col(name) * 100 for name in ("open", "high", "low", "close"))
    journal(root, (wrong, timedelta(minutes=5)))
    told = made.run("bars")
    assert made.table("bars").equals(bars)
    assert told.metadata["bars"]["rejected: jump"] == 1
    assert all(check.passed for check in told.checks.values())
    rejected = made.table("rejected")
    assert rejected.filter(pl.col("source") == "pushed")["close"].to_list() == wrong["close"].to_list()


def missing(made, bars: pl.DataFrame) -> pl.DataFrame:  # type: ignore[no-untyped-def]
    """A bar of the grid that the source does not have."""
    plan = made.plan()
    days = plan.grid.session_dates(bars["timestamp"].dt.replace_time_zone(None).to_numpy())
    slots = pl.DataFrame({"timestamp": pl.Series(plan.grid.slots(days.min().item(), days.max().item()))})
    slots = slots.with_columns(pl.col("timestamp").cast(pl.Datetime("us")).dt.replace_time_zone("UTC"))
    symbol = bars["symbol"][0]
    gaps = slots.join(bars.filter(pl.col("symbol") == symbol), on="timestamp", how="anti")
    at = gaps["timestamp"][len(gaps) // 2]
    before = bars.filter(pl.col("symbol") == symbol, pl.col("timestamp") < at).sort("timestamp").tail(1)
    return before.with_columns(timestamp=pl.lit(at).cast(before.schema["timestamp"]))


def test_what_runs_ahead_of_the_source_has_partitions_too(made, pipeline: Callable[..., object]) -> None:  # type: ignore[no-untyped-def]
    root = Path(made.lake.root).parent
    last = made.table("bars").filter(pl.col("timestamp") == pl.col("timestamp").max())
    ahead = last.with_columns(pl.col("timestamp") + timedelta(days=7))
    plan, horizons = made.plan(), made.horizons
    source = partitions.span(plan, horizons)
    journal(root, (ahead, timedelta(minutes=5)))
    if source[1] is None:
        assert partitions.span(plan, horizons) == source
    else:
        assert partitions.span(plan, horizons) == (source[0], ahead["timestamp"][0].date())
