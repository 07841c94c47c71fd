"""A write replaces whole partitions in one commit, or nothing at all."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from deltalake import DeltaTable
from hypothesis import given, settings
from hypothesis import strategies as st

from resources import staging
from resources.lake import Lake, LakeError, Written

LAYOUT = {"source": "synthetic", "interval": "5m", "calendar": "XNYS", "partition": "day"}
DAYS = ["2024-01-02", "2024-01-03", "2024-01-04"]


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path / "lake")


def rows(day: str, values: list[float | None], **more: float) -> pl.DataFrame:
    first = datetime.fromisoformat(day).replace(tzinfo=UTC) + timedelta(hours=15)
    schema = {"partition": pl.String, "timestamp": pl.Datetime("us", "UTC"), "x": pl.Float32}
    data = [(day, first + timedelta(minutes=minute), value) for minute, value in enumerate(values)]
    frame = pl.DataFrame(data, schema=schema, orient="row")
    return frame.with_columns(pl.lit(value).alias(name) for name, value in more.items())


def content(lake: Lake, table: str = "bars/5m", **more: int) -> pl.DataFrame:
    return lake.scan(table, **more).sort("timestamp").collect()


def files(lake: Lake) -> int:
    return len(list(Path(lake.root).rglob("*.parquet")))


def test_a_write_replaces_its_partitions_and_leaves_the_others(lake: Lake) -> None:
    lake.write("bars/5m", [rows(day, [1.0, 2.0]) for day in DAYS], DAYS, LAYOUT)
    written = lake.write("bars/5m", [rows(DAYS[1], [9.0])], DAYS[1:], LAYOUT)
    assert written == Written(version=1, rows=1, changed=True)
    assert content(lake)["x"].to_list() == [1.0, 2.0, 9.0]  # the third day had no rows and ends empty
    assert lake.partitions("bars/5m") == DAYS[:2]


def test_a_backfill_of_any_length_is_one_commit(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staging, "BUFFER_ROWS", 3)
    written = lake.write("bars/5m", (rows(day, [1.0, 2.0]) for day in DAYS), DAYS, LAYOUT)
    assert (written.version, written.rows) == (0, 6)
    lake.write("bars/5m", (rows(day, [1.0, 3.0]) for day in DAYS), DAYS, LAYOUT)
    assert lake.version("bars/5m") == 1
    assert len(content(lake)) == 6


def test_the_same_content_makes_no_commit_and_leaves_no_file(lake: Lake) -> None:
    batch = pl.concat([rows(day, [1.0, None, float("nan")]) for day in DAYS])
    lake.write("bars/5m", [batch], DAYS, LAYOUT)
    before = files(lake)
    shuffled = batch.sample(fraction=1, shuffle=True, seed=1).select(reversed(batch.columns))
    parts = [shuffled.head(4), shuffled.tail(-4)]
    assert lake.write("bars/5m", parts, DAYS, LAYOUT) == Written(0, 9, False)
    assert lake.write("bars/5m", [], ["2024-01-05"], LAYOUT) == Written(0, 0, False)
    assert files(lake) == before


VALUES = st.lists(st.sampled_from([None, 0.0, 1.0, 2.0]), max_size=4)


@given(first=VALUES, second=VALUES)
@settings(max_examples=25)
def test_a_write_commits_exactly_when_the_content_differs(
    tmp_path_factory: pytest.TempPathFactory, first: list, second: list
) -> None:
    lake = Lake(tmp_path_factory.mktemp("lake"))
    lake.write("t", [rows(DAYS[0], first), rows(DAYS[1], [5.0])], DAYS, LAYOUT)
    written = lake.write("t", [rows(DAYS[0], second)], DAYS[:1], LAYOUT)
    assert written.changed == (first != second)
    assert content(lake, "t")["x"].to_list() == [*second, 5.0]


def test_rows_that_only_moved_to_another_partition_or_repeat_are_a_change(lake: Lake) -> None:
    one = rows(DAYS[0], [1.0, 2.0])
    lake.write("t", [one], DAYS[:2], LAYOUT)
    assert lake.write("t", [one.with_columns(partition=pl.lit(DAYS[1]))], DAYS[:2], LAYOUT).changed
    assert lake.write("t", [one, one], DAYS[:2], LAYOUT).changed


def test_an_older_version_stays_readable(lake: Lake) -> None:
    lake.write("bars/5m", [rows(DAYS[0], [1.0])], DAYS, LAYOUT)
    lake.write("bars/5m", [rows(DAYS[0], [2.0])], DAYS, LAYOUT)
    assert content(lake, version=0)["x"].to_list() == [1.0]
    assert content(lake)["x"].to_list() == [2.0]


def test_a_scan_reads_a_half_open_span_and_only_its_files(lake: Lake) -> None:
    lake.write("bars/5m", [rows(day, [1.0, 2.0, 3.0]) for day in DAYS], DAYS, LAYOUT)
    start = datetime(2024, 1, 3, 15, tzinfo=UTC)
    # A file outside the span may be broken: it is not opened.
    for path in Path(lake.root).rglob(f"partition={DAYS[0]}/*.parquet"):
        path.write_bytes(b"no parquet")
    span = lake.scan("bars/5m", start, start + timedelta(minutes=2))
    assert span.sort("timestamp").collect()["x"].to_list() == [1.0, 2.0]


def test_another_layout_is_refused_with_what_differs_and_what_to_do(lake: Lake) -> None:
    lake.write("bars/5m", [rows(DAYS[0], [1.0])], DAYS, LAYOUT)
    said = "interval was '5m' and is '1h'.*another store.root.*tenor clean"
    with pytest.raises(LakeError, match=said):
        lake.write("bars/5m", [rows(DAYS[0], [2.0])], DAYS, {**LAYOUT, "interval": "1h"})
    assert lake.layout("bars/5m") == LAYOUT


def test_new_columns_need_the_whole_table_to_be_written(lake: Lake) -> None:
    lake.write("features/5m", [rows(day, [1.0]) for day in DAYS], DAYS, LAYOUT)
    with pytest.raises(LakeError, match=r"y \(Float64\).*write all its 3 partitions"):
        lake.write("features/5m", [rows(DAYS[0], [1.0], y=2.0)], DAYS[:1], LAYOUT)
    before = files(lake)
    assert lake.write("features/5m", [rows(day, [1.0], y=2.0) for day in DAYS], DAYS, LAYOUT).changed
    assert content(lake, "features/5m")["y"].to_list() == [2.0] * 3
    assert content(lake, "features/5m", version=0).columns == ["partition", "timestamp", "x"]
    assert files(lake) == before + 3


def test_a_writer_that_was_overtaken_says_so_and_changes_nothing(lake: Lake) -> None:
    lake.write("bars/5m", [rows(DAYS[0], [1.0])], DAYS, LAYOUT)

    def slow():
        lake.write("bars/5m", [rows(DAYS[1], [2.0])], DAYS[1:2], LAYOUT)
        yield rows(DAYS[1], [3.0])

    with pytest.raises(LakeError, match="another writer committed to table bars/5m"):
        lake.write("bars/5m", slow(), DAYS[1:2], LAYOUT)
    assert content(lake)["x"].to_list() == [1.0, 2.0]
    assert files(lake) == 2


def test_two_first_writers_do_not_mix(lake: Lake) -> None:
    def slow():
        lake.write("bars/5m", [rows(DAYS[0], [1.0])], DAYS, LAYOUT)
        yield rows(DAYS[0], [2.0])

    with pytest.raises(LakeError, match="another writer"):
        lake.write("bars/5m", slow(), DAYS, LAYOUT)
    assert content(lake)["x"].to_list() == [1.0]


def test_a_write_that_fails_leaves_the_table_and_the_folder_as_they_were(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staging, "BUFFER_ROWS", 1)
    lake.write("bars/5m", [rows(DAYS[0], [1.0])], DAYS, LAYOUT)

    def broken():
        yield rows(DAYS[1], [2.0])
        raise RuntimeError("the source went away")

    with pytest.raises(RuntimeError, match="went away"):
        lake.write("bars/5m", broken(), DAYS, LAYOUT)
    assert content(lake)["x"].to_list() == [1.0]
    assert files(lake) == 1


@pytest.mark.parametrize(
    ("batches", "said"),
    [
        ([rows("2024-02-01", [1.0])], "rows of {'2024-02-01'}"),
        ([rows(DAYS[0], [1.0]).drop("partition")], "no column 'partition'"),
        ([rows(DAYS[0], [1.0]), rows(DAYS[1], [1.0], y=1.0)], "differ in columns.*y"),
    ],
)
def test_batches_that_do_not_belong_are_refused(lake: Lake, batches: list[pl.DataFrame], said: str) -> None:
    with pytest.raises(LakeError, match=said):
        lake.write("bars/5m", batches, DAYS, LAYOUT)
    assert not lake.exists("bars/5m")


def test_a_table_that_does_not_exist_says_to_materialize_it(lake: Lake) -> None:
    assert lake.version("bars/5m") is None
    assert lake.partitions("bars/5m") == []
    assert lake.write("bars/5m", [], DAYS, LAYOUT) == Written(None, 0, False)
    with pytest.raises(LakeError, match=r"bars/5m does not exist.*materialize it first"):
        lake.scan("bars/5m")


def test_the_table_is_plain_delta_for_every_other_reader(lake: Lake) -> None:
    lake.write("bars/5m", [rows(day, [1.0]) for day in DAYS], DAYS, LAYOUT)
    table = DeltaTable(f"{lake.root}/bars/5m")
    assert table.metadata().partition_columns == ["partition"]
    assert table.metadata().name == "bars/5m"
    assert len(table.to_pyarrow_table()) == 3


def test_a_partition_has_the_same_version_for_the_same_rows_and_another_for_others(lake: Lake) -> None:
    first = lake.write("bars/5m", [rows(day, [1.0, 2.0]) for day in DAYS[:2]], DAYS, LAYOUT).versions
    assert list(first) == DAYS
    assert len({*first.values()}) == 3  # the rows of two days differ by their times, and the third day has none
    other_order = pl.concat([rows(day, [1.0, 2.0]) for day in DAYS[:2]]).reverse()
    assert lake.write("bars/5m", [other_order], DAYS, LAYOUT).versions == first
    changed = lake.write("bars/5m", [rows(DAYS[0], [1.0, 2.5])], DAYS[:2], LAYOUT).versions
    assert changed[DAYS[0]] != first[DAYS[0]]
    assert changed[DAYS[1]] == first[DAYS[2]]


def test_another_column_is_another_version_though_its_values_are_the_same(lake: Lake) -> None:
    one = lake.write("one", [rows(DAYS[0], [1.0])], DAYS[:1], LAYOUT).versions
    other = lake.write("other", [rows(DAYS[0], [1.0]).rename({"x": "y"})], DAYS[:1], LAYOUT).versions
    assert one != other
