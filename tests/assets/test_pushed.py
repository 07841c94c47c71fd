"""The bars step takes what was pushed to the service: in the place of the source's bars, known when it came."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest

from assets import partitions
from resources.arrivals import Arrivals, Journal
from serving.live_load import Store
from tests.assets.conftest import NOW

NUMBERS = ("open", "high", "low", "close", "volume")


def journal(root: Path, *batches: tuple[pl.DataFrame, timedelta], jump: int | None = None) -> None:
    """Append bars as the service does, each batch so long after its newest bar's start; jump: what they were told."""
    made = Journal(root, "5m")
    for bars, after in batches:
        at = bars["timestamp"].max() + after
        columns = {"symbol": bars["symbol"].to_list(), "timestamp": bars["timestamp"].dt.epoch("us").to_list()}
        verdict = {} if jump is None else {"jump": [jump] * bars.height}
        made.append(at, columns | {name: bars[name].to_list() for name in NUMBERS} | verdict).result(10)
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


def scaled(bars: pl.DataFrame, by: float) -> pl.DataFrame:
    return bars.with_columns(pl.col(name) * by for name in ("open", "high", "low", "close"))


def test_what_a_pushed_bar_was_told_when_it_came_holds(made) -> None:  # type: ignore[no-untyped-def]
    root = Path(made.lake.root).parent
    bars = made.table("bars")
    taken, refused = bars[400:401], bars[440:441]
    journal(root, (scaled(taken, 100), timedelta(minutes=5)), jump=0)
    journal(root, (scaled(refused, 1.001), timedelta(minutes=5)), jump=1)
    told = made.run("bars")
    key = ["symbol", "timestamp"]
    after = made.table("bars")
    assert after.join(taken, on=key, how="semi")["close"].to_list() == (taken["close"] * 100).to_list()
    assert after.join(taken, on=key, how="anti").equals(bars.join(taken, on=key, how="anti"))
    rejected = made.table("rejected").filter(pl.col("source") == "pushed")
    assert rejected.select(*key, "reason", "close").rows() == [
        (*refused.select(key).row(0), "jump", refused["close"][0] * 1.001)
    ]
    assert all(check.passed for check in told.checks.values())
    assert made.run("bars").metadata["bars"]["changed"] is False


def test_a_journal_goes_once_the_tables_have_its_bars_and_its_days_are_past(made) -> None:  # type: ignore[no-untyped-def]
    root = Path(made.lake.root).parent
    bars, plan = made.table("bars"), made.plan()
    old, recent = bars.filter(pl.col("timestamp") < bars["timestamp"][600]), bars[-1:]
    pushed = scaled(old[50:54], 1.0005)
    journal(root, (pushed, timedelta(minutes=5)), (scaled(pushed[:1], 1.0001), timedelta(minutes=7)), jump=0)
    journal(root, (scaled(old[60:61], 50), timedelta(minutes=5)), jump=1)
    journal(root, (recent, timedelta(minutes=5)), jump=0)  # the newest: it tells how far the feed runs
    files = sorted((root / "arrivals" / "5m").iterdir())

    def live():  # type: ignore[no-untyped-def]
        return Store(root).read("5m", plan.grid, 100_000, None)

    made.clock.set(recent["timestamp"][0] + timedelta(days=1))
    told = made.run("bars")
    gone = [file for file in files if not file.exists()]
    assert told.metadata["bars"]["journals deleted"] == len(gone) == 2
    left = Arrivals(root).read("5m")
    assert left.select("symbol", "timestamp").rows() == recent.select("symbol", "timestamp").rows()
    tables = {step: made.table(step) for step in ("bars", "rejected")}
    before = live()
    assert before.jumps.height == 1

    again = made.run("bars")
    assert all(check.passed for check in again.checks.values())
    assert again.metadata["bars"]["changed"] is False, "what was pushed stays in the place of the source's"
    assert again.metadata["bars"]["rows pushed"] == told.metadata["bars"]["rows pushed"]
    for step, held in tables.items():
        assert made.table(step).equals(held)
    now = live()
    assert now.bars.equals(before.bars)
    assert now.jumps.equals(before.jumps)


def test_the_live_state_of_tables_is_that_of_the_journals_that_went_into_them(made) -> None:  # type: ignore[no-untyped-def]
    root = Path(made.lake.root).parent
    bars, plan = made.table("bars"), made.plan()
    one = bars[50:51]
    journal(root, (bars[-1:], timedelta(minutes=5)), jump=0)
    journal(root, (scaled(one, 1.001), timedelta(minutes=5)), (scaled(one, 1.002), timedelta(minutes=9)), jump=0)
    journal(root, (scaled(bars[70:71], 40), timedelta(minutes=6)), jump=1)
    before = Store(root).read("5m", plan.grid, 100_000, None)
    made.clock.set(bars["timestamp"][-1] + timedelta(days=3))
    assert made.run("bars").metadata["bars"]["journals deleted"] == 2
    after = Store(root).read("5m", plan.grid, 100_000, None)
    assert after.bars.equals(before.bars)
    assert after.jumps.equals(before.jumps)


def test_a_journal_stays_while_a_bar_of_it_is_not_in_the_tables(made) -> None:  # type: ignore[no-untyped-def]
    root = Path(made.lake.root).parent
    bars = made.table("bars")
    journal(root, (scaled(bars[50:51], 1.001), timedelta(minutes=5)), jump=0)
    journal(root, (bars[-1:], timedelta(minutes=5)), jump=0)
    made.clock.set(bars["timestamp"][-1] + timedelta(days=3))
    told = made.run("bars", keys=made.partition_keys()[-2:])
    assert told.metadata["bars"]["journals deleted"] == 0, "the session of the first bar was not made"
    assert len(list((root / "arrivals" / "5m").iterdir())) == 2
    assert made.run("bars").metadata["bars"]["journals deleted"] == 1


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
    source = partitions.span(plan, horizons, NOW)
    journal(root, (ahead, timedelta(minutes=5)))
    if source[1] is None:
        assert partitions.span(plan, horizons, NOW) == source
    else:
        assert partitions.span(plan, horizons, NOW) == (source[0], ahead["timestamp"][0].date())
