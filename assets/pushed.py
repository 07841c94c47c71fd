"""Bars that were pushed to the service, as the bars step takes them from its journals."""

from collections.abc import Callable
from dataclasses import replace
from datetime import date, datetime, timedelta

import polars as pl

from assets.plan import Plan
from quant.arrivals import overlaid, settled
from quant.bars import KEY, PRICES
from quant.inputs import names
from quant.jumps import Judged
from resources.arrivals import Arrivals

PUSHED = "pushed"  # what they have as their source


class Pushed:
    """The arrivals of one horizon for sessions in first .. last."""

    def __init__(self, plan: Plan, arrivals: Arrivals, first: date, last: date) -> None:
        start, _ = plan.grid.window(first, last)
        # None arrives before it ends; a day more, as the sender's clock may be ahead.
        came = arrivals.read(plan.horizon.name, (start - timedelta(days=1)).date())
        extras = [name for name in plan.columns if name not in names()]
        lacking = [pl.lit(None, pl.Float64()).alias(name) for name in extras if name not in came.columns]
        came = came.with_columns(lacking).select(*KEY, *PRICES, "volume", "known_at", "jump", *extras)
        self._rows = settled(came).with_columns(source=pl.lit(PUSHED))

    def between(self, start: datetime, end: datetime) -> pl.DataFrame:
        """Those of bars that start in [start, end), with `known_at`, when they came."""
        return self._rows.filter(pl.col("timestamp").is_between(start, end, closed="left"))


def no_pushed() -> pl.DataFrame:
    """What a horizon has that nobody pushes to: its bars are made of another's."""
    return pl.DataFrame()


def with_pushed(
    source: pl.DataFrame, pushed: pl.DataFrame, judged: Callable[[pl.DataFrame], Judged]
) -> tuple[Judged, int]:
    """The source's good bars with pushed ones in their places, judged; and how many of the source were replaced.

    A pushed bar that is a jump takes no place: the source has the bar that it should have been.
    """
    found = judged(overlaid(source, pushed))
    wrong = found.jumps.filter(pl.col("source") == PUSHED).join(source, on=KEY, how="semi")
    if wrong.height:
        pushed = pushed.join(wrong, on=KEY, how="anti")
        again = judged(overlaid(source, pushed))
        found = replace(again, jumps=pl.concat([again.jumps, wrong]), notes=(*found.notes, *again.notes))
    return found, source.join(pushed, on=KEY, how="semi").height
