"""Membership of a universe by date, from a file."""

import polars as pl

from resources.sources.errors import SourceError
from resources.sources.tables import read_table

SCHEMA = {"symbol": pl.String, "start": pl.Date, "end": pl.Date}


def read_members(path: str) -> pl.DataFrame:
    """symbol, start, end (both included; an empty end is still a member) from a Parquet or CSV file.

    Raises SourceError for a file that is absent, lacks a column, or has overlapping intervals of one symbol.
    """
    table = read_table("universe.members", path, list(SCHEMA))
    table = table.select(pl.col(name).cast(kind) for name, kind in SCHEMA.items()).sort("symbol", "start")
    before = pl.col("end").shift().over("symbol")
    first = pl.int_range(pl.len()).over("symbol") == 0
    wrong = table.filter(
        pl.col("start").is_null()
        | (pl.col("end") < pl.col("start"))
        | (~first & (before.is_null() | (before >= pl.col("start"))))
    )
    if wrong.height:
        symbol, start, end = wrong.row(0)
        raise SourceError(
            f"universe.members: {path}: the interval of {symbol} from {start} to {end} is reversed, lacks its start, "
            "or overlaps the one before it"
        )
    return table
