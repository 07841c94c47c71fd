"""A bar that a refresh should have had and a later one brings is known since that later one; history is not."""

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from assets import fetched
from assets.dataset import load
from quant.bars import INSTANT
from quant.resample import resample
from tests.assets.conftest import File, Make

END = pl.col("timestamp") + timedelta(minutes=5)
ROW = (pl.col("symbol") == "S001") & (pl.col("timestamp").dt.strftime("%Y-%m-%d %H:%M") == "2021-11-23 15:00")
DAY = pl.col("timestamp").dt.strftime("%Y-%m-%d")


def test_a_bar_that_was_not_there_and_comes_is_known_since_it_came_and_stays_so(
    pipeline: Make, file: File, market: pl.DataFrame
) -> None:
    made = pipeline(*file(market.filter(~ROW)))
    assert made.run("bars").metadata["bars"]["rows that came late"] == 0
    made.clock.set(came := made.clock.now() + timedelta(days=1))
    file(market)
    told = made.run("bars").metadata["bars"]
    assert (told["rows new"], told["rows that came late"]) == (1, 1)
    bars = made.table("bars")
    assert bars.filter(ROW)["known_at"].item() == came
    assert (bars.filter(~ROW).select(pl.col("known_at") == END)).to_series().all()
    made.clock.set(came + timedelta(days=1))
    assert made.run("bars").metadata["bars"]["changed"] is False
    assert made.table("bars").equals(bars)


@pytest.mark.slow
def test_rows_that_read_a_late_bar_are_left_out_of_the_scores(pipeline: Make, file: File, market: pl.DataFrame) -> None:
    made = pipeline(*file(market.filter(~ROW)))
    made.run("bars", "features", "factors")
    assert load(made.plan(), made.lake).dropped.get("restated", 0) == 0
    file(market)
    made.clock.set(made.clock.now() + timedelta(days=1))
    made.run("bars", "features", "factors")
    late = made.table("factors").filter(pl.col("known_at") > END)
    assert load(made.plan(), made.lake).dropped["restated"] == late.height > 0
    assert late["timestamp"].min() == market.filter(ROW)["timestamp"].item()


def test_a_session_that_was_fetched_without_a_bar_is_late_and_one_never_fetched_is_history(
    pipeline: Make, file: File, market: pl.DataFrame
) -> None:
    hole, unseen = DAY == "2021-11-24", DAY == "2021-11-30"
    made = pipeline(*file(market.filter(~hole & ~unseen)))
    made.run("bars")
    file(market)
    made.clock.set(came := made.clock.now() + timedelta(days=1))
    assert made.run("bars").metadata["bars"]["rows that came late"] == market.filter(hole).height
    bars = made.table("bars")
    assert (bars.filter(hole)["known_at"] == came).all()
    assert bars.filter(~hole).select((pl.col("known_at") == END).all()).item()


@pytest.mark.slow
def test_what_a_file_goes_on_with_is_history_though_its_month_was_fetched(
    pipeline: Make, file: File, market: pl.DataFrame
) -> None:
    made = pipeline(*file(market.filter(pl.col("timestamp") < datetime(2021, 11, 25, tzinfo=UTC))), "partition=month")
    made.run("bars")
    file(market)
    assert made.run("bars").metadata["bars"]["rows that came late"] == 0
    assert made.table("bars").select((pl.col("known_at") == END).all()).item()
    assert made.table("bars").height == market.height


@pytest.mark.slow
def test_a_symbol_that_joins_brings_its_history_and_is_late_only_after_its_first_bar(
    pipeline: Make, file: File, market: pl.DataFrame
) -> None:
    others, newest = pl.col("symbol") != "S001", DAY == "2021-11-30"
    made = pipeline(*file(market.filter(others)))
    made.run("bars")
    file(market.filter(others | newest))
    assert made.run("bars").metadata["bars"]["rows that came late"] == 0  # it joins with the newest session
    file(market.filter(~ROW))
    assert made.run("bars").metadata["bars"]["rows that came late"] == 0  # and what was before that is its history
    file(market)
    assert made.run("bars").metadata["bars"]["rows that came late"] == 1


@pytest.mark.parametrize(("second", "late"), [(10, 1), (9, 0)])
def test_the_source_has_delay_seconds_for_its_last_bar(
    pipeline: Make, file: File, market: pl.DataFrame, second: int, late: int
) -> None:
    made = pipeline(*file(market.filter(~ROW)), "automation=interval", "automation.delay_seconds=10")
    made.clock.set(datetime(2021, 11, 23, 15, 5, second, tzinfo=UTC))
    made.run("bars")
    file(market)
    made.clock.set(came := datetime(2021, 11, 23, 15, 10, 10, tzinfo=UTC))
    assert made.run("bars").metadata["bars"]["rows that came late"] == late
    ended = datetime(2021, 11, 23, 15, 5, tzinfo=UTC)
    assert made.table("bars").filter(ROW)["known_at"].item() == (came if late else ended)


@pytest.mark.slow
def test_a_run_that_died_has_not_fetched(
    pipeline: Make, file: File, market: pl.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = pipeline(*file(market.filter(~ROW)))
    with monkeypatch.context() as patch:
        patch.setattr(fetched, "after", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            made.run("bars")
    file(market)
    assert made.run("bars").metadata["bars"]["rows that came late"] == 0
    assert made.table("bars").filter(ROW)["known_at"].item() == market.filter(ROW)["timestamp"].item() + timedelta(
        minutes=5
    )


@pytest.mark.slow
def test_a_coarse_bar_of_a_late_one_is_known_as_that_one_is(pipeline: Make, file: File, market: pl.DataFrame) -> None:
    made = pipeline("horizon=15m", "bars.from=5m", *file(market.filter(~ROW)))
    made.run("bars")
    made.run("bars", horizon="15m")
    file(market)
    made.clock.set(came := made.clock.now() + timedelta(days=1))
    made.run("bars")
    made.clock.set(came + timedelta(hours=1))
    made.run("bars", horizon="15m")
    fine, coarse = made.table("bars"), made.table("bars", "15m")
    grids = made.plan().grid, made.plan("15m").grid
    assert coarse.drop("partition").equals(resample(fine.drop("partition"), *grids).sort("timestamp", "symbol"))
    assert coarse.filter(ROW)["known_at"].item() == came


def test_a_pushed_bar_is_known_when_it_was_pushed() -> None:
    at = [datetime(2021, 11, 23, 15, minute, tzinfo=UTC) for minute in (0, 5, 10)]
    bars = pl.DataFrame(
        {"symbol": "A", "timestamp": at, "known_at": at, "source": ["parquet", "pushed", "parquet"]},
        schema_overrides={"timestamp": INSTANT, "known_at": INSTANT},
    ).with_columns(partition=pl.lit("2021-11-23"))
    once = fetched.after(pl.DataFrame(schema=fetched.SCHEMA), ["2021-11-23"], at[2]).drop("partition")
    now, stored = at[2] + timedelta(hours=1), bars.head(1).lazy()
    found, late = fetched.dated(bars, once, bars.head(1), stored, now)
    assert found["known_at"].to_list() == [at[0], at[1], now]
    assert late == 1
