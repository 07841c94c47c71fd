"""What is wrong now, as facts: read from Dagster's instance, the lake, the ledger and the services; changes nothing."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import dagster as dg
import polars as pl
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus as Status

from assets import names
from assets.plan import Plan
from assets.reports import Reports
from conf.alerting import Alerts, Kind
from conf.schema import Horizon
from defs.due import awaited, end_of
from defs.retraining import policy_of
from defs.retraining_facts import facts_of
from defs.service import another_store, service_link
from quant.retraining import decide
from resources.alert_rules import Fact
from resources.inference import Inference, InferenceError
from resources.lake import Lake
from resources.registry import Registry

LONGEST = 300  # characters of a reason
SILENCE = 5.0  # seconds that a service may take for its health
UNFINISHED = (
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
    dg.DagsterRunStatus.CANCELED,
)


@dataclass(frozen=True)
class World:
    """Where facts are read. services: addresses; now: by the Clock."""

    instance: dg.DagsterInstance
    lake: Lake
    registry: Registry
    reports: Reports
    services: Sequence[str]
    now: datetime


def known(fact: Callable[[], Fact], kind: Kind, horizon: str, what: str) -> Fact:
    """A fact; where it cannot be read because something is broken, that is what is wrong."""
    try:
        return fact()
    except Exception as error:  # one damaged table or ledger must not silence every other alert
        return Fact(kind, horizon, what, True, _short(f"cannot be told: {type(error).__name__}: {error}"))


def data_late(world: World, plan: Plan, horizons: Mapping[str, Horizon]) -> Fact:
    """Whether a bar that should be in the table by now is not. A horizon that was never materialized is not late."""
    horizon = plan.horizon.name
    until, newest = awaited(plan, horizons, world.now), newest_end(world.lake, plan)
    why = "there are no bars yet" if newest is None else f"the newest bar ended {newest:%Y-%m-%d %H:%M} UTC"
    late = until is not None and newest is not None and newest < until
    if late and until is not None:
        why += f", and one to {until:%Y-%m-%d %H:%M} should be here"
    return Fact("data_late", horizon, "bars", late, why, world.reports.asset(horizon, "bars"))


def not_loaded(world: World, horizon: str, why: str) -> Fact:
    """That no bars come, for a file of the horizon could not be read when the code location was loaded."""
    told = f"not loaded, and is not refreshed: {why}"
    return Fact("data_late", horizon, "bars", True, _short(told), world.reports.asset(horizon, "bars"))


def newest_end(lake: Lake, plan: Plan) -> datetime | None:
    """When the newest bar of the table ended."""
    table = names.table("bars", plan.horizon.name)
    for partition in reversed(lake.partitions(table)):
        stamp = lake.scan(table).filter(pl.col("partition") == partition).select(pl.max("timestamp")).collect().item()
        if stamp is not None:
            return end_of(plan.grid, stamp)
    return None


def runs_failed(world: World, keys: Sequence[dg.AssetKey]) -> Iterator[Fact]:
    """Per step, whether the newest run that was to materialize it failed before it did."""
    records = {record.asset_entry.asset_key: record.asset_entry for record in world.instance.get_asset_records(keys)}
    told: dict[str, str] = {}
    for key in keys:
        entry, (horizon, step) = records.get(key), key.path
        run = world.instance.get_run_by_id(entry.last_run_id) if entry and entry.last_run_id else None
        if run is None or entry is None:
            yield Fact("run_failed", horizon, step, None if entry else False)
            continue
        made = entry.last_materialization is not None and entry.last_materialization.run_id == run.run_id
        holds = (
            None if run.status in UNFINISHED and not made else run.status == dg.DagsterRunStatus.FAILURE and not made
        )
        if holds and run.run_id not in told:
            told[run.run_id] = failure(world.instance, run.run_id)
        yield Fact("run_failed", horizon, step, holds, told.get(run.run_id, ""), world.reports.run(run.run_id))


def failure(instance: dg.DagsterInstance, run: str) -> str:
    """Why a run failed: the innermost cause of the first step that did, else what Dagster says of the run."""
    events = instance.get_records_for_run(
        run, of_type={dg.DagsterEventType.STEP_FAILURE, dg.DagsterEventType.RUN_FAILURE}
    ).records
    for record in events:
        event = record.event_log_entry.dagster_event
        error = getattr(event.event_specific_data, "error", None) if event else None
        while error is not None and error.cause is not None:
            error = error.cause
        said = error.message if error is not None else event.message if event else None
        if said:
            return _short(said)
    return "the run failed and said nothing"


def checks_failed(world: World, keys: Sequence[dg.AssetCheckKey], rules: Alerts) -> Iterator[Fact]:
    """Per check, whether its newest result failed with at least the severity that is told."""
    newest = world.instance.event_log_storage.get_latest_asset_check_execution_by_key(keys)
    for key in keys:
        record, (horizon, step) = newest.get(key), key.asset_key.path
        what = f"{step}: {key.name.replace('_', ' ')}"
        page = world.reports.check(horizon, step, key.name)
        event = record.event.dagster_event if record and record.event else None
        if record is None or event is None or record.status == Status.PLANNED:
            yield Fact("check_failed", horizon, what, False if record is None else None, "", page)
            continue
        result: dg.AssetCheckEvaluation = event.asset_check_evaluation_data
        failed = not result.passed and (rules.severity == "WARN" or result.severity == dg.AssetCheckSeverity.ERROR)
        report = result.metadata.get("report")
        link = str(report.value) if report is not None else page
        yield Fact("check_failed", horizon, what, failed, _told(result) if failed else "passes", link)


def retraining_stopped(world: World, plan: Plan) -> Fact:
    """Whether the policy gave up training the horizon's models by itself."""
    horizon = plan.horizon.name
    facts = facts_of(world.instance, plan, world.lake, world.registry, world.reports, world.now)
    told = decide(facts, policy_of(plan), world.now)
    link = world.reports.run(facts.trainings[0].id) if facts.trainings else None
    return Fact("retraining_stopped", horizon, "model", told.stopped, _short(told.why), link)


