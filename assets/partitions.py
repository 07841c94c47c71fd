"""Dagster partitions of a horizon: real sessions only, and overlaps that cover a look-back in the worst case."""

import math
from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Any

import dagster as dg
import numpy as np
import polars as pl

from assets.plan import Plan
from conf.schema import Horizon
from quant.grid import Grid
from quant.panel import instants
from resources.arrivals import Arrivals
from resources.sources import open_source

FORMAT = "%Y-%m-%d"
CRON = {"month": "0 0 1 * *", "year": "0 0 1 1 *"}
# How far ahead holidays are excluded; the code location of an open-ended source is reloaded long before.
HOLIDAYS_AHEAD = timedelta(days=366)


def span(plan: Plan, horizons: Mapping[str, Horizon]) -> tuple[date, date | None]:
    """First and last session of the source at the end of the chain of `bars.from`; no last where it goes on.

    What was pushed to the service lies in it too, where it runs ahead of the source.
    """
    while plan.finer:
        plan = Plan(horizons[plan.finer])
    first, last = open_source(plan.horizon.source, plan.grid).span()
    pushed = Arrivals(plan.horizon.store.root).newest(plan.horizon.name)
    if last is not None and pushed is not None:
        last = max(last, plan.grid.session_dates(instants(pl.Series([pushed])))[0].item())
    return first, last


def definition(plan: Plan, first: date, last: date | None, today: date) -> dg.TimeWindowPartitionsDefinition:
    """Partitions from the source's first session to its last; with no last, up to and with the unfinished one.

    A partition by day has a key per session: weekdays and holidays without one are excluded.
    """
    shape: dict[str, Any] = {"fmt": FORMAT, "timezone": "UTC", "end_offset": 1 if last is None else 0}
    if plan.horizon.partition != "day":
        if last is not None:
            shape["end"] = _after(last, plan.horizon.partition)
        start = _floor(first, plan.horizon.partition)
        return dg.TimeWindowPartitionsDefinition(
            start=_midnight(start), cron_schedule=CRON[plan.horizon.partition], **shape
        )
    until = (last or today) + HOLIDAYS_AHEAD
    labels = plan.grid.dates(first, until).tolist()
    if last is not None:
        # A partition lasts to the next session: one that began on a Friday ends on a Monday.
        shape["end"] = _midnight(next(label for label in labels if label > last))
    held = set(labels)
    weekdays = sorted({label.isoweekday() % 7 for label in labels})
    days = (first + timedelta(days=n) for n in range((until - first).days + 1))
    closed = [_midnight(day) for day in days if day.isoweekday() % 7 in weekdays and day not in held]
    cron = f"0 0 * * {','.join(map(str, weekdays))}" if len(weekdays) < 7 else "0 0 * * *"
    return dg.TimeWindowPartitionsDefinition(
        start=_midnight(first), cron_schedule=cron, exclusions=closed or None, **shape
    )


def mapping(plan: Plan, lookback: int) -> dg.TimeWindowPartitionMapping:
    """The upstream partitions a partition needs: itself and those its look-back can touch, in the worst case."""
    return overlap(plan, plan.grid.max_sessions(lookback) if lookback else 0)


def elsewhere(plan: Plan, lookback: int, other: Grid, slots: int) -> dg.TimeWindowPartitionMapping:
    """The partitions of another horizon's bars that a partition needs, in the worst case.

    lookback: slots of the horizon's own grid before the partition's first. slots: of the other grid before the newest
    that had ended by then, which may lie in the session before.
    """
    back = other.max_sessions(slots + 1)
    if other.calendar == plan.grid.calendar:
        return overlap(plan, plan.grid.max_sessions(lookback) + back)
    # Sessions of two calendars meet by their dates: a session may be the other's next one, or lie a holiday away.
    days = other.dates(date.min, date.max)
    span = days[back + 1 :] - days[: -back - 1]
    apart = int(span.max() / np.timedelta64(1, "D")) + 1
    return overlap(plan, plan.grid.max_sessions(lookback) + apart, ahead=1)


def overlap(plan: Plan, sessions: int, ahead: int = 0) -> dg.TimeWindowPartitionMapping:
    """The same for a number of sessions before the partition's own, and of partitions after it."""
    # A partition holds at least this many sessions on any calendar we know of (February, Golden Weeks).
    held = {"day": 1, "month": 14, "year": 200}[plan.horizon.partition]
    return dg.TimeWindowPartitionMapping(
        start_offset=-math.ceil(sessions / held), end_offset=ahead, allow_nonexistent_upstream_partitions=True
    )


def window(plan: Plan, keys: Sequence[str]) -> tuple[date, date]:
    """First and last date, both included, that partition keys cover."""
    end = _after(date.fromisoformat(max(keys)), plan.horizon.partition)
    return date.fromisoformat(min(keys)), end.date() - timedelta(days=1)


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day)


def _floor(day: date, partition: str) -> date:
    return day.replace(day=1) if partition == "month" else day.replace(month=1, day=1)


def _after(day: date, partition: str) -> datetime:
    """Midnight at which the partition that holds `day` ends."""
    if partition == "day":
        return _midnight(day + timedelta(days=1))
    if partition == "year":
        return datetime(day.year + 1, 1, 1)
    return datetime(day.year + day.month // 12, day.month % 12 + 1, 1)
