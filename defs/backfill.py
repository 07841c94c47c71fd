"""`tenor backfill`: find the partitions that are missing, say so, and make them and what follows in one run."""

from collections.abc import Collection, Mapping, Sequence
from datetime import date

import dagster as dg

from assets import names, partitions
from assets.plan import Plan
from conf.compose import compose
from conf.errors import ConfigError
from conf.files import an_example
from conf.origin import COMMAND_LINE
from conf.schema import Horizon
from defs.look import root_of
from defs.run import Runner, materialize
from resources.lake import Lake

OURS = ("from", "to")
TABLES = ("bars", "features", "factors")
MOST = 10  # partitions that are named


def backfill(words: Sequence[str]) -> int:
    """Fill the gaps of the horizons asked for; 0 when there is none left, 1 when a step failed."""
    ours = dict(word.split("=", 1) for word in words if word.partition("=")[0] in OURS)
    overrides = [word for word in words if word.partition("=")[0] not in OURS]
    since, until = (_day(ours, name) for name in OURS)
    if since and until and until < since:
        raise ConfigError(COMMAND_LINE, f"to={until} lies before from={since}", fix="Exchange them")
    horizons = compose(overrides)

    def fill(runner: Runner, horizon: Horizon) -> None:
        asked = [key for key in runner.keys if _within(Plan(horizon), key, since, until)]
        gaps = missing(horizon, runner.stored, asked)
        print(told(horizon.name, asked, gaps), flush=True)
        if gaps:
            there = Lake(f"{root_of(horizon)}/lake").partitions(names.table("factors", horizon.name))
            runner.tables(span(Plan(horizon), runner.keys, [key for found in gaps.values() for key in found], there))

    return materialize(overrides, horizons, fill)


def missing(horizon: Horizon, instance: dg.DagsterInstance, keys: Sequence[str]) -> dict[str, list[str]]:
    """Partitions without rows, or that were never made, by step; steps that lack none are left out.

    A session that the source had no bars of is among them each time: it may have them by now.
    """
    lake = Lake(f"{root_of(horizon)}/lake")
    found = {}
    for step in TABLES:
        rows = {*lake.partitions(names.table(step, horizon.name))}
        made = instance.get_materialized_partitions(names.key(horizon.name, step))
        found[step] = [key for key in keys if key not in rows or key not in made]
    return {step: lacking for step, lacking in found.items() if lacking}


def span(plan: Plan, keys: Sequence[str], gaps: Sequence[str], there: Collection[str]) -> tuple[str, str]:
    """First and last partition to make: the gaps, and those after them that are there and look back into a gap."""
    lookbacks = (plan.features.lookback, plan.factors.lookback, plan.vectors.lookback)
    reach = sum(-partitions.mapping(plan, lookback).start_offset for lookback in lookbacks)
    newest = keys.index(max(gaps))
    touched = keys[newest + 1 : newest + reach + plan.horizon.drift.window_sessions]
    return min(gaps), max((key for key in touched if key in there), default=keys[newest])


def told(name: str, keys: Sequence[str], gaps: Mapping[str, Sequence[str]]) -> str:
    """What is missing, for the person who waits."""
    if not keys:
        return f"{name}: there are no partitions there"
    if not gaps:
        return f"{name}: nothing is missing from {keys[0]} to {keys[-1]}, {len(keys)} partitions"
    lines = []
    for step, lacking in gaps.items():
        more = f" and {len(lacking) - MOST} more" if len(lacking) > MOST else ""
        lines.append(f"{name}: {step} lack {len(lacking)} of {len(keys)} partitions: {', '.join(lacking[:MOST])}{more}")
    return "\n".join(lines)


def _within(plan: Plan, key: str, since: date | None, until: date | None) -> bool:
    first, last = partitions.window(plan, [key])
    return (since is None or last >= since) and (until is None or first <= until)


def _day(ours: Mapping[str, str], name: str) -> date | None:
    if name not in ours:
        return None
    try:
        return date.fromisoformat(ours[name])
    except ValueError:
        problem = f"{name} is {ours[name]}; it must be a date such as 2024-01-31"
        raise ConfigError(
            COMMAND_LINE, problem, fix=f"Write tenor backfill horizon={an_example()} from=2024-01-31"
        ) from None
