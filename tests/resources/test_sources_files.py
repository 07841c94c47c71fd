"""Files of every habit become the same bars, and what cannot be read says where and why."""

from datetime import UTC, date, datetime
from pathlib import Path
from types import SimpleNamespace

import polars as pl
import pytest

from quant.grid import CalendarSpec, Grid
from quant.validate import validate
from resources.sources import SourceError, open_source
from resources.sources.files import FileSource

XNYS = CalendarSpec("XNYS")
FIVE, HOUR, DAY = Grid(XNYS, "5m"), Grid(XNYS, "1h"), Grid(XNYS, "1d")
ROUND = Grid(CalendarSpec("24/7"), "1h")
PRICES = {"open": 1.0, "high": 2.0, "low": 0.5, "close": 1.5, "volume": 10.0}


def table(stamps: list, **more: object) -> pl.DataFrame:
    frame = pl.DataFrame({"symbol": ["A"] * len(stamps), "timestamp": stamps})
    return frame.with_columns(pl.lit(value).alias(name) for name, value in {**PRICES, **more}.items())


def read(source: FileSource, symbols: list[str] | None = None) -> pl.DataFrame:
    wide = datetime(2000, 1, 1, tzinfo=UTC), datetime(2040, 1, 1, tzinfo=UTC)
    return pl.concat(source.bars(*wide, symbols))


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[misc,arg-type]


def test_parquet_and_csv_of_the_same_bars_read_the_same(tmp_path: Path) -> None:
    frame = table([utc(2024, 1, 2, 14, 30), utc(2024, 1, 2, 14, 35)], vwap=1.2)
    frame.write_parquet(tmp_path / "bars.parquet")
    frame.write_csv(tmp_path / "bars.csv")
    found = [
        read(FileSource(FIVE, kind=kind, path=str(tmp_path / f"bars.{kind}"), extras=["vwap"]))
        for kind in ("parquet", "csv")
    ]
    assert found[0].drop("source").equals(found[1].drop("source"))
    assert found[0].drop("source").equals(frame.select(*found[0].drop("source").columns))
    assert found[0]["source"].unique().to_list() == ["bars.parquet"]


def test_columns_are_mapped_and_an_untrusted_volume_is_null(tmp_path: Path) -> None:
    frame = table([utc(2024, 1, 2, 14, 30)]).rename({"timestamp": "time", "close": "last", "symbol": "ticker"})
    frame.write_parquet(tmp_path / "bars.parquet")
    columns = {"timestamp": "time", "close": "last", "symbol": "ticker"}
    found = read(FileSource(FIVE, kind="parquet", path=str(tmp_path / "*.parquet"), columns=columns, volume=None))
    assert found.row(0, named=True)["close"] == 1.5
    assert found["volume"].to_list() == [None]


def test_one_symbol_per_file_takes_its_name_from_the_file(tmp_path: Path) -> None:
    for name in ("BRK.B", "AAPL"):
        table([utc(2024, 1, 2, 14, 30)]).drop("symbol").write_csv(tmp_path / f"{name}.csv")
    source = FileSource(FIVE, kind="csv", path=str(tmp_path / "*.csv"), columns={"symbol": "{file}"})
    assert source.symbols() == ["AAPL", "BRK.B"]
    assert read(source, ["BRK.B"])["symbol"].to_list() == ["BRK.B"]


@pytest.mark.parametrize("text", ["2024-07-02 09:30:00", "2024-07-02T13:30:00Z", "2024-07-02T09:30:00-04:00"])
def test_naive_stamps_are_local_and_stamps_with_a_zone_keep_it(tmp_path: Path, text: str) -> None:
    table([text]).write_csv(tmp_path / "bars.csv")
    source = FileSource(FIVE, kind="csv", path=str(tmp_path / "bars.csv"), timezone="America/New_York")
    assert read(source)["timestamp"].to_list() == [utc(2024, 7, 2, 13, 30)]


def test_hours_that_the_clocks_skip_or_repeat_are_rejected_and_counted(tmp_path: Path) -> None:
    stamps = [datetime(2024, 3, 10, hour, 0) for hour in (1, 2, 3)] + [datetime(2024, 11, 3, h) for h in (0, 1, 1, 2)]
    table(stamps).write_parquet(tmp_path / "bars.parquet")
    source = FileSource(ROUND, kind="parquet", path=str(tmp_path / "*.parquet"), timezone="America/New_York")
    checked = validate(read(source), ROUND)
    assert checked.counts == {"ambiguous_time": 2, "nonexistent_time": 1}
    assert checked.good["timestamp"].dt.hour().to_list() == [6, 7, 4, 7]


