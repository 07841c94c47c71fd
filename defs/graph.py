"""Config in, Dagster definitions out: the steps of every horizon, their jobs, and what they run with."""

import warnings
from collections.abc import Mapping
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
    vectors,
)
from assets.plan import Plan
from assets.reports import Reports
from conf.schema import Horizon
from defs.sensors import deploy_champions, score_answers
from defs.service import url_of
from resources.arrivals import Arrivals
from resources.clock import Clock, SystemClock
from resources.database import Database
from resources.inference import Inference
from resources.lake import Lake
from resources.progress import LoggedProgress, Progress
from resources.registry import Registry
from resources.settings import Settings
from resources.studies import Studies
from resources.vectors import Vectors


def build(
    horizons: Mapping[str, Horizon],
    *,
    clock: Clock | None = None,
    progress: Progress | None = None,
    service: str | None = None,
    logger: dg.LoggerDefinition | None = None,
) -> dg.Definitions:
    """The definitions of these horizons. A horizon that others resample must be among them.

    service: address of the service that deployments go to, by default the one `serving` names. Errors of a config or
    expressions are raised here, before anything runs.
    """
    # Dagster marks as beta what we use on purpose; a user can do nothing about it.
    warnings.filterwarnings("ignore", category=dg.BetaWarning)
    clock = clock or SystemClock()
    first = next(iter(horizons.values()))
    root = Path(first.store.root).resolve()
    url = url_of(first.serving)
    assets: list[dg.AssetsDefinition] = []
    jobs = []
    for name, horizon in horizons.items():
        plan = Plan(horizon)
        first_session, last_session = partitions.span(plan, horizons)
        parts = partitions.definition(plan, first_session, last_session, clock.now().date())
        assets += steps(plan, parts)
        jobs += [
            _job(name, "bars", ("bars",)),
            _job(name, "refresh", names.REFRESH),
            _job(name, "train", names.TRAIN),
            _job(name, "drift", ("drift",)),
            _job(name, "deploy", ("deployment",)),
            _job(name, "score", (names.OUTCOMES,)),
        ]
    return dg.Definitions(
        assets=assets,
        jobs=jobs,
        sensors=[deploy_champions(list(horizons)), score_answers(list(horizons))],
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
            "inference": Inference(service or url),
            "reports": Reports(root, url),
        },
    )


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
    ]


def _job(horizon: str, what: str, of: tuple[str, ...]):  # type: ignore[no-untyped-def]  # Dagster does not export it
    return dg.define_asset_job(
        names.job(horizon, what),
        selection=dg.AssetSelection.assets(*(names.key(horizon, step) for step in of)),
        tags={"tenor/horizon": horizon},
    )
