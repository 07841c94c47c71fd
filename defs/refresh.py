"""The sensors that ask for bars: clock, calendar and past runs decide, and nothing is kept in a cursor.

A missed tick, a killed daemon or a restart loses nothing, for the next tick sees the same past runs; and doubles
nothing, for the due moment and its attempt are the run's key.
"""

import bisect
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

import dagster as dg

from assets import names, partitions
from assets.plan import Plan
from conf.schema import Horizon
from defs.due import due, last_close, rule_of
from defs.priority import priority
from resources.clock import Clock
from resources.sources import SourceError

RANGE_START, RANGE_END = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"
HORIZON, WHAT, DUE, ASKED = "tenor/horizon", "tenor/what", "tenor/due", "tenor/asked"

SECONDS = 15
LONGEST_RETRY = timedelta(hours=1)
PAST = 100  # runs that are looked at: with pauses up to an hour, days of failures


@dataclass(frozen=True)
class Attempt:
    """A refresh that was asked for at `asked`, for the bars that were due at `due`; done: None while it runs."""

    due: datetime
    asked: datetime
    done: bool | None


@dataclass(frozen=True)
class Ask:
    """Bars are due: since when, how many attempts there were, and up to which due moment all is there."""

    due: datetime
    attempts: int
    covered: datetime | None


@dataclass(frozen=True)
class Wait:
    """Why nothing is asked for now; warning: it should not be so."""

    why: str
    warning: bool = False


def refresh(
    plan: Plan, horizons: Mapping[str, Horizon], parts: dg.TimeWindowPartitionsDefinition
) -> dg.SensorDefinition:
    """The sensor `refresh_<horizon>`: one run over the partitions from the first gap, or the rolling window, to now."""
    horizon, rule = plan.horizon.name, rule_of(plan)
    key = names.key(horizon, "bars")

    @dg.sensor(
        name=f"refresh_{horizon}",
        asset_selection=dg.AssetSelection.assets(key),
        minimum_interval_seconds=SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Asks for {horizon}'s bars when they are due ({rule.kind}); after a failure again, with pauses.",
    )
    def sensor(context: dg.SensorEvaluationContext, clock: dg.ResourceParam[Clock]):
        now = clock.now()
        told = decide(plan, attempts(context.instance, horizon), last_close(plan, now), now)
        if isinstance(told, Ask):
            there = context.instance.get_materialized_partitions(key)
            found = span(plan, horizons, parts, there, told.covered, now)
            if found is not None:
                return dg.RunRequest(
                    run_key=f"{horizon} {told.due.isoformat()} {told.attempts}",
                    asset_selection=[key],
                    tags={
                        RANGE_START: found[0],
                        RANGE_END: found[1],
                        HORIZON: horizon,
                        WHAT: "refresh",
                        DUE: told.due.isoformat(),
                        ASKED: now.isoformat(),
                        "dagster/max_runtime": str(rule.most_minutes * 60),
                        **priority(plan),
                    },
                )
            told = Wait(f"{horizon}: there are no bars yet")
        if told.warning:
            context.log.warning(told.why)
        return dg.SkipReason(told.why)

    return sensor


def attempts(instance: dg.DagsterInstance, horizon: str) -> list[Attempt]:
    """The refreshes that the sensor asked for, newest first."""
    found = []
    for record in instance.get_run_records(dg.RunsFilter(tags={HORIZON: horizon, WHAT: "refresh"}), limit=PAST):
        run = record.dagster_run
        done = run.is_success if run.is_finished else None
        due_at, asked = (datetime.fromisoformat(run.tags[tag]) for tag in (DUE, ASKED))
        found.append(Attempt(due_at, asked, done))
    return found


def decide(plan: Plan, past: Sequence[Attempt], last: datetime | None, now: datetime) -> Ask | Wait:
    """Whether bars are to be asked for now. last: when the last session of a source that ends closed."""
    rule, name = rule_of(plan), plan.horizon.name
    moment = due(plan, now)
    if moment is None:
        return Wait(f"{name}: nothing was due yet")
    covered = max((attempt.due for attempt in past if attempt.done), default=None)
    if under_way := [attempt for attempt in past if attempt.done is None]:
        minutes = (now - under_way[0].asked) / timedelta(minutes=1)
        slow = minutes > rule.expected_minutes
        more = f", longer than automation.expected_minutes, {rule.expected_minutes}" if slow else ""
        return Wait(f"{name}: a refresh is under way for {minutes:.0f} min{more}", warning=slow)
    if covered is not None and covered >= moment:
        return Wait(f"{name}: what was due at {moment:%Y-%m-%d %H:%M} UTC is there")
    if covered is not None and last is not None and covered - timedelta(seconds=rule.delay_seconds) >= last:
        return Wait(f"{name}: the source ended with {last:%Y-%m-%d}, and all of it is there")
    tried = [attempt for attempt in past if attempt.due == moment]
    if tried:
        pause = min(timedelta(seconds=rule.retry_seconds) * 2 ** (len(tried) - 1), LONGEST_RETRY)
        again = max(attempt.asked for attempt in tried) + pause
        if now < again:
            return Wait(f"{name}: {len(tried)} refreshes failed; the next is at {again:%H:%M:%S} UTC", warning=True)
    return Ask(moment, len(tried), covered)


def span(
    plan: Plan,
    horizons: Mapping[str, Horizon],
    parts: dg.TimeWindowPartitionsDefinition,
    there: Collection[str],
    covered: datetime | None,
    now: datetime,
) -> tuple[str, str] | None:
    """First and last partition to fetch; None where no bar has ended yet. there: partitions that were fetched once.

    From the first of: a partition that was never fetched, the session that was under way when all was there last, and
    the sessions that are fetched again for revisions. A source that cannot be read is asked for all up to now: the run
    then says what is wrong with it.
    """
    rule, grid = rule_of(plan), plan.grid
    ended = grid.last_ended(now)
    try:
        newest = partitions.newest(plan, horizons, now)
    except SourceError:
        newest = None if ended is None else partitions.session_of(grid, ended)
    known = [key for key in parts.get_partition_keys() if key <= str(newest)]
    if newest is None or not known:
        return None
    last = known[-1]
    missing = next((key for key in known if key not in there), last)
    sessions = grid.dates(date.fromisoformat(known[0]), newest).tolist()
    again = len(sessions) - 1 - rule.revisions
    if covered is not None and (seen := grid.last_ended(covered - timedelta(seconds=rule.delay_seconds))) is not None:
        # That session may not have been over; and those before it have not been fetched again as often as they should.
        known_until = bisect.bisect(sessions, partitions.session_of(grid, seen)) - 1
        again = min(again, known_until, known_until + 1 - rule.revisions)
    since = str(sessions[max(0, again)])
    first = max((key for key in known if key <= since), default=known[0])
    return min(first, missing), last