def test_end_stamps_become_starts_and_the_truncated_last_bin_too(tmp_path: Path) -> None:
    # The half day of 2024-07-03 closes at 17:00 UTC, thirty minutes into its last hour.
    ends = [utc(2024, 7, 3, 14, 30), utc(2024, 7, 3, 16, 30), utc(2024, 7, 3, 17), utc(2024, 7, 3, 15, 10)]
    table(ends).write_parquet(tmp_path / "bars.parquet")
    found = read(FileSource(HOUR, kind="parquet", path=str(tmp_path / "*.parquet"), stamp="end"))
    starts = [utc(2024, 7, 3, 13, 30), utc(2024, 7, 3, 15, 30), utc(2024, 7, 3, 16, 30)]
    assert found["timestamp"].to_list()[:3] == starts
    checked = validate(found, HOUR)
    assert checked.counts == {"off_grid": 1}  # an end that no bar has is not moved onto the grid
    assert checked.good["known_at"].to_list() == sorted(ends[:3])


@pytest.mark.parametrize(
    ("stamps", "stamp"),
    [
        ([date(2024, 7, 3)], "start"),
        ([date(2024, 7, 3)], "end"),
        ([utc(2024, 7, 3)], "start"),
        ([datetime(2024, 7, 3, 9, 30)], "start"),
        ([datetime(2024, 7, 3, 16, 0)], "end"),
        ([datetime(2024, 7, 4, 0, 0)], "end"),
        (["2024-07-03"], "start"),
    ],
)
def test_daily_bars_are_stamped_with_their_date(tmp_path: Path, stamps: list, stamp: str) -> None:
    table(stamps).write_parquet(tmp_path / "bars.parquet")
    source = FileSource(DAY, kind="parquet", path=str(tmp_path / "*.parquet"), timezone="America/New_York", stamp=stamp)
    assert read(source)["timestamp"].to_list() == [utc(2024, 7, 3)]
    assert source.span() == (date(2024, 7, 3), date(2024, 7, 3))


def test_windows_that_meet_give_every_row_once(tmp_path: Path) -> None:
    slots = FIVE.slots(date(2024, 7, 1), date(2024, 7, 8)).tolist()
    table([slot.replace(tzinfo=UTC) for slot in slots]).write_parquet(tmp_path / "bars.parquet")
    source = FileSource(FIVE, kind="parquet", path=str(tmp_path / "*.parquet"))
    days = FIVE.dates(date(2024, 7, 1), date(2024, 7, 8)).tolist()
    parts = [frame for day in days for frame in source.bars(*FIVE.window(day, day), None)]
    assert pl.concat(parts)["timestamp"].to_list() == [slot.replace(tzinfo=UTC) for slot in slots]
    assert source.span() == (date(2024, 7, 1), date(2024, 7, 8))
    assert source.end is None  # files may come every day


def test_only_the_configured_sessions_are_read(tmp_path: Path) -> None:
    table([utc(2024, 7, day) for day in (1, 2, 3, 5)]).write_parquet(tmp_path / "bars.parquet")
    config = SimpleNamespace(
        kind="parquet", path=str(tmp_path / "bars.parquet"), columns={}, volume="volume", extras=[], timezone="UTC",
        stamp="start", actions=None, start=date(2024, 7, 2), end=date(2024, 7, 3),
    )  # fmt: skip
    source = open_source(config, DAY, utc(2024, 7, 9))
    assert isinstance(source, FileSource)
    assert read(source)["timestamp"].dt.day().to_list() == [2, 3]
    assert source.span() == (date(2024, 7, 2), date(2024, 7, 3))
    assert source.end == date(2024, 7, 3)


def test_actions_come_from_their_own_file(tmp_path: Path) -> None:
    table([utc(2024, 7, 1)]).write_parquet(tmp_path / "bars.parquet")
    path = tmp_path / "actions.csv"
    path.write_text("symbol,date,split,dividend\nA,2024-07-02,7,0.5\n")
    bars = str(tmp_path / "bars.parquet")
    assert FileSource(DAY, kind="parquet", path=bars, actions=str(path)).actions().rows() == [
        ("A", date(2024, 7, 2), 7.0, 0.5)
    ]
    assert FileSource(DAY, kind="parquet", path=bars).actions().is_empty()
    path.write_text("symbol,date,ratio\nA,2024-07-02,7\n")
    with pytest.raises(SourceError, match="lacks split, dividend; it has symbol, date, ratio"):
        FileSource(DAY, kind="parquet", path=bars, actions=str(path)).actions()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"path": "bras.parquet"}, r"no file matches .*bras.parquet.*nearest is bars.parquet"),
        ({"columns": {"close": "clsoe"}}, r"no column 'clsoe' for close; the nearest is close; it has symbol, time"),
        ({"columns": {"symbol": "ticker"}}, r"source.columns.symbol=<column>, or '\{file\}'"),
        ({"volume": "vol"}, r"no column 'vol' for volume.*source.volume=<column>, or null"),
        ({"extras": ["symbol"]}, r"column 'symbol' holds String, not numbers"),
        ({"kind": "csv"}, r"cannot be read as csv|has no column"),
    ],
)
def test_a_source_that_cannot_be_read_says_what_and_what_to_do(tmp_path: Path, changes: dict, said: str) -> None:
    table([utc(2024, 1, 2, 14, 30)]).write_parquet(tmp_path / "bars.parquet")
    config = {"kind": "parquet", "path": "bars.parquet", **changes}
    with pytest.raises(SourceError, match=said):
        read(FileSource(FIVE, **{**config, "path": str(tmp_path / config["path"])}))


