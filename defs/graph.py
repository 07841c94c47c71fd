"""Config in, Dagster definitions out: the steps of every horizon, their jobs, and what they run with."""

import logging
import warnings
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial
from pathlib import Path

import dagster as dg

from assets import (
    bars,
    deployment,
    derived,
    drift,
    evaluation,
    factors,
    features,
    model,
    names,
    outcomes,
    partitions,
    realized_drift,
    vectors,
)
from assets.plan import Plan
from assets.reports import Reports
from conf.refreshing import Off
from conf.schema import Horizon
from defs import unreadable, vacuuming
from defs.alerting import tell_alerts
from defs.automation import FOLLOWS, automated, follower
from defs.deploying import deploy_champions
from defs.priority import priority, training_priority
from defs.refresh import refresh
from defs.retraining import retrain
from defs.service import service_link, ui_link, url_of, urls_of
from resources.arrivals import Arrivals
from resources.clock import Clock, clock_of_environment
from resources.database import Database
from resources.instances import Instances
from resources.lake import Lake
from resources.progress import LoggedProgress, Progress
from resources.registry import Registry
from resources.settings import Settings
from resources.sources import SourceError
from resources.studies import Studies
from resources.vectors import Vectors

Loaded = tuple[list[dg.AssetsDefinition], list[dg.SensorDefinition]]
log = logging.getLogger(__name__)


def build(
    horizons: Mapping[str, Horizon],
    *,
    clock: Clock | None = None,
    progress: Progress | None = None,
    service: str | None = None,
    logger: dg.LoggerDefinition | None = None,
    spare: bool = False,
) -> dg.Definitions:
    """The definitions of these horizons. A horizon that others resample must be among them.

    service: address of the one service that deployments go to, by default those that `serving` names. Errors of a
    config or expressions are raised here, before anything runs; and so is a SourceError of files that cannot be read,
    but where `spare` lets the other horizons load, and the steps of this one say why (defs/unreadable.py).
    """
    # Dagster marks as beta what we use on purpose; a user can do nothing about it.
    warnings.filterwarnings("ignore", category=dg.BetaWarning)
    clock = clock or clock_of_environment()
    first = next(iter(horizons.values()))
    root = Path(first.store.root).resolve()
    services = [service] if service else urls_of(first.serving)
    assets: list[dg.AssetsDefinition] = []
    jobs = []
    sensors: list[dg.SensorDefinition] = []
    plans = {name: Plan(horizon) for name, horizon in horizons.items()}
    made, lost = {}, {}
    for name, plan in plans.items():
        try:
            made[name] = _loaded(plan, horizons, clock.now())
        except SourceError as error:
            if not spare:
                raise
            lost[name] = str(error)
    lost = unreadable.with_readers(plans, lost)
    for name, plan in plans.items():
        if name in lost:
            log.error("%s is not loaded: %s", name, lost[name])
            needed = {one: horizons[one] for one in unreadable.needed(plans, name)}
            made[name] = _told(plan, lost[name], partial(build, needed, clock=clock))
        assets += made[name][0]
        sensors += made[name][1]
        jobs += [
            _job(name, "bars", ("bars",), priority(plan)),
            _job(name, "refresh", names.REFRESH, {FOLLOWS: name, **priority(plan)}),
            _job(name, "train", names.TRAIN, training_priority(plan)),
            _job(name, "drift", ("drift",), priority(plan)),
            _job(name, "deploy", ("deployment",), priority(plan)),
            _job(name, "score", (names.OUTCOMES, names.REALIZED), priority(plan)),
        ]
    return dg.Definitions(
        assets=assets,
        jobs=jobs,
        sensors=[
            *sensors,
            deploy_champions(list(horizons)),
            tell_alerts(plans, assets, root, urls_of(first.serving), lost),
        ],
        # Imports cost seconds per process: the steps of a run share one.
        executor=dg.in_process_executor,
        loggers={"display": logger} if logger else None,
        resources={
            "settings": Settings(),
            "clock": clock,
            "studies": Studies(root),
            "progress": progress or LoggedProgress(),
            "lake": Lake(f"{root}/lake"),
            "registry": Registry(root, clock),
            "arrivals": Arrivals(root),
            "store": Vectors(Database(root)),
            "instances": Instances(services),
            "reports": Reports(root, service_link(first.serving, url_of(first.serving)), ui_link(first.serving)),
        },
    )


def _loaded(plan: Plan, horizons: Mapping[str, Horizon], now: datetime) -> Loaded:
    """A horizon's steps and its own sensors; SourceError where a file that shapes them cannot be read."""
    first, last = partitions.span(plan, horizons, now)
    parts = partitions.definition(plan, first, last, now.date())
    assets = automated(plan, steps(plan, parts), now, goes_on=last is None)
    if isinstance(plan.horizon.automation, Off):
        return assets, []
    fetched = [] if plan.finer else [refresh(plan, horizons, parts)]
    return assets, [*fetched, follower(plan), retrain(plan), vacuuming.vacuums(plan)]


def _told(plan: Plan, why: str, load: Callable[[], object]) -> Loaded:
    """The same of a horizon that cannot be loaded."""
    off = isinstance(plan.horizon.automation, Off)
    return unreadable.steps(plan, why), [] if off else [unreadable.retry(plan, load), vacuuming.vacuums(plan)]


def steps(plan: Plan, parts: dg.TimeWindowPartitionsDefinition) -> list[dg.AssetsDefinition]:
    return [
        bars.build(plan, parts),
        derived.build(features.STEP, plan, parts),
        derived.build(factors.STEP, plan, parts),
        vectors.build(plan, parts),
        drift.build(plan, parts),
        model.build(plan),
        evaluation.build(plan),
        deployment.build(plan),
        outcomes.build(plan),
        realized_drift.build(plan),
        vacuuming.build(plan),
    ]


# Dagster does not export the type of a job that is not resolved yet.
def _job(horizon: str, what: str, of: tuple[str, ...], tags: Mapping[str, str]):  # type: ignore[no-untyped-def]
    return dg.define_asset_job(
        names.job(horizon, what),
        selection=dg.AssetSelection.assets(*(names.key(horizon, step) for step in of)),
        tags={"tenor/horizon": horizon, **tags},
    )
