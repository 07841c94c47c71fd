"""The table drift/<horizon>: every session's columns against their thresholds, and what the whole came to.

A row is a column of a session; what holds for the session (champion, share, failed, rate …) is on each of its rows.
"""

from collections.abc import Sequence
from datetime import date

import polars as pl

from assets import names
from assets.plan import Plan
from resources.lake import Lake

STEP = "drift"
LAYOUT = {"format": "drift-1"}
SCHEMA = pl.Schema(
    {
        "partition": pl.String(),
        "session": pl.Date(),
        "timestamp": pl.Datetime("us", "UTC"),  # of the session's first bar
        "champion": pl.String(),
        "column": pl.String(),
        "kind": pl.String(),  # prediction, factor or feature
        "importance": pl.Float64(),  # share of the model's gain; null of a prediction
        "statistic": pl.Float64(),  # null where skipped; inf: no values any more
        "threshold": pl.Float64(),
        "excess": pl.Float64(),  # standard deviations above what windows of the training reach
        "drifted": pl.Boolean(),
        "skipped": pl.String(),  # why it was not compared
        "now": pl.List(pl.Float64()),  # quantiles of the column, at QUANTILES
        "then": pl.List(pl.Float64()),
        "failed": pl.Boolean(),
        "share": pl.Float64(),  # of the compared columns that drifted
        "reached": pl.Float64(),  # the excess that more than the allowed share have
        "level": pl.Float64(),  # beyond which the check fails
        "rate": pl.Float64(),  # of false alarms a session, as training can promise it
        "independent": pl.Int64(),  # windows side by side in training
        "rows": pl.Int64(),
        "of_rows": pl.Int64(),
        "reference_rows": pl.Int64(),
        "of_reference_rows": pl.Int64(),
        "digest": pl.String(),  # of all that it was computed from
    }
)
QUANTILES = (0.01, 0.1, 0.5, 0.9, 0.99)


def recorded(plan: Plan, lake: Lake, keys: Sequence[str]) -> pl.DataFrame:
    """What the table holds of these partitions."""
    table = names.table(STEP, plan.horizon.name)
    if not lake.exists(table):
        return SCHEMA.to_frame()
    return lake.scan(table).filter(pl.col("partition").is_in(list(keys))).select(SCHEMA.names()).collect()


def history(plan: Plan, lake: Lake, until: date, sessions: int) -> pl.DataFrame:
    """The newest sessions up to `until`, in order; none where there is no table."""
    table = names.table(STEP, plan.horizon.name)
    if not lake.exists(table):
        return SCHEMA.to_frame()
    rows = lake.scan(table).filter(pl.col("session") <= until)
    days = rows.select("session").unique().sort("session").collect()["session"].tail(sessions)
    return rows.filter(pl.col("session").is_in(days.implode())).select(SCHEMA.names()).sort("session").collect()


def newest(plan: Plan, lake: Lake) -> pl.DataFrame:
    """The rows of the newest session; none where nothing was compared yet."""
    table = names.table(STEP, plan.horizon.name)
    held = lake.partitions(table)
    if not held:
        return SCHEMA.to_frame()
    last = lake.scan(table).filter(pl.col("partition") == held[-1])  # a sensor asks often: it reads no whole table
    return last.select(SCHEMA.names()).filter(pl.col("session") == pl.col("session").max()).collect()


def since(rows: pl.DataFrame) -> dict[str, date]:
    """The columns that drift in the newest session, with the first of the sessions that they have without a break."""
    days = rows["session"].unique().sort(descending=True).to_list()
    found: dict[str, date] = {}
    still = None
    for day in days:
        drifting = set(rows.filter((pl.col("session") == day) & pl.col("drifted"))["column"])
        still = drifting if still is None else still & drifting
        found |= dict.fromkeys(still, day)
    return found
