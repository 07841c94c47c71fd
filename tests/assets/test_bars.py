"""The bars step: every arriving row is kept or rejected with a reason, and a second arrival is told from a first."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from assets import bars as step
from assets import names
from assets.dataset import load
from quant.resample import resample
from tests.assets.conftest import File, Make

ROW = (pl.col("symbol") == "S001") & (pl.col("timestamp").dt.strftime("%Y-%m-%d %H:%M") == "2021-11-23 15:00")


def of(day: str) -> pl.Expr:
    return pl.col("timestamp").dt.date() == date.fromisoformat(day)


def test_a_second_run_over_the_same_rows_makes_no_new_version(pipeline: Make) -> None:
    made = pipeline()
    first = made.run("bars", "features", "factors").metadata
    again = made.run("bars", "features", "factors").metadata
    for name in ("bars", "features", "factors"):
        assert (first[name]["changed"], again[name]["changed"]) == (True, False), name
        assert again[name]["table version"] == first[name]["table version"] == made.lake.version(f"{name}/5m")
    rows = first["bars"]["rows in"]
    assert rows > 0
    assert (again["bars"]["rows same"], again["bars"]["rows new"], again["bars"]["rows revised"]) == (rows, 0, 0)


def test_a_changed_source_row_is_a_revision_and_the_old_value_stays_in_the_history(
    pipeline: Make, file: File, market: pl.DataFrame
) -> None:
    made = pipeline(*file(market))
    made.run("bars")
    before = made.lake.version("bars/5m")
    file(market.with_columns(close=pl.when(ROW).then(pl.col("low")).otherwise("close")))
    later = made.clock.now() + timedelta(days=1)
    made.clock.set(later)
    told = made.run("bars").metadata["bars"]
    assert (told["rows revised"], told["rows new"], told["rows same"]) == (1, 0, market.height - 1)
    new, old = made.table("bars"), made.table("bars", version=before)
    assert new.filter(ROW)["close"].item() == market.filter(ROW)["low"].item()
    assert old.filter(ROW)["close"].item() == market.filter(ROW)["close"].item()
    assert new.filter(ROW)["known_at"].item() == later
    assert new.filter(~ROW).equals(old.filter(~ROW))


def test_a_revision_is_known_since_it_came_and_not_since_the_last_run(
    pipeline: Make, file: File, market: pl.DataFrame
) -> None:
    made = pipeline(*file(market))
    made.run("bars")
    file(market.with_columns(close=pl.when(ROW).then(pl.col("low")).otherwise("close")))
    came = made.clock.now()
    made.run("bars")
    made.clock.set(came + timedelta(days=3))
    assert made.run("bars").metadata["bars"]["changed"] is False
    assert made.table("bars").filter(ROW)["known_at"].item() == came


def test_a_bar_that_the_source_no_longer_sends_stays(pipeline: Make, file: File, market: pl.DataFrame) -> None:
    made = pipeline(*file(market))
    made.run("bars")
    before = made.table("bars")
    stamp = pl.col("timestamp")
    inner, last = stamp == market["timestamp"][1000], stamp == market.filter(of("2021-11-24"))["timestamp"].max()
    first = stamp == market.filter(of("2021-11-24"))["timestamp"].min()
    for lost in (inner, last, first):
        file(market.filter(~lost))
        made.run("bars", keys=["2021-11-24"])
        made.run("bars")
        assert made.table("bars").equals(before)


def test_a_session_that_the_source_no_longer_sends_stays(pipeline: Make, file: File, market: pl.DataFrame) -> None:
    made = pipeline(*file(market))
    made.run("bars")
    before = made.table("bars")
    file(market.filter(~of("2021-11-24")))
    made.run("bars", keys=["2021-11-24"])
    assert made.table("bars").equals(before)


def test_a_bar_is_stored_when_it_has_ended_and_not_before(pipeline: Make, file: File, market: pl.DataFrame) -> None:
    made = pipeline(*file(market))
    stamps = pl.col("timestamp")
    for hour, minute, second, newest in (
        (15, 4, 59, (14, 55)),
        (15, 5, 0, (15, 0)),
        (20, 59, 0, (20, 50)),
        (22, 0, 0, (20, 55)),
    ):
        now = datetime(2021, 11, 24, hour, minute, second, tzinfo=UTC)
        made.clock.set(now)
        run = made.run("bars")
        ended = market.filter(stamps + timedelta(minutes=5) <= now)
        assert made.table("bars")["timestamp"].max() == datetime(2021, 11, 24, *newest, tzinfo=UTC)
        assert made.table("bars").height == ended.height
        there = market.filter(stamps.dt.date() <= now.date())  # sessions after this one are not asked for
        assert run.metadata["bars"]["rows of bars that have not ended"] == there.height - ended.height
        assert run.checks[names.BARS_ACCOUNTED].passed


def test_rejected_rows_keep_their_reason_and_every_row_is_accounted_for(
    pipeline: Make, file: File, market: pl.DataFrame
) -> None:
    spoiled = market.with_row_index().with_columns(
        open=pl.when(pl.col("index").is_in([10, 500])).then(None).otherwise("open"),
        high=pl.when(pl.col("index") == 20).then(pl.col("low") * 0.9).otherwise("high"),
        close=pl.when(pl.col("index") == 900).then(-1.0).otherwise("close"),
    )
    early = market.head(3).with_columns(pl.col("timestamp") - timedelta(hours=3))  # before the open
    sent = pl.concat([spoiled.drop("index"), market.slice(30, 1), early])
    made = pipeline(*file(sent))
    run = made.run("bars")
    told = run.metadata["bars"]
    assert told["rows in"] == sent.height
    counts = {name.removeprefix("rejected: "): count for name, count in told.items() if name.startswith("rejected: ")}
    assert counts == {"null_price": 2, "ohlc_order": 1, "non_positive": 1, "duplicate": 1, "off_grid": 3}
    assert told["rows new"] + sum(counts.values()) == sent.height
    assert run.checks[names.BARS_ACCOUNTED].passed
    rejected = made.table("rejected")
    assert dict(rejected["reason"].value_counts().iter_rows()) == counts
    bad = spoiled.filter(pl.col("index") == 20)
    assert (
        rejected.filter(reason="ohlc_order").select("symbol", "timestamp", "high").rows()
        == bad.select("symbol", "timestamp", "high").rows()
    )
    assert made.table("bars").height == market.height - 4


def test_rejected_rows_of_a_partition_are_replaced_when_the_source_repairs_them(
    pipeline: Make, file: File, market: pl.DataFrame
) -> None:
    made = pipeline(*file(market.with_columns(close=pl.when(ROW).then(None).otherwise("close"))))
    assert made.run("bars").metadata["bars"]["rejected: null_price"] == 1
    file(market)
    assert made.run("bars").metadata["bars"]["rows new"] == 1
    assert made.table("rejected").is_empty()
    assert made.table("bars").height == market.height


def test_a_run_over_one_partition_leaves_the_others_as_they_are(
    pipeline: Make, file: File, market: pl.DataFrame
) -> None:
    made = pipeline(*file(market))
    made.run("bars")
    before = made.table("bars")
    file(market.with_columns(pl.col("volume") + 1))
    made.run("bars", keys=["2021-11-24"])
    after, day = made.table("bars"), of("2021-11-24")
    assert after.filter(~day).equals(before.filter(~day))
    assert (after.filter(day)["volume"] == before.filter(day)["volume"] + 1).all()


def test_no_bar_is_made_up_for_a_gap(pipeline: Make, file: File, market: pl.DataFrame) -> None:
    made = pipeline(*file(market))
    made.run("bars")
    bars = made.table("bars").select("symbol", "timestamp", "open", "high", "low", "close", "volume")
    assert bars.equals(market.select(bars.columns).sort("timestamp", "symbol"))
    assert bars.height < 4 * (5 * 78 + 42)  # the market has gaps, and one session of 42 bars


def test_history_is_known_when_its_bar_ends(pipeline: Make, file: File, market: pl.DataFrame) -> None:
    made = pipeline(
        *file(market),
    )
    made.run("bars")
    bars = made.table("bars")
    assert (bars["known_at"] == bars["timestamp"] + timedelta(minutes=5)).all()


@pytest.mark.parametrize(("coarse", "cut"), [pytest.param("15m", "day", marks=pytest.mark.slow), ("1h", "month")])
def test_resampled_bars_are_those_of_the_finer_table_however_they_are_cut(
    pipeline: Make, coarse: str, cut: str
) -> None:
    words = [f"horizon={coarse}", "bars.from=5m", f"partition={cut}", "source=synthetic"]
    # A half day, and the last session of a month.
    market = ["source.start=2021-11-26", "source.sessions=4", "source.symbols=3", "source.gap_rate=0.2"]
    whole, pieces = pipeline(*words, *market), pipeline(*words, *market)
    whole.run("bars")
    whole.run("bars", horizon=coarse)
    assert len(pieces.partition_keys(coarse)) > 1
    for key in pieces.partition_keys():
        pieces.run("bars", keys=[key])
    for key in pieces.partition_keys(coarse):
        pieces.run("bars", keys=[key], horizon=coarse)
    fine = whole.table("bars")
    expected = resample(fine.drop("partition"), whole.plan().grid, whole.plan(coarse).grid)
    found = whole.table("bars", coarse)
    assert found.drop("partition").equals(expected.select(found.columns[:-1]).sort("timestamp", "symbol"))
    assert pieces.table("bars", coarse).equals(found)
    assert {*found["partition"]} == {*whole.partition_keys(coarse)}


def test_split_factors_go_on_across_ranges_that_are_materialized_apart(pipeline: Make) -> None:
    words = ["source.sessions=6", "source.splits=3", "source.seed=11"]
    whole, apart = pipeline(*words), pipeline(*words)
    whole.run("bars")
    expected, keys = whole.table("bars"), apart.partition_keys()
    for piece in (keys[:3], keys[3:4], keys[4:]):
        apart.run("bars", keys=piece)
    assert apart.table("bars").equals(expected)
    split = expected.filter(symbol="S000")["price_factor"]
    assert split[0] == 1.0
    assert split[-1] in (2.0, 3.0, 4.0)
    assert expected.filter(symbol="S003")["price_factor"].unique().to_list() == [1.0]


def test_split_factors_do_not_depend_on_how_many_sessions_are_read_at_a_time(
    pipeline: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["source.sessions=6", "source.splits=3", "source.seed=11"]
    whole, chunked = pipeline(*words), pipeline(*words)
    whole.run("bars")
    monkeypatch.setattr(step, "SLOTS_PER_CHUNK", 100)
    chunked.run("bars")
    assert chunked.table("bars").equals(whole.table("bars"))


def test_split_factors_do_not_depend_on_which_range_comes_first(pipeline: Make) -> None:
    words = ["source.sessions=6", "source.splits=3", "source.seed=11"]
    whole, backwards = pipeline(*words), pipeline(*words)
    whole.run("bars")
    keys = backwards.partition_keys()
    backwards.run("bars", keys=keys[4:])
    backwards.run("bars", keys=keys[:4])
    assert backwards.table("bars").equals(whole.table("bars"))


def test_returns_across_a_split_are_those_of_a_holder(pipeline: Make) -> None:
    made = pipeline("source.sessions=6", "source.splits=1", "source.seed=11", "source.gap_rate=0")
    made.run("bars")
    bars = made.table("bars").filter(symbol="S000").sort("timestamp")
    factor = pl.col("price_factor")
    raw = bars.select((pl.col("open") / pl.col("close").shift(1) - 1).abs().max())
    adjusted = bars.select((pl.col("open") * factor / (pl.col("close") * factor).shift(1) - 1).abs().max())
    assert raw.item() > 0.4  # a split looks like a crash
    assert adjusted.item() < 0.1


def test_a_source_of_other_rows_is_refused_by_the_table_of_the_first(pipeline: Make, tmp_path: Path) -> None:
    first, second = pipeline("source.seed=1"), pipeline("source.seed=2")
    first.run("bars")
    second.lake.root = first.lake.root
    second._resources["lake"] = first.lake
    with pytest.raises(Exception, match=r"another layout: source was .*seed=1.*seed=2"):
        second.run("bars")
    assert first.table("bars").height > 0


def test_stamps_at_bar_ends_in_exchange_time_give_the_same_bars(
    pipeline: Make, file: File, market: pl.DataFrame
) -> None:
    plain = pipeline(*file(market))
    plain.run("bars")
    written = market.with_columns(
        (pl.col("timestamp") + timedelta(minutes=5)).dt.convert_time_zone("America/New_York").dt.replace_time_zone(None)
    )
    local = pipeline(*file(written), "source.timezone=America/New_York", "source.stamp=end")
    local.run("bars")
    assert local.table("bars").equals(plain.table("bars"))


def test_only_the_symbols_of_the_universe_are_read(pipeline: Make, file: File, market: pl.DataFrame) -> None:
    made = pipeline(*file(market), "universe.symbols=[S001,S003]")
    made.run("bars")
    assert made.table("bars")["symbol"].unique().sort().to_list() == ["S001", "S003"]


def test_the_newest_partition_ends_with_the_source(pipeline: Make, file: File, market: pl.DataFrame) -> None:
    made = pipeline(*file(market))
    assert made.partition_keys() == ["2021-11-22", "2021-11-23", "2021-11-24", "2021-11-26", "2021-11-29", "2021-11-30"]
    assert made.clock.now() > datetime.fromisoformat("2021-12-01T00:00:00Z")


def test_a_bar_on_another_scale_costs_that_bar_and_the_rest_is_as_if_it_had_never_come(
    pipeline: Make, file: File, market: pl.DataFrame
) -> None:
    prices = pl.col("open", "high", "low", "close")
    told, made = {}, {}
    for what, bars in {
        "broken": market.with_columns(pl.when(ROW).then(prices * 1e6).otherwise(prices)),
        "without": market.filter(~ROW),
    }.items():
        made[what] = pipeline(*file(bars))
        told[what] = made[what].run("bars", "features", "factors").metadata["bars"]
    assert told["broken"]["rejected: jump"] == 1
    assert "S001: 1 bar(s) kept apart as `jump`, the first at 2021-11-23 15:00" in told["broken"]["notes"]
    assert told["without"]["notes"] == "none"
    row = made["broken"].table("rejected").row(0, named=True)
    assert (row["symbol"], row["reason"], row["close"]) == ("S001", "jump", market.filter(ROW)["close"].item() * 1e6)
    for step_name in ("bars", "features", "factors"):
        assert made["broken"].table(step_name).equals(made["without"].table(step_name)), step_name
    broken, without = (load(each.plan(), each.lake) for each in made.values())
    assert broken.dropped == without.dropped
    assert np.array_equal(broken.X, without.X, equal_nan=True)
    assert np.array_equal(broken.y, without.y)


@pytest.mark.parametrize("chunk", [8192, 100])
def test_the_bars_told_jumps_do_not_depend_on_how_a_run_is_cut(
    pipeline: Make, file: File, market: pl.DataFrame, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    # S001 breaks at the end of one session and the start of the next; S002 changes its scale for good.
    times, prices = market["timestamp"].unique().sort(), pl.col("open", "high", "low", "close")
    opens = market.filter(of("2021-11-24"))["timestamp"].min()
    at = times.index_of(opens)
    assert at is not None
    near = (pl.col("symbol") == "S001") & pl.col("timestamp").is_between(times[at - 2], times[at + 1])
    after = (pl.col("symbol") == "S002") & (pl.col("timestamp") >= times[at - 2])
    sent = market.with_columns(pl.when(near).then(prices * 1e6).when(after).then(prices / 50).otherwise(prices))
    whole, apart = pipeline(*file(sent)), pipeline(*file(sent))
    whole.run("bars")
    assert whole.table("rejected")["reason"].unique().to_list() == ["jump"]
    assert whole.table("rejected")["symbol"].value_counts().sort("symbol").rows() == [("S001", 4), ("S002", 5)]
    monkeypatch.setattr(step, "SLOTS_PER_CHUNK", chunk)
    for key in apart.partition_keys()[::-1]:
        apart.run("bars", keys=[key])
    for name in ("bars", "rejected"):
        assert apart.table(name).equals(whole.table(name)), name
    apart.run("bars")
    assert apart.table("rejected").equals(whole.table("rejected"))


def test_a_stored_bar_goes_when_a_lower_limit_tells_it_a_jump(pipeline: Make, file: File, market: pl.DataFrame) -> None:
    prices = pl.col("open", "high", "low", "close")
    made = pipeline(*file(market.with_columns(pl.when(ROW).then(prices * 12).otherwise(prices))))
    assert "rejected: jump" not in made.run("bars", values=["validation.max_jump=null"]).metadata["bars"]
    assert made.run("bars").metadata["bars"]["changed"] is False  # 12 is within the default
    assert made.run("bars", values=["validation.max_jump=8"]).metadata["bars"]["rejected: jump"] == 1
    assert made.table("bars").filter(ROW).is_empty()


def test_a_file_that_holds_only_the_newest_session_is_judged_by_the_stored_bars(
    pipeline: Make, file: File, market: pl.DataFrame
) -> None:
    prices, stamp = pl.col("open", "high", "low", "close"), pl.col("timestamp")
    made = pipeline(*file(market))
    made.run("bars", keys=["2021-11-22", "2021-11-23"])
    newest = market.filter(of("2021-11-24"))
    first = (pl.col("symbol") == "S001") & (stamp == newest.filter(symbol="S001")["timestamp"].min())
    file(newest.with_columns(pl.when(first).then(prices * 1e6).otherwise(prices)))
    assert made.run("bars", keys=["2021-11-24"]).metadata["bars"]["rejected: jump"] == 1
    assert made.table("rejected")["timestamp"].to_list() == newest.filter(first)["timestamp"].to_list()
