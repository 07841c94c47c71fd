"""Bars in Parquet or CSV files: columns found and renamed, only the asked range and symbols kept."""

import difflib
import glob
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Literal

import polars as pl

from quant.adjust import ACTIONS, no_actions
from quant.bars import KEY, PRICES
from quant.grid import Grid
from resources.sources.errors import SourceError
from resources.sources.reading import reading
from resources.sources.stamps import Stamps

FILE_NAME = "{file}"  # in place of a column: one symbol per file, named by it
_PATH = "_path"


class FileSource:
    """Files that match a glob, read as one table.

    columns: our name -> the file's, where they differ; symbol may be "{file}". volume: the file's volume
    column, None where there is none to trust (it becomes null). extras: numeric columns to keep. timezone: of
    stamps that carry none. stamp: whether a stamp is its bar's "start" or "end". actions: a file of symbol,
    date, split, dividend, or None. start, end: first and last session to read, or None.

    Frames carry a `reason` for rows whose stamp has no one instant: validation rejects and counts them.
    """

    def __init__(
        self,
        grid: Grid,
        *,
        kind: Literal["parquet", "csv"],
        path: str,
        columns: Mapping[str, str] | None = None,
        volume: str | None = "volume",
        extras: Sequence[str] = (),
        timezone: str = "UTC",
        stamp: Literal["start", "end"] = "start",
        actions: str | None = None,
        start: date | None = None,
        end: date | None = None,
    ) -> None:
        self.name = Path(path).name
        self._grid, self._kind, self._path = grid, kind, path
        self._columns = {name: name for name in [*KEY, *PRICES, *extras]} | dict(columns or {})
        self._volume, self._extras, self._actions = volume, list(extras), actions
        self._stamps = Stamps(grid, timezone, stamp, path)
        self.end = end
        self._start, self._end = start or date.min, end or date.max

    def span(self) -> tuple[date, date]:
        """First and last session with a bar by now, inside the configured ones."""
        stamps = self._rows.select("timestamp")
        if self._rows.collect_schema()["timestamp"] != pl.String:  # text has to be read to be compared
            time = pl.col("timestamp")
            stamps = stamps.select(pl.concat([time.min(), time.max()]).drop_nulls())
        placed, _ = self._stamps.place(self._read(stamps).to_series())
        if placed.is_empty():
            raise SourceError(f"{self._path} has no rows with a timestamp: write its bars, or set source.path")
        edges = pl.Series([placed.min(), placed.max()], dtype=placed.dtype).to_numpy()
        first, last = self._grid.session_dates(edges).tolist()
        return max(first, self._start), min(last, self._end)

    def symbols(self) -> list[str]:
        """Every symbol in the files, in name order."""
        return self._symbols

    def bars(self, start: datetime, end: datetime, symbols: Sequence[str] | None) -> Iterator[pl.DataFrame]:
        """At most one frame, in the order of the files. SourceError for a symbol they do not have."""
        for symbol in symbols or ():
            if symbol not in self._symbols:
                raise SourceError(f"{self._path} has no symbol {symbol!r}{_nearest(symbol, self._symbols)}")
        rows = self._rows
        if symbols is not None:
            rows = rows.filter(pl.col("symbol").is_in(list(symbols)))
        frame = self._read(_near(rows, start, end))
        stamps, reason = self._stamps.place(frame["timestamp"])
        frame = frame.with_columns(stamps.alias("timestamp"), source=pl.lit(self.name))
        if reason is not None:
            frame = frame.with_columns(reason.alias("reason"))
        frame = frame.filter((stamps >= start) & (stamps < end))
        session = pl.Series(self._grid.session_dates(frame["timestamp"].to_numpy()), dtype=pl.Date)
        frame = frame.filter(session.is_between(self._start, self._end))
        if frame.height:
            yield frame

    def actions(self) -> pl.DataFrame:
        """What the actions file says; empty where there is none."""
        if self._actions is None:
            return no_actions()
        files = _found(self._actions)
        with reading(self._actions, files, _scan_actions):
            table = _scan_actions(files).collect()
            missing = [name for name in ACTIONS if name not in table.columns]
            if missing:
                raise SourceError(f"{self._actions} lacks {', '.join(missing)}; it has {', '.join(table.columns)}")
            return table.select(pl.col(name).cast(kind) for name, kind in ACTIONS.items())

    @cached_property
    def _symbols(self) -> list[str]:
        return self._read(self._rows.select(pl.col("symbol").unique()))["symbol"].drop_nulls().sort().to_list()

    def _read(self, rows: pl.LazyFrame) -> pl.DataFrame:
        with reading(self._path, self._files, self._scan):
            return rows.collect()

    def _scan(self, files: list[str]) -> pl.LazyFrame:
        if self._kind == "csv":
            return pl.scan_csv(files, include_file_paths=_PATH, infer_schema_length=10_000)
        return pl.scan_parquet(files, include_file_paths=_PATH)

    @cached_property
    def _files(self) -> list[str]:
        return _found(self._path)

    @cached_property
    def _rows(self) -> pl.LazyFrame:
        """The files' rows under our names, unread; stamps as the files have them."""
        with reading(self._path, self._files, self._scan):
            table = self._scan(self._files)
            schema = table.collect_schema()
        chosen = [self._symbol(schema), pl.col(self._column(schema, "timestamp")).alias("timestamp")]
        for name in [*PRICES, "volume", *self._extras]:
            if name == "volume" and self._volume is None:
                chosen.append(pl.lit(None, pl.Float64).alias(name))
                continue
            column = self._column(schema, name)
            if not schema[column].is_numeric():
                raise SourceError(f"{self._with_text(column)}: column {column!r} holds {schema[column]}, not numbers")
            chosen.append(pl.col(column).cast(pl.Float64).alias(name))
        return table.select(chosen)

    def _with_text(self, column: str) -> str:
        """The first file whose column holds no numbers."""
        for file in self._files:
            with reading(self._path, self._files, self._scan):
                kind = self._scan([file]).collect_schema().get(column)
            if kind is not None and not kind.is_numeric():
                return file
        return self._path

    def _symbol(self, schema: pl.Schema) -> pl.Expr:
        if self._columns["symbol"] == FILE_NAME:
            return pl.col(_PATH).str.extract(r"([^/\\]+?)(?:\.[a-z]+)?$").alias("symbol")
        return pl.col(self._column(schema, "symbol")).cast(pl.String).alias("symbol")

    def _column(self, schema: pl.Schema, name: str) -> str:
        column = (self._volume or "") if name == "volume" else self._columns[name]
        have = [known for known in schema if known != _PATH]
        if column in have:
            return column
        key = "volume=<column>, or null" if name == "volume" else f"columns.{name}=<column>"
        hint = f", or '{FILE_NAME}' for one symbol per file" if name == "symbol" else ""
        raise SourceError(
            f"{self._path} has no column {column!r} for {name}{_nearest(column, have)}; it has"
            f" {', '.join(have)}. Set source.{key}{hint}"
        )


