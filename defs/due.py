"""When bars are due, and which should be here by now: what a horizon's YAML and calendar say of an instant."""

import itertools
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import numpy as np
from dagster._utils.schedules import get_latest_completed_cron_tick, reverse_cron_string_iterator

from assets import partitions
from assets.plan import Plan
from conf.refreshing import AfterInterval, AfterSession, AtCron, Off, Refreshed
from conf.schema import Horizon
from quant.grid import Grid
from resources.sources import open_source

CRON_DAYS = 70  # of a cron line that are looked at: two months of a monthly one


def due(plan: Plan, now: datetime) -> datetime | None:
    """The newest moment by `now` at which a horizon's bars were to be fetched; None before the first, or where off."""
    rule = plan.horizon.automation
    if isinstance(rule, Off):
        return None
    delay = timedelta(seconds=rule.delay_seconds)
    if isinstance(rule, AtCron):
        # Dagster's own reading of cron lines, so that a line means here what it means in its schedules.
        return get_latest_completed_cron_tick(rule.cron, now - delay, rule.timezone).astimezone(UTC) + delay
    grid = _grid(plan, rule)
    newest = grid.last_ended(now - delay)
    return None if newest is None else end_of(grid, newest) + delay


def awaited(plan: Plan, horizons: Mapping[str, Horizon], now: datetime) -> datetime | None:
    """The end of the newest bar that should be in a horizon's table by now, `late_minutes` counted in.

    None where nothing is awaited. Resampled bars are awaited when those that they are made of were due; no bar is
    awaited after the last session of a source that has one.
    """
    source = partitions.at_source(plan, horizons)
    rule = source.horizon.automation
    if isinstance(rule, Off) or isinstance(plan.horizon.automation, Off):
        return None
    moment = due(source, now - timedelta(minutes=rule.late_minutes))
    if moment is None:
        return None
    until = moment - timedelta(seconds=rule.delay_seconds)
    until = min(until, last_close(source, now) or until)
    newest = plan.grid.last_ended(until)
    return None if newest is None else end_of(plan.grid, newest)


def last_close(plan: Plan, now: datetime) -> datetime | None:
    """When the last session of a source that ends closes; None for a source that goes on."""
    end = open_source(plan.horizon.source, plan.grid, now).end
    return None if end is None else plan.grid.sessions(end - timedelta(days=31), end)[-1].close


def longest_pause(plan: Plan, now: datetime) -> timedelta:
    """The longest time from one due moment to the next: what a weekend or the year's longest holiday makes normal."""
    rule = rule_of(plan)
    if isinstance(rule, AtCron):
        first = (now - timedelta(days=CRON_DAYS)).timestamp()
        ticks = reverse_cron_string_iterator(now.timestamp(), rule.cron, rule.timezone)
        moments = [tick.timestamp() for tick in itertools.takewhile(lambda tick: tick.timestamp() > first, ticks)]
        return timedelta(seconds=max(np.diff(moments[::-1]), default=timedelta(days=CRON_DAYS).total_seconds()))
    grid = _grid(plan, rule)
    ends = grid.ends(grid.slots((now - timedelta(days=366)).date(), now.date()))
    longest: timedelta = np.diff(ends).max().item()
    return longest


def _grid(plan: Plan, rule: AfterSession | AfterInterval) -> Grid:
    """Whose bars' ends are the due moments, but for the delay."""
    every = (rule.every or plan.horizon.interval) if isinstance(rule, AfterInterval) else "1d"
    return Grid(plan.grid.calendar, every)


def end_of(grid: Grid, start: datetime) -> datetime:
    """When the bar that starts there ends."""
    [end] = grid.ends(np.array([start.replace(tzinfo=None)], "datetime64[us]"))
    ended: datetime = end.item().replace(tzinfo=UTC)
    return ended


def rule_of(plan: Plan) -> Refreshed:
    """How a horizon is refreshed that is."""
    rule = plan.horizon.automation
    assert isinstance(rule, Refreshed), f"{plan.horizon.name} has no automation"
    return rule
