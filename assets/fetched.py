"""How far each partition was fetched: a bar that was not there then and comes later is known since it comes.

The table `fetched/<horizon>` says it, and not Dagster's runs: what decides a `known_at` belongs to the store.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

import polars as pl

from assets import names
from assets.plan import Plan
from assets.pushed import PUSHED
from conf.refreshing import Refreshed
from quant.bars import INSTANT, KEY
from resources.lake import Lake
from resources.sources import Source

# One row for each partition of the bars. until: every bar of it that ended by then should have been there.
SCHEMA = {"key": pl.String(), "until": INSTANT}
ALL = "all"  # the one partition of the table itself


def reach(plan: Plan, source: Source, now: datetime) -> datetime:
    """Up to when the source, read at `now`, should have every bar.

    Not the last `automation.delay_seconds`, and nothing after the newest session that it has anything of: a file that
    ends years ago has not missed the years since.
    """
    rule = plan.horizon.automation
    delay = rule.delay_seconds if isinstance(rule, Refreshed) else 0
    _, last = source.span()
    _, end = plan.grid.window(last, last)
    return min(now - timedelta(seconds=delay), end)


def before(lake: Lake, horizon: str) -> pl.DataFrame:
    """SCHEMA, as earlier runs left it; no rows where none did."""
    table = names.table("fetched", horizon)
    return lake.scan(table).select(*SCHEMA).collect() if lake.exists(table) else pl.DataFrame(schema=SCHEMA)


def after(earlier: pl.DataFrame, keys: Sequence[str], until: datetime) -> pl.DataFrame:
    """The rows of the table once `keys` have been fetched up to `until`."""
    now = pl.DataFrame({"key": [*keys], "until": [until] * len(keys)}, schema=SCHEMA)
    rows = pl.concat([earlier.join(now, on="key", how="anti"), now])
    return rows.sort("key").with_columns(partition=pl.lit(ALL))


def dated(
    bars: pl.DataFrame,
    fetched: pl.DataFrame,
    existing: pl.DataFrame,
    stored: pl.LazyFrame | None,
    now: datetime,
) -> tuple[pl.DataFrame, int]:
    """Bars of which those that came late are known since `now`, and how many these are.

    Late is a bar that no run had brought (existing: what the table has of the same span), though its partition was
    fetched after it ended. Not so a bar that was pushed, whose arrival is known, nor one before the first that the
    table has of its symbol (stored: the whole of it): a symbol that joins brings its history with it.
    bars: with `partition`, as the table is cut; the rest of the columns and the order of the rows stay.
    """
    if stored is None or fetched.is_empty() or bars.is_empty():
        return bars, 0
    until = pl.col("partition").replace_strict(fetched["key"], fetched["until"], default=None, return_dtype=INSTANT)
    late = bars.filter((pl.col("known_at") <= until) & (pl.col("source") != PUSHED)).join(existing, on=KEY, how="anti")
    if late.is_empty():
        return bars, 0
    symbols = stored.filter(pl.col("symbol").is_in(late["symbol"].unique().to_list()))
    first = symbols.group_by("symbol").agg(first=pl.min("timestamp")).collect()
    late = late.join(first, on="symbol").filter(pl.col("timestamp") > pl.col("first")).select(*KEY, _late=True)
    found = bars.join(late, on=KEY, how="left", maintain_order="left")
    since = pl.when("_late").then(pl.lit(now).cast(INSTANT)).otherwise("known_at")
    return found.with_columns(known_at=since).drop("_late"), late.height
