"""Membership by date: a section holds only the symbols that were members on its session."""

import polars as pl


def member_rows(rows: pl.DataFrame, members: pl.DataFrame | None) -> pl.DataFrame:
    """The rows whose symbol was a member at their timestamp; all rows where membership is not declared.

    members: symbol, start and end (dates, both included; a null end is still a member). A symbol may leave and
    come back: several intervals, which must not overlap.
    """
    if members is None:
        return rows
    spans = members.select("symbol", pl.col("start").alias("_start"), pl.col("end").alias("_end"))
    day = pl.col("timestamp").dt.date()
    return (
        rows.join(spans, on="symbol", how="inner", maintain_order="left")
        .filter(day >= pl.col("_start"), pl.col("_end").is_null() | (day <= pl.col("_end")))
        .drop("_start", "_end")
    )
