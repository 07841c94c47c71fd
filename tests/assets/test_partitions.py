"""Partitions are real sessions, and an overlap covers every slot that a look-back can touch."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import dagster as dg
import exchange_calendars as xcals
import polars as pl
import pytest

from assets import partitions
from assets.plan import Plan
from assets.window import window
from conf.compose import compose
from resources.lake import Lake
from resources.sources import SourceError

TODAY = date(2026, 1, 5)


def plan(horizon: str, *words: str) -> Plan:
    return Plan(compose([f"horizon={horizon}", *words])[horizon])


def sessions(calendar: str, first: str, last: str) -> list[str]:
    made = xcals.get_calendar(calendar, start="2019-01-02", end="2025-12-31")
    return [f"{day:%Y-%m-%d}" for day in made.sessions_in_range(first, last)]


@pytest.mark.parametrize("calendar", ["XNYS", "XASX", "XTKS"])
def test_a_partition_by_day_has_a_key_for_each_session_and_no_other(calendar: str) -> None:
    parts = partitions.definition(plan("5m", f"calendar.name={calendar}"), date(2020, 12, 21), date(2023, 1, 10), TODAY)
    assert parts.get_partition_keys() == sessions(calendar, "2020-12-21", "2023-01-10")


def test_a_market_that_never_closes_has_a_key_for_each_day() -> None:
    parts = partitions.definition(plan("5m", "calendar=24x7"), date(2023, 12, 29), date(2024, 3, 2), TODAY)
    days = [date(2023, 12, 29) + timedelta(days=n) for n in range(65)]
    assert parts.get_partition_keys() == [str(day) for day in days]


def test_partitions_by_month_and_year_begin_with_the_first_and_hold_the_last_session() -> None:
    by_month = partitions.definition(plan("1h"), date(2021, 11, 22), date(2022, 2, 1), TODAY)
    assert by_month.get_partition_keys() == ["2021-11-01", "2021-12-01", "2022-01-01", "2022-02-01"]
    by_year = partitions.definition(plan("1d"), date(2019, 12, 31), date(2021, 1, 4), TODAY)
    assert by_year.get_partition_keys() == ["2019-01-01", "2020-01-01", "2021-01-01"]


def test_a_source_that_goes_on_has_a_partition_for_the_unfinished_session() -> None:
    parts = partitions.definition(plan("5m"), date(2025, 12, 22), None, TODAY)
    keys = parts.get_partition_keys(current_time=datetime(2025, 12, 29, 15, tzinfo=UTC))
    assert keys == ["2025-12-22", "2025-12-23", "2025-12-24", "2025-12-26", "2025-12-29"]
    on_a_holiday = parts.get_partition_keys(current_time=datetime(2025, 12, 25, 15, tzinfo=UTC))
    assert on_a_holiday[:3] == ["2025-12-22", "2025-12-23", "2025-12-24"]
    assert "2025-12-25" not in on_a_holiday


def test_partitions_follow_the_clock_for_years_without_a_reload() -> None:
    parts = partitions.definition(plan("5m"), date(2025, 12, 22), None, date(2029, 1, 2))
    keys = parts.get_partition_keys(current_time=datetime(2031, 1, 3, 15, tzinfo=UTC))
    assert keys[-4:] == ["2030-12-30", "2030-12-31", "2031-01-02", "2031-01-03"]
    assert not {"2030-12-25", "2030-07-04", "2028-11-23"} & {*keys}


def written(path: Path, *days: datetime) -> list[str]:
    prices = {name: pl.lit(1.0) for name in ("open", "high", "low", "close", "volume")}
    pl.DataFrame({"symbol": "A", "timestamp": days}).with_columns(**prices).write_parquet(path)
    return ["source=parquet", f"source.path='{path}'", "universe=all"]


def test_files_go_on_unless_their_end_is_declared(tmp_path: Path) -> None:
    words = written(tmp_path / "bars.parquet", *(datetime(2021, 11, day, 15, tzinfo=UTC) for day in (1, 2, 3)))
    now = datetime(2021, 11, 10, 12, tzinfo=UTC)
    for more, end in (([], None), (["source.end=2021-11-02"], date(2021, 11, 2))):
        horizons = compose(["horizon=5m", *words, *more])
        made = Plan(horizons["5m"])
        assert partitions.span(made, horizons, now) == (date(2021, 11, 1), end)
        assert partitions.newest(made, horizons, now) == (end or date(2021, 11, 3))
    before_noon = datetime(2021, 11, 2, 14, 35, tzinfo=UTC)
    assert partitions.newest(made, horizons, before_noon) == date(2021, 11, 2)
    assert partitions.newest(made, horizons, before_noon - timedelta(hours=2)) == date(2021, 11, 1)


def test_a_source_that_cannot_be_read_begins_where_its_table_begins(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    words = [*written(tmp_path / "bars.parquet", datetime(2021, 11, 3, 15, tzinfo=UTC)), f"store.root='{tmp_path}'"]
    horizons = compose(["horizon=5m", *words])
    made, now = Plan(horizons["5m"]), datetime(2021, 11, 10, tzinfo=UTC)
    (tmp_path / "bars.parquet").unlink()
    with pytest.raises(SourceError, match=r"bars\.parquet"):
        partitions.span(made, horizons, now)
    rows = pl.DataFrame({"partition": ["2021-11-03"], "x": [1]})
    Lake(tmp_path / "lake").write("bars/5m", [rows], ["2021-11-03"], {})
    assert partitions.span(made, horizons, now) == (date(2021, 11, 3), None)
    assert "bars.parquet" in caplog.text


def halved(file: Path) -> None:
    """As an upload leaves it that was cut off."""
    held = file.read_bytes()
    file.write_bytes(held[: len(held) // 2])


def test_a_half_written_file_takes_no_graph_down_where_the_first_session_is_known(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    words = [*written(tmp_path / "bars.parquet", datetime(2021, 11, 3, 15, tzinfo=UTC)), f"store.root='{tmp_path}'"]
    now = datetime(2021, 11, 10, tzinfo=UTC)
    halved(tmp_path / "bars.parquet")
    declared = compose(["horizon=5m", *words, "source.start=2021-11-01"])
    assert partitions.span(Plan(declared["5m"]), declared, now) == (date(2021, 11, 1), None)
    assert "bars.parquet cannot be read" in caplog.text
    unknown = compose(["horizon=5m", *words])
    with pytest.raises(SourceError, match=r"5m: .*bars\.parquet cannot be read: .*source\.start"):
        partitions.span(Plan(unknown["5m"]), unknown, now)
    Lake(tmp_path / "lake").write("bars/5m", [pl.DataFrame({"partition": ["2021-11-03"]})], ["2021-11-03"], {})
    assert partitions.span(Plan(unknown["5m"]), unknown, now) == (date(2021, 11, 3), None)
    with pytest.raises(SourceError, match=r"bars\.parquet cannot be read"):
        partitions.newest(Plan(unknown["5m"]), unknown, now)


def test_keys_cover_their_days() -> None:
    assert partitions.window(plan("5m"), ["2021-11-26"]) == (date(2021, 11, 26), date(2021, 11, 26))
    assert partitions.window(plan("1h"), ["2021-12-01", "2021-11-01"]) == (date(2021, 11, 1), date(2021, 12, 31))
    assert partitions.window(plan("1d"), ["2020-01-01"]) == (date(2020, 1, 1), date(2020, 12, 31))


def test_the_keys_of_rows_are_the_partitions_of_dagster() -> None:
    for horizon in ("5m", "1h", "1d"):
        made = plan(horizon)
        first, last = date(2020, 12, 21), date(2023, 1, 10)
        parts = partitions.definition(made, first, last, TODAY)
        slots = made.grid.slots(first, last)
        assert sorted({*made.grid.partition_keys(slots, made.horizon.partition).tolist()}) == parts.get_partition_keys()


def mapped(made: Plan, parts: dg.TimeWindowPartitionsDefinition, lookback: int) -> Iterator[tuple[str, set[str]]]:
    """Each partition, and the upstream partitions that Dagster says it needs."""
    mapping = partitions.mapping(made, lookback)
    for key in parts.get_partition_keys():
        result = mapping.get_upstream_mapped_partitions_result_for_partitions(
            parts.subset_with_partition_keys([key]), parts, parts
        )
        yield key, {*result.partitions_subset.get_partition_keys()}


@pytest.mark.parametrize(
    ("horizon", "words", "lookbacks"),
    [
        ("5m", [], [78, 79, 200]),  # whole sessions hold 78 bars, half days 42
        ("5m", ["calendar.name=XSHG"], [49, 500]),  # weeks of holidays
        ("5m", ["calendar=24x7"], [289]),
        ("5m", ["calendar=us_index_cfd"], [277]),
        ("1h", [], [1, 7, 200]),
        ("1h", ["calendar.name=XSHG"], [1, 60, 200]),
        ("1d", [], [1, 60, 260, 600]),
    ],
)
def test_every_slot_that_a_partition_reads_lies_in_a_partition_mapped_to_it(
    horizon: str, words: list[str], lookbacks: list[int]
) -> None:
    """Brute force over two years (five for daily bars)."""
    made = plan(horizon, *words)
    first, last = date(2018 if horizon == "1d" else 2021, 1, 4), date(2022, 12, 30)
    parts = partitions.definition(made, first, last, TODAY)
    known = {*parts.get_partition_keys()}
    for lookback in lookbacks:
        for key, upstream in mapped(made, parts, lookback):
            begin, end = partitions.window(made, [key])
            if not len(made.grid.slots(begin, end)):
                continue
            slots = window(made, begin, end, lookback).slots
            read = {*made.grid.partition_keys(slots, made.horizon.partition).tolist()} & known
            assert read <= upstream, (lookback, key)


def test_a_partition_without_look_back_needs_its_own_upstream_partition_only() -> None:
    made = plan("5m")
    parts = partitions.definition(made, date(2021, 11, 1), date(2021, 12, 31), TODAY)
    assert all(upstream == {key} for key, upstream in mapped(made, parts, 0))


def test_the_overlap_is_no_wider_than_the_worst_week_needs() -> None:
    """200 five-minute bars reach three sessions back, or five across half days."""
    made = plan("5m")
    parts = partitions.definition(made, date(2021, 1, 4), date(2021, 12, 31), TODAY)
    assert max(len(upstream) for _, upstream in mapped(made, parts, 200)) <= 5