def stored(path: Path, kind: str, frame: pl.DataFrame) -> None:
    frame.write_csv(path) if kind == "csv" else frame.write_parquet(path)


def damaged(file: Path, kind: str, how: str) -> None:
    """The file, as `how` names what happened to it."""
    held = file.read_bytes()
    file.unlink()
    if how == "absent":  # listed, and gone when it is read: an OSError, as one that may not be read is
        file.symlink_to(file.with_name("nowhere"))
    elif how == "other columns":
        stored(file, kind, table([utc(2024, 1, 3, 14, 30)]).select("symbol", "timestamp"))
    elif how == "empty":
        file.write_bytes(b"")
    else:  # a cut of text may be whole rows: the writer began anew in the midst of one
        file.write_bytes(held[: len(held) // 2] if kind == "parquet" else held + held.replace(b"\n", b","))


@pytest.mark.parametrize(
    ("number", "how"),
    [
        (1, "cut"),
        (2, "cut"),
        (3, "cut"),
        (1, "empty"),
        (3, "empty"),
        (1, "absent"),
        (3, "absent"),
        (2, "other columns"),
    ],
)
@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_a_damaged_file_among_others_is_named_with_what_to_do(tmp_path: Path, kind: str, number: int, how: str) -> None:
    for day in (1, 2, 3):
        stored(tmp_path / f"{day}.{kind}", kind, table([utc(2024, 1, day + 1, 14, 30)]))
    config = {"kind": kind, "path": f"{tmp_path}/*.{kind}"}
    assert read(FileSource(FIVE, **config)).height == 3
    damaged(tmp_path / f"{number}.{kind}", kind, how)
    said = rf"/{number}\.{kind} cannot be read: .*Write it anew.* move it out of .*\*\.{kind}"
    if kind == "csv" and how == "cut":  # text among the numbers makes a column of texts
        said = rf"/{number}\.csv: column 'open' holds String, not numbers"
    with pytest.raises(SourceError, match=said):
        read(FileSource(FIVE, **config))
    if how != "other columns":  # the columns that these two read are there
        with pytest.raises(SourceError, match=said):
            FileSource(FIVE, **config).span()
        with pytest.raises(SourceError, match=said):
            FileSource(FIVE, **config).symbols()


def test_a_file_without_rows_and_damaged_actions_are_told(tmp_path: Path) -> None:
    bars, actions = tmp_path / "bars.parquet", tmp_path / "actions.parquet"
    table([utc(2024, 1, 2, 14, 30)]).clear().write_parquet(bars)
    with pytest.raises(SourceError, match=r"bars\.parquet has no rows with a timestamp"):
        FileSource(FIVE, kind="parquet", path=str(bars)).span()
    actions.write_bytes(b"PAR1")
    with pytest.raises(SourceError, match=r"actions\.parquet cannot be read: .*Write it anew"):
        FileSource(FIVE, kind="parquet", path=str(bars), actions=str(actions)).actions()
    actions.unlink()
    pl.DataFrame({"symbol": ["A"], "date": ["soon"], "split": [1.0], "dividend": [0.0]}).write_parquet(actions)
    with pytest.raises(SourceError, match=r"actions\.parquet cannot be read: .*from string to date"):
        FileSource(FIVE, kind="parquet", path=str(bars), actions=str(actions)).actions()


def test_an_unknown_symbol_and_an_unreadable_stamp_are_named(tmp_path: Path) -> None:
    table(["2024-01-02 14:30:00", "2024-01-02 noon"]).write_csv(tmp_path / "bars.csv")
    source = FileSource(FIVE, kind="csv", path=str(tmp_path / "bars.csv"))
    with pytest.raises(SourceError, match="1 of 2 stamps are no times, the first '2024-01-02 noon'"):
        read(source)
    with pytest.raises(SourceError, match="no symbol 'AA'; the nearest is A"):
        read(source, ["AA"])
    table([1704205800]).write_csv(tmp_path / "bars.csv")
    with pytest.raises(SourceError, match="stamps are Int64"):
        read(FileSource(FIVE, kind="csv", path=str(tmp_path / "bars.csv")))


def test_real_daily_stocks_are_read_whole(market_data: Path) -> None:
    source = FileSource(DAY, kind="parquet", path=str(market_data / "dev_eq_us_1d_sp500.parquet"))
    assert source.span() == (date(2013, 2, 8), date(2018, 2, 7))
    assert len(source.symbols()) == 254
    first, last = source.span()
    assert last is not None
    frame = pl.concat(source.bars(*DAY.window(first, last), None))
    assert frame.height == 309_312


def test_a_date_whose_day_and_month_cannot_be_told_apart_is_refused(tmp_path: Path) -> None:
    table(["02/01/2024 14:30", "02/01/2024 14:35"]).write_csv(tmp_path / "bars.csv")
    source = FileSource(FIVE, kind="csv", path=str(tmp_path / "bars.csv"))
    with pytest.raises(SourceError, match="2 of 2 stamps are not ISO 8601, the first '02/01/2024 14:30'"):
        read(source)
