"""Small tables that a config names: a Parquet or CSV file with a row per symbol, or per span of a symbol's days."""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from resources.sources.errors import SourceError
from resources.sources.reading import UNREADABLE


def read_table(key: str, path: str, needed: Sequence[str]) -> pl.DataFrame:
    """The file's rows, its `symbol` as text. key: what names the file in the config, for messages.

    Raises SourceError for a file that is absent, cannot be read or lacks a needed column.
    """
    file = Path(path)
    if not file.is_file():
        searched = "" if file.is_absolute() else f" in {Path.cwd()}: a relative path is read from the current folder"
        raise SourceError(f"{key}: there is no file {path}{searched}")
    try:
        if file.suffix == ".parquet":
            table = pl.read_parquet(file)
        else:  # a symbol such as 0700 is no number
            text = {"symbol": pl.String}
            table = pl.read_csv(file, try_parse_dates=True, infer_schema_length=None, schema_overrides=text)
    except UNREADABLE as error:
        raise SourceError(f"{key}: {path} cannot be read: {str(error).splitlines()[0]}") from None
    if missing := [name for name in needed if name not in table.columns]:
        raise SourceError(f"{key}: {path} lacks the column(s) {', '.join(missing)}; it has {', '.join(table.columns)}")
    return table
