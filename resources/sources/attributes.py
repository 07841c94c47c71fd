"""What a universe declares of its symbols beside their bars: inline, or from a file."""

import re
from collections.abc import Mapping
from datetime import date

import polars as pl

from quant.attributes import Attribute
from quant.bars import BARS
from resources.sources.errors import SourceError
from resources.sources.tables import read_table

KEY = "universe.attributes"
SPAN = {"start": date.min, "end": date.max}  # both included; an empty one, or a column that is absent, has no end
_ROW = "_row"

Declared = str | Mapping[str, Mapping[str, str | float]] | None


def read_attributes(declared: Declared) -> dict[str, Attribute]:
    """Attributes by name. Inline ({sector: {AAPL: tech}}) and in rows without dates they hold for all time.

    A file (Parquet or CSV) has `symbol`, a column per attribute, and `start` and `end` where attributes change; an
    empty cell is a symbol without that attribute. Raises SourceError that names the file, the symbol and the row
    (1 is the first after the header).
    """
    if declared is None:
        return {}
    if not isinstance(declared, str):
        return {
            name: Attribute.of((symbol, None, None, value) for symbol, value in held.items())
            for name, held in declared.items()
        }
    table = read_table(KEY, declared, ["symbol"]).with_row_index(_ROW, 1)
    names = [name for name in table.columns if name not in (_ROW, "symbol", *SPAN)]
    for name in names:
        if name in BARS or not re.fullmatch(r"[a-zA-Z][a-zA-Z0-9_]*", name):
            why = "a column of the bars" if name in BARS else "no name: use letters, digits and _, a letter first"
            raise SourceError(f"{KEY}: {declared} has the column {name!r}, which is {why}. Rename or remove it")
    if not names:
        raise SourceError(f"{KEY}: {declared} has no attribute beside its symbol: add a column such as sector")
    table = table.with_columns(
        pl.col("symbol").cast(pl.String).str.strip_chars(),
        *(_dates(table, name, declared) for name in SPAN),
        *(_values(table, name, declared) for name in names),
    )
    _refuse_overlaps(table, declared)
    return {name: Attribute.of(table.select("symbol", *SPAN, name).iter_rows()) for name in names}


def _dates(table: pl.DataFrame, name: str, path: str) -> pl.Series:
    if name not in table.columns:
        return pl.Series(name, [None] * table.height, dtype=pl.Date)
    given = table[name]
    if given.dtype == pl.String:
        given = given.str.strip_chars().replace("", None)
        days = given.str.to_date("%Y-%m-%d", strict=False)
    elif given.dtype == pl.Null or given.dtype.is_temporal():
        days = given.cast(pl.Date, strict=False)
    else:  # 20240131 would be read as a number of days
        days = given.clear(given.len()).cast(pl.Date)
    wrong = table.filter(days.is_null() & given.is_not_null())
    if wrong.height:
        raise SourceError(f"{_place(wrong, path)} has the {name} {wrong[name][0]}, not a date such as 2024-01-31")
    return days


def _values(table: pl.DataFrame, name: str, path: str) -> pl.Series:
    column = table[name]
    if column.dtype == pl.String or column.dtype in (pl.Categorical, pl.Enum):
        text = column.cast(pl.String).str.strip_chars()
        return text.replace("", None)
    if column.dtype == pl.Null:
        return column.cast(pl.Float64)
    if not (column.dtype.is_numeric() or column.dtype == pl.Boolean):
        raise SourceError(f"{KEY}: {path}: the column {name} is {column.dtype}; attributes are texts or numbers")
    numbers = column.cast(pl.Float64).fill_nan(None)
    if (wrong := table.filter(numbers.is_infinite())).height:
        raise SourceError(f"{_place(wrong, path)} has the {name} {wrong[name][0]}, not a finite number")
    return numbers


def _refuse_overlaps(table: pl.DataFrame, path: str) -> None:
    """SourceError for a row that lacks its symbol, ends before it starts, or covers days that another one covers."""
    if (wrong := table.filter(pl.col("symbol").fill_null("") == "")).height:
        raise SourceError(f"{_place(wrong, path)} has no symbol")
    spans = table.with_columns(pl.col(name).fill_null(open_) for name, open_ in SPAN.items())
    if (wrong := spans.filter(pl.col("end") < pl.col("start"))).height:
        start, end = wrong.select(*SPAN).row(0)
        raise SourceError(f"{_place(wrong, path)} ends on {end}, before it starts on {start}")
    earlier = pl.col("end", _ROW).shift().over("symbol").name.prefix("earlier_")
    spans = spans.sort("symbol", "start", _ROW).with_columns(earlier)
    if (wrong := spans.filter(pl.col("earlier_end") >= pl.col("start")).sort(_ROW)).height:
        row = wrong["earlier_" + _ROW][0]
        raise SourceError(
            f"{_place(wrong, path)} covers days that row {row} covers too: a symbol has one row, or rows whose start "
            "and end (both included) do not overlap"
        )


def _place(rows: pl.DataFrame, path: str) -> str:
    symbol = rows["symbol"][0]
    return f"{KEY}: {path}: row {rows[_ROW][0]}{f' ({symbol})' if symbol else ''}"
