"""Membership by date: a section holds only the symbols that were members on its session."""

import polars as pl

from quant.grid import Grid


def session_of(stamps: pl.Series, grid: Grid) -> pl.Series:
    """The session date of each bar start: in an evening it is often the next day's."""
    return pl.Series("session", grid.session_dates(stamps.dt.replace_time_zone(None).to_numpy()), dtype=pl.Date)


def member_rows(rows: pl.DataFrame, members: pl.DataFrame | None, grid: Grid) -> pl.DataFrame:
    """The rows whose symbol was a member on their session; all rows where membership is not declared.

    members: symbol, start and end (dates, both included; a null end is still a member). A symbol may leave and
    come back: several intervals, which must not overlap.
    """
    if members is None:
        return rows
    spans = members.select("symbol", pl.col("start").alias("_start"), pl.col("end").alias("_end"))
    day = pl.col("_session")
    return (
        rows.with_columns(_session=session_of(rows["timestamp"], grid))
        .join(spans, on="symbol", how="inner", maintain_order="left")
        .filter(day >= pl.col("_start"), pl.col("_end").is_null() | (day <= pl.col("_end")))
        .drop("_start", "_end", "_session")
    )
