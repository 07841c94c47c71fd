"""What a horizon's arrivals say in the end: of each bar the newest values, known since they first came."""

import polars as pl

from quant.bars import KEY


def settled(arrivals: pl.DataFrame) -> pl.DataFrame:
    """One row per (symbol, timestamp), sorted by them: the values that came last.

    arrivals: in order of arrival, with `known_at`, when each came. A bar that comes again with equal values is
    known since the first of these arrivals: only a change is a revision.
    """
    values = pl.struct([name for name in arrivals.columns if name not in (*KEY, "known_at", "source")])
    told = arrivals.with_columns(_value=values)
    changed = pl.col("_value").ne_missing(pl.col("_value").shift(1).over(KEY)) | (pl.int_range(pl.len()).over(KEY) == 0)
    return told.filter(changed).unique(KEY, keep="last").drop("_value").sort(KEY)


def overlaid(bars: pl.DataFrame, arrivals: pl.DataFrame) -> pl.DataFrame:
    """Bars of a source with arrivals (settled) in the place of those of the same key; columns are those of either."""
    return pl.concat([bars.join(arrivals, on=KEY, how="anti"), arrivals], how="diagonal_relaxed")
