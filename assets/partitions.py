"""Dagster partitions of a horizon: real sessions only, and overlaps that cover a look-back in the worst case."""

import logging
import math
from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Any

import dagster as dg
import numpy as np
import polars as pl

from assets import names
from assets.plan import Plan
from conf.schema import Horizon
from quant.grid import Grid
from quant.panel import instants
from resources.arrivals import Arrivals
from resources.lake import Lake
from resources.sources import SourceError, open_source

FORMAT = "%Y-%m-%d"
# How far ahead a source that goes on knows its holidays: a code location is reloaded before. Each is written into every
# subset of partitions that Dagster's conditions store, so that they should not reach to the calendar's end.
AHEAD = timedelta(days=2 * 366)
AFTER_LAST = timedelta(days=31)  # the session after the last one is nearer on any calendar: it ends the last partition
CRON = {"month": "0 0 1 * *", "year": "0 0 1 1 *"}
log = logging.getLogger(__name__)


def span(plan: Plan, horizons: Mapping[str, Horizon], now: datetime) -> tuple[date, date | None]:
    """First and last session of the source at the end of the chain of `bars.from`; no last where it goes on.

    What was pushed to the service lies in it too, where it runs ahead of a source that ends. A source that cannot be
    read when the graph is built must not take the graph down: it begins where its table begins, or its `start` is
    declared. SourceError where neither is known.
    """
    plan = at_source(plan, horizons)
    source = open_source(plan.horizon.source, plan.grid, now)
    try:
        first, _ = source.span()
    except SourceError as error:
        kept = Lake(f"{plan.horizon.store.root}/lake").partitions(names.table("bars", plan.horizon.name))
        known = date.fromisoformat(kept[0]) if kept else plan.horizon.source.start
        if known is None:
            fix = "Nothing of it is stored yet, and source.start is not declared: where it begins is not known"
            raise SourceError(f"{plan.horizon.name}: {error}. {fix}") from error
        first, where = known, "the table's" if kept else "source.start"
        log.warning("%s: %s. The partitions begin with %s, %s", plan.horizon.name, error, where, first)
    last, pushed = source.end, _pushed(plan)
    return first, max(last, pushed) if last is not None and pushed is not None else last


def newest(plan: Plan, horizons: Mapping[str, Horizon], now: datetime) -> date | None:
    """The newest session of which there is a bar by now, at the source or pushed; None before the first one's end.

    SourceError where the source cannot be read.
    """
    plan = at_source(plan, horizons)
    ended = plan.grid.last_ended(now)
    if ended is None:
        return None
    _, last = open_source(plan.horizon.source, plan.grid, now).span()
    pushed = _pushed(plan)
    return min(session_of(plan.grid, ended), last if pushed is None else max(last, pushed))


def at_source(plan: Plan, horizons: Mapping[str, Horizon]) -> Plan:
    """The horizon at the end of the chain of `bars.from`."""
    while plan.finer:
        plan = Plan(horizons[plan.finer])
    return plan


def _pushed(plan: Plan) -> date | None:
    """The session of the newest bar that was pushed to the service."""
    pushed = Arrivals(plan.horizon.store.root).newest(plan.horizon.name)
    return None if pushed is None else session_of(plan.grid, pushed)


def session_of(grid: Grid, start: datetime) -> date:
    """The session that a bar belongs to."""
    session: date = grid.session_dates(instants(pl.Series([start])))[0].item()
    return session


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
    labels = plan.grid.dates(first, today + AHEAD if last is None else last + AFTER_LAST).tolist()
    until = labels[-1]
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
