"""Bars that were pushed to the service, as the bars step takes them: from its journals, and from its own tables.

A bar was judged when it came. That verdict holds: what was acknowledged is taken, what was refused stays apart.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta

import polars as pl

from assets import names
from assets.plan import Plan
from quant.arrivals import apart, overlaid, settled
from quant.bars import KEY, PRICES
from quant.inputs import names as inputs
from quant.jumps import Judged
from resources.arrivals import Arrivals
from resources.lake import Lake

PUSHED = "pushed"  # what they have as their source


@dataclass(frozen=True)
class Came:
    """What came for a span. taken: with `known_at`, when it came, and `judged`, whether its price was judged then.

    refused: what was told a jump, or rejected by an earlier run, with its `reason`.
    """

    taken: pl.DataFrame
    refused: pl.DataFrame

    @property
    def height(self) -> int:
        return self.taken.height + self.refused.height


class Pushed:
    """What was pushed to one horizon for sessions in first .. last; a journal that is gone left it in the tables."""

    def __init__(self, plan: Plan, arrivals: Arrivals, lake: Lake, first: date, last: date) -> None:
        start, end = plan.grid.window(first, last)
        # None arrives before it ends; a day more, as the sender's clock may be ahead.
        came = conformed(plan, arrivals.read(plan.horizon.name, (start - timedelta(days=1)).date()))
        judged = came.filter(pl.col("jump").is_not_null()).select(*KEY, "known_at", judged=True)
        taken = settled(came).join(judged, on=[*KEY, "known_at"], how="left").with_columns(source=pl.lit(PUSHED))
        refused = apart(came).with_columns(source=pl.lit(PUSHED), reason=pl.lit("jump"))
        stored = _stored(lake, names.table("bars", plan.horizon.name), start, end)
        rejected = _stored(lake, names.table("rejected", plan.horizon.name), start, end)
        self._taken = _beside(taken.with_columns(pl.col("judged").fill_null(False)), stored, taken, judged=True)
        self._refused = _beside(refused, rejected, came)

    def between(self, start: datetime, end: datetime) -> Came:
        """What came of bars that start in [start, end)."""
        there = pl.col("timestamp").is_between(start, end, closed="left")
        return Came(self._taken.filter(there), self._refused.filter(there))


def conformed(plan: Plan, came: pl.DataFrame) -> pl.DataFrame:
    """Arrivals with the horizon's columns."""
    extras = [name for name in plan.columns if name not in inputs()]
    lacking = [pl.lit(None, pl.Float64()).alias(name) for name in extras if name not in came.columns]
    return came.with_columns(lacking).select(*KEY, *PRICES, "volume", "known_at", "jump", *extras)


def with_pushed(
    source: pl.DataFrame, pushed: pl.DataFrame, judged: Callable[[pl.DataFrame, pl.DataFrame], Judged]
) -> tuple[Judged, int]:
    """The source's good bars with pushed ones in their places, judged; and how many of the source were replaced.

    judged: of bars, and of the keys among them that are good by an earlier verdict. A pushed bar that nobody judged
    before and that is a jump takes no place: the source has the bar that it should have been.
    """
    verdicts, pushed = pushed.filter("judged").select(KEY), pushed.drop("judged")
    found = judged(overlaid(source, pushed), verdicts)
    wrong = found.jumps.filter(pl.col("source") == PUSHED).join(source, on=KEY, how="semi")
    if wrong.height:
        pushed = pushed.join(wrong, on=KEY, how="anti")
        again = judged(overlaid(source, pushed), verdicts)
        found = replace(again, jumps=pl.concat([again.jumps, wrong]), notes=(*found.notes, *again.notes))
    return found, source.join(pushed, on=KEY, how="semi").height


def _stored(lake: Lake, table: str, start: datetime, end: datetime) -> pl.DataFrame | None:
    if not lake.exists(table):
        return None
    return lake.scan(table, start, end).filter(pl.col("source") == PUSHED).collect()


def _beside(came: pl.DataFrame, stored: pl.DataFrame | None, newer: pl.DataFrame, **more: bool) -> pl.DataFrame:
    """What came, and what is stored of keys of which nothing `newer` came."""
    if stored is None:
        return came
    held = stored.with_columns(pl.lit(value).alias(name) for name, value in more.items())
    lacking = [pl.lit(None, kind).alias(name) for name, kind in came.schema.items() if name not in held.columns]
    held = held.with_columns(lacking).select(came.columns).join(newer, on=KEY, how="anti")
    return pl.concat([came, held]).sort(KEY)
