"""The vacuum of the loop: every so many days what the retention policy lets go of goes, and the UI says what went."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

import dagster as dg

from assets import names
from assets.plan import Plan
from conf.schema import Horizon
from defs.look import root_of
from defs.priority import vacuum_priority
from defs.refresh import ASKED, HORIZON, WHAT
from defs.vacuum import going, size
from resources.clock import Clock, SystemClock
from resources.settings import Settings

STEP = "vacuum"
SECONDS = 300
AGAIN = timedelta(hours=1)  # after one that failed
SHOWN = 200  # things that are named in the metadata; the run's log has all


@dataclass(frozen=True)
class Past:
    """The newest vacuum of a horizon: when it was asked for, and what became of its run."""

    id: str
    asked: datetime
    status: dg.DagsterRunStatus


def build(plan: Plan) -> dg.AssetsDefinition:
    """The step `vacuum` of one horizon, in the pool of the horizon's tables: none is written meanwhile."""
    horizon = plan.horizon.name

    @dg.asset(
        key=names.key(horizon, STEP),
        group_name=names.group(horizon),
        pool=names.tables_pool(horizon),
        kinds={"deltalake"},
        description="What `tenor vacuum` deletes by conf/retention, every `retention.every_days`; it says what went.",
    )
    def vacuum(context: dg.AssetExecutionContext, settings: Settings):
        run = settings.horizon(horizon)
        forget(context.instance, run.retention.conditions_days)
        return dg.MaterializeResult(metadata=sweep(context, run))

    return vacuum


def sweep(context: dg.AssetExecutionContext, horizon: Horizon) -> Mapping[str, dg.MetadataValue]:
    """Delete what goes, one thing after the other; what went, as metadata."""
    went, freed = [], 0
    # Ages are those of files, which the machine's clock stamped: a replayed one says nothing about them.
    for one in going(root_of(horizon), {horizon.name: horizon}, SystemClock().now(), dry=False):
        one.go()
        context.log.info(f"deleted {size(one.bytes)}: {one.what}: {one.why}")
        went.append((size(one.bytes), one.what, one.why))
        freed += one.bytes
    rows = list(itertools.islice(went, SHOWN))
    told = names.markdown_table(("size", "what", "why"), rows) if went else "nothing was old enough"
    return {
        "deleted": dg.MetadataValue.md(told),
        "things deleted": dg.MetadataValue.int(len(went)),
        "bytes freed": dg.MetadataValue.int(freed),
    }


def forget(instance: dg.DagsterInstance, days: int) -> None:
    """Delete what Dagster keeps of automation conditions from before so many days; those of every horizon."""
    before = SystemClock().now() - timedelta(days=days)  # the database's clock stamped them
    storage = instance.schedule_storage
    assert storage is not None  # an instance has one
    storage.purge_asset_evaluations(before.timestamp())


def vacuums(plan: Plan) -> dg.SensorDefinition:
    """The sensor `vacuum_<horizon>`: one run every `retention.every_days`; clock and past runs decide."""
    horizon, key = plan.horizon.name, names.key(plan.horizon.name, STEP)

    @dg.sensor(
        name=names.job(horizon, STEP),
        asset_selection=[key],
        minimum_interval_seconds=SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Deletes what conf/retention lets go of {horizon} every retention.every_days.",
    )
    def sensor(context: dg.SensorEvaluationContext, clock: dg.ResourceParam[Clock]):
        now, past = clock.now(), newest(context.instance, horizon)
        held = wait(plan.horizon.retention.every_days, past, now)
        if held is not None:
            return dg.SkipReason(f"{horizon}: {held}")
        return dg.RunRequest(
            run_key=f"{horizon} vacuum after {past.id if past else 'nothing'}",
            asset_selection=[key],
            tags={HORIZON: horizon, WHAT: STEP, ASKED: now.isoformat(), **vacuum_priority()},
        )

    return sensor


def newest(instance: dg.DagsterInstance, horizon: str) -> Past | None:
    """The newest run that the sensor asked for."""
    for run in instance.get_runs(dg.RunsFilter(tags={HORIZON: horizon, WHAT: STEP}), limit=1):
        return Past(run.run_id, datetime.fromisoformat(run.tags[ASKED]), run.status)
    return None


def wait(every_days: int | None, past: Past | None, now: datetime) -> str | None:
    """Why nothing is asked for now; None where a vacuum is due. One that failed is tried again after an hour."""
    if every_days is None:
        return "retention.every_days is null: `tenor vacuum` does it by hand"
    if past is None:
        return None
    if past.status not in (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED):
        return f"run {past.id[:8]} vacuums or waits to"
    failed = past.status == dg.DagsterRunStatus.FAILURE
    again = past.asked + (AGAIN if failed else timedelta(days=every_days))
    if past.asked <= now < again:  # a clock that was moved back says nothing about when the last one was
        ended = "failed" if failed else "ran"
        return f"the vacuum of {past.asked:%Y-%m-%d %H:%M} UTC {ended}; the next is at {again:%Y-%m-%d %H:%M}"
    return None
