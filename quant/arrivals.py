"""What a horizon's arrivals say in the end: of each bar the newest values, known since they first came."""

import numpy as np
import polars as pl

from quant.adjust import adjust
from quant.bars import KEY
from quant.grid import Grid


def settled(arrivals: pl.DataFrame) -> pl.DataFrame:
    """One row per (symbol, timestamp), sorted by them: the values that came last and were taken.

    arrivals: in order of arrival, with `known_at`, when each came, and `jump`, whether it was told one then (null:
    nobody judged): such a row was refused, and changes nothing. A bar that comes again with equal values is known since
    the first of these arrivals: only a change is a revision.
    """
    return _changes(arrivals).unique(KEY, keep="last").sort(KEY)


def revised(arrivals: pl.DataFrame) -> pl.DataFrame:
    """The keys whose values changed among their arrivals; one may have its first values again in the end."""
    return _changes(arrivals).group_by(KEY).len().filter(pl.col("len") > 1).select(KEY)


def _changes(arrivals: pl.DataFrame) -> pl.DataFrame:
    """Of each key the first arrival that was taken, and those that changed it."""
    arrivals = arrivals.filter(~pl.col("jump").fill_null(False)).drop("jump")
    values = pl.struct([name for name in arrivals.columns if name not in (*KEY, "known_at", "source")])
    told = arrivals.with_columns(_value=values)
    changed = pl.col("_value").ne_missing(pl.col("_value").shift(1).over(KEY)) | (pl.int_range(pl.len()).over(KEY) == 0)
    return told.filter(changed).drop("_value")


def apart(arrivals: pl.DataFrame) -> pl.DataFrame:
    """Of each (symbol, timestamp) the newest arrival, where it was told a jump."""
    return arrivals.unique(KEY, keep="last", maintain_order=True).filter("jump").drop("jump").sort(KEY)


def overlaid(bars: pl.DataFrame, arrivals: pl.DataFrame) -> pl.DataFrame:
    """Bars of a source with arrivals (settled) in the place of those of the same key; columns are those of either."""
    return pl.concat([bars.join(arrivals, on=KEY, how="anti"), arrivals], how="diagonal_relaxed")


def stepped(bars: pl.DataFrame, before: pl.DataFrame, actions: pl.DataFrame, grid: Grid) -> pl.DataFrame:
    """New bars whose factors also hold the splits and dividends since the bars before them, as `adjust` makes them.

    bars: with the factors of their symbols' bars before; before: each symbol's newest bar before its first of `bars`.
    Both are rows of the bars table. Symbols without an action in between come back as they are.
    """
    if actions.is_empty() or before.is_empty():
        return bars
    since = before.select("symbol", since=pl.Series(_sessions(before, grid), dtype=pl.Date))
    newest = bars.select("symbol", until=pl.Series(_sessions(bars, grid), dtype=pl.Date))
    spans = newest.group_by("symbol").agg(pl.col("until").max()).join(since, on="symbol")
    due = actions.join(spans, on="symbol").filter(pl.col("date") > pl.col("since"), pl.col("date") <= pl.col("until"))
    if due.is_empty():
        return bars
    touched = pl.col("symbol").is_in(due["symbol"].unique().implode())
    made = adjust(bars.filter(touched), actions, grid, before.filter(touched)).select(bars.columns)
    return pl.concat([bars.filter(~touched), made])


def _sessions(bars: pl.DataFrame, grid: Grid) -> np.ndarray:
    return grid.session_dates(bars["timestamp"].dt.replace_time_zone(None).to_numpy())