def services_stale(world: World, plans: Mapping[str, Plan], rules: Mapping[str, Alerts]) -> Iterator[Fact]:
    """Per service and horizon: whether it answers, serves the ledger's champion, and has the table's bars."""
    for url in world.services:
        told = _health(url)
        for horizon, plan in plans.items():
            yield known(
                partial(_served, world, plan, url, told, rules[horizon]), "service_stale", horizon, f"service {url}"
            )


def _served(world: World, plan: Plan, url: str, told: dict[str, Any] | str, rules: Alerts) -> Fact:
    why = told if isinstance(told, str) else _another(world, plan, url, told) or _stale(world, plan, told, rules)
    says = why or "serves the champion"
    link = f"{service_link(plan.horizon.serving, url)}/health"
    return Fact("service_stale", plan.horizon.name, f"service {url}", why is not None, says, link)


def _health(url: str) -> dict[str, Any] | str:
    """The health of a service, or why there is none."""
    with Inference(url, timeout=SILENCE) as service:
        try:
            told = service.health()
        except (InferenceError, ValueError) as error:  # ValueError: something that is not JSON answers there
            return _short(str(error))
    return told if isinstance(told, dict) and "horizons" in told else f"what answers at {url} is no Tenor service"


def _another(world: World, plan: Plan, url: str, health: Mapping[str, Any]) -> str | None:
    theirs = another_store(plan.horizon.serving, url, health, world.reports.root)
    return None if theirs is None else f"serves another store, {theirs}"


def _stale(world: World, plan: Plan, health: Mapping[str, Any], rules: Alerts) -> str | None:
    """What is stale of one horizon in a service's health, None where nothing is."""
    entry = world.registry.champion(plan.horizon.name)
    if entry is None:
        return None
    served = health["horizons"].get(plan.horizon.name)
    if served is not None and served["status"] == "unloaded":
        return None  # somebody took it out of this service, and knows
    if served is None or served["number"] is None:
        return f"serves nothing, and the ledger says number {entry.number}"
    if served["number"] != entry.number:
        because = f": {served['problem']}" if served["problem"] else ""
        return _short(f"serves number {served['number']}, and the ledger says {entry.number}{because}")
    days = (world.now - entry.at) / timedelta(days=1)
    if rules.model_days is not None and days > rules.model_days:
        return f"its model serves for {days:.0f} days, and alerts.model_days is {rules.model_days:g}"
    if served["newest_bar"] is None:
        return None
    end = end_of(plan.grid, datetime.fromisoformat(served["newest_bar"]).astimezone(UTC))
    newest = newest_end(world.lake, plan)
    if newest is not None and end < newest:
        return f"its newest bar ended {end:%Y-%m-%d %H:%M} UTC, and the table has one to {newest:%Y-%m-%d %H:%M}"
    return None


def _told(result: dg.AssetCheckEvaluation) -> str:
    """A failed check in a few words: what it says itself, or else what it measured."""
    if result.description:
        return _short(result.description)
    links = (dg.UrlMetadataValue, dg.PathMetadataValue)
    found = {name: entry.value for name, entry in result.metadata.items() if not isinstance(entry, links)}
    numbers = (
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}" for name, value in found.items()
    )
    return _short("; ".join(numbers) or "fails")


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…"
