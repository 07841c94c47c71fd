"""Journals of pushed bars, deleted once the tables have all of them: what is left is what is not ingested yet."""

from datetime import date, timedelta

import polars as pl

from assets import names
from assets.plan import Plan
from assets.pushed import PUSHED, conformed
from quant.arrivals import apart, settled
from quant.bars import KEY
from resources.arrivals import Arrivals
from resources.lake import Lake

PAST = timedelta(days=2)  # a service may still write to the file of a day that has just ended


def prune(plan: Plan, arrivals: Arrivals, lake: Lake, today: date) -> int:
    """Delete the files of past days whose every bar is in the tables as it came; returns how many.

    Only the tables' writer may, after its commit. Files with the newest bar stay: they say how far a feed runs ahead of
    the source. A crash between two deletions leaves what the next run deletes.
    """
    horizon = plan.horizon.name
    past = [file for day, file in arrivals.files(horizon) if day + PAST <= today]
    if not past:
        return 0
    came = conformed(plan, arrivals.read(horizon))
    lacking = _lacking(horizon, came, lake)
    newest = settled(came)["timestamp"].max()
    deleted = 0
    for file in past:
        rows = arrivals.read_file(file)
        if rows["timestamp"].max() != newest and rows.join(lacking, on=KEY, how="semi").is_empty():
            file.unlink(missing_ok=True)
            deleted += 1
    return deleted


def _lacking(horizon: str, came: pl.DataFrame, lake: Lake) -> pl.DataFrame:
    """The keys of which the tables do not have what came."""
    taken, refused = settled(came).drop("known_at"), apart(came)
    held, rejected = taken.select(KEY).clear(), taken.select(KEY).clear()
    since, newest = came.select(pl.min("timestamp").alias("first"), pl.max("timestamp").alias("last")).row(0)
    until = newest + timedelta(microseconds=1)
    if lake.exists(table := names.table("bars", horizon)):
        bars = lake.scan(table, since, until).filter(pl.col("source") == PUSHED).collect()
        held = taken.join(bars, on=taken.columns, how="semi", nulls_equal=True).select(KEY)
    if lake.exists(table := names.table("rejected", horizon)):
        rejected = lake.scan(table, since, until).filter(pl.col("source") == PUSHED).select(KEY).collect()
    return pl.concat(
        [
            taken.select(KEY).join(pl.concat([held, rejected]), on=KEY, how="anti"),
            refused.select(KEY).join(rejected, on=KEY, how="anti"),
        ]
    )