def _scan_actions(files: list[str]) -> pl.LazyFrame:
    return pl.scan_csv(files, try_parse_dates=True) if files[0].endswith(".csv") else pl.scan_parquet(files)


def _near(rows: pl.LazyFrame, start: datetime, end: datetime) -> pl.LazyFrame:
    """Rows that may lie in start .. end, for the reader to skip the rest; text has to be read whole.

    Whatever the zone and the side of the stamp, a bar starts within two days of it.
    """
    kind = rows.collect_schema()["timestamp"]
    if not isinstance(kind, pl.Datetime):
        return rows
    wide = (start - timedelta(days=2), end + timedelta(days=2))
    low, high = (pl.lit(edge.replace(tzinfo=None)).dt.replace_time_zone(kind.time_zone) for edge in wide)
    return rows.filter(pl.col("timestamp").is_null() | pl.col("timestamp").is_between(low, high))


def _found(path: str) -> list[str]:
    """The files of a path or glob, in name order; an address with a scheme is left to the reader."""
    if "://" in path:
        return [path]
    wanted = Path(path).expanduser()
    files = sorted(glob.glob(str(wanted), recursive=True))  # noqa: PTH207  # the pattern may be absolute
    if not files:
        folder = next(parent for parent in wanted.absolute().parents if parent.is_dir())
        try:
            near = _nearest(wanted.name, [entry.name for entry in folder.iterdir()])
        except OSError as error:
            raise SourceError(f"no file matches {path}; {folder}: {error.strerror}: make it readable") from None
        raise SourceError(f"no file matches {path}; the folder {folder} exists{near}")
    return files


def _nearest(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"; the nearest is {near[0]}" if near else ""
