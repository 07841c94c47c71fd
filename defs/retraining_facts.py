"""What is known of a horizon's trainings and checks, from Dagster's runs, the registry and the lake."""

from datetime import UTC, date, datetime, timedelta

import dagster as dg
import polars as pl

from assets import drift_history, drift_page, names, realized_drift
from assets.model import TRAINED_AT
from assets.plan import Plan
from assets.reports import Reports
from defs.refresh import ASKED, HORIZON, WHAT
from quant.retraining import Facts, Failed, Training
from resources.lake import Lake
from resources.registry import Registry

TRAIN = "train"
PAST = 30  # runs, and models, that are looked at
FAR = timedelta(days=1500)  # sessions longer ago are not counted


def facts_of(
    instance: dg.DagsterInstance, plan: Plan, lake: Lake, registry: Registry, reports: Reports, now: datetime
) -> Facts:
    """What `quant.retraining.decide` decides by."""
    horizon = plan.horizon.name
    champion = registry.champion(horizon)
    calendar = _Closed(plan, now)
    age = None
    if champion is not None:
        trained = registry.provenance(horizon, champion.id).get("trained_at")
        age = calendar.since(datetime.fromisoformat(trained) if trained else champion.at)
    return Facts(
        sessions=_sessions(plan, lake),
        champion=champion.id if champion else None,
        champion_age=age,
        trainings=_trainings(instance, plan, registry, calendar),
        drift=_drift(plan, lake, reports, calendar, champion.id) if champion else None,
        decay=_decay(plan, lake, reports, calendar, champion.id) if champion else None,
    )


class _Closed:
    """The sessions of a calendar that are over by now."""

    def __init__(self, plan: Plan, now: datetime) -> None:
        found = plan.grid.sessions((now - FAR).date(), now.date() + timedelta(days=1))
        self._over = [session for session in found if session.close <= now]

    def since(self, then: datetime) -> int:
        """How many closed after an instant."""
        return sum(session.close > then for session in self._over)

    def after(self, day: date) -> int:
        """How many came after a session."""
        return sum(session.date > day for session in self._over)


def _sessions(plan: Plan, lake: Lake) -> int:
    """Sessions from the first row of factors to the last."""
    table = names.table("factors", plan.horizon.name)
    held = lake.partitions(table)
    if not held:
        return 0
    edges = lake.scan(table).filter(pl.col("partition").is_in([held[0], held[-1]]))  # a tick reads no whole table
    ends = edges.select(first=pl.min("timestamp"), last=pl.max("timestamp")).collect()
    stamps = pl.concat([ends["first"], ends["last"]]).dt.replace_time_zone(None).to_numpy()
    first, last = plan.grid.session_dates(stamps).tolist()
    return len(plan.grid.dates(first, last))


def _trainings(instance: dg.DagsterInstance, plan: Plan, registry: Registry, calendar: _Closed) -> list[Training]:
    """Trainings that were asked for here, those that made a model, and one by hand under way; newest first.

    A model that is there was trained, though somebody deleted its run from the instance: the registry says when.
    """
    horizon = plan.horizon.name
    key = names.key(horizon, "model")
    records = instance.get_run_records(dg.RunsFilter(tags=_tags(horizon)), limit=PAST)
    runs = [record.dagster_run for record in records]
    again = {run.parent_run_id for run in runs}  # its process died, and Dagster started it once more
    canceled = {run.run_id for run in runs if run.status == dg.DagsterRunStatus.CANCELED}
    # Where Dagster found nobody to start it, as while the code server was gone, nothing was trained that could fail.
    canceled |= {record.dagster_run.run_id for record in records if record.start_time is None and record.end_time}
    found: dict[str, tuple[datetime, bool | None]] = {}
    for run in runs:
        if run.run_id not in again:
            done = run.is_success if run.is_finished else None
            found[run.run_id] = (datetime.fromisoformat(run.tags[ASKED]), done)
    for record in instance.fetch_materializations(key, limit=PAST).records:
        if record.run_id not in found and record.asset_materialization is not None:
            told = record.asset_materialization.metadata.get(TRAINED_AT)
            at = float(told.value) if isinstance(told, dg.TimestampMetadataValue) else record.timestamp
            found[record.run_id] = (datetime.fromtimestamp(at, UTC), True)
    for id in registry.bundles(horizon)[-PAST:]:
        made = registry.provenance(horizon, id)
        if "trained_at" in made and made.get("run", id) not in found:
            found[made.get("run", id)] = (datetime.fromisoformat(made["trained_at"]), True)
    planned = instance.get_latest_planned_materialization_info(key)
    run_now = instance.get_run_by_id(planned.run_id) if planned else None
    if run_now is not None and not run_now.is_finished and run_now.run_id not in found:
        found[run_now.run_id] = (max([at for at, _ in found.values()], default=datetime.fromtimestamp(0, UTC)), None)
    trainings = [Training(id, at, calendar.since(at), done, id in canceled) for id, (at, done) in found.items()]
    return sorted(trainings, key=lambda one: (one.done is None, one.at), reverse=True)


def _tags(horizon: str) -> dict[str, str]:
    """Of the runs that the sensor asks for."""
    return {HORIZON: horizon, WHAT: TRAIN}


def _drift(plan: Plan, lake: Lake, reports: Reports, calendar: _Closed, champion: str) -> Failed | None:
    """The newest session's check, where it failed for this champion."""
    rows = drift_history.newest(plan, lake)
    if rows.is_empty() or rows["champion"][0] != champion or not rows["failed"][0]:
        return None
    url = reports.check(plan.horizon.name, "drift", names.NO_DRIFT)
    day = rows["session"][0]
    why = f"drift check of session {day}: {drift_page.verdict(rows)}"
    report = reports.page(plan.horizon.name, drift_page.file(day))
    return Failed(why, calendar.after(day), url, report, rows["rate"][0])


def _decay(plan: Plan, lake: Lake, reports: Reports, calendar: _Closed, champion: str) -> Failed | None:
    """The newest test of realized scores, where it failed for this champion."""
    rows = realized_drift.history(plan, lake).tail(1)
    if rows.is_empty() or rows["champion"][0] != champion or not rows["failed"][0]:
        return None
    url = reports.check(plan.horizon.name, names.REALIZED, names.AS_PROMISED)
    day = rows["session"][0]
    report = reports.page(plan.horizon.name, realized_drift.PAGE)
    return Failed(f"realized scores up to {day}: {rows['why'][0]}", calendar.after(day), url, report)
