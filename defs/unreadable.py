"""Horizons that cannot be loaded, for their files cannot be read: steps that fail with the reason, and who tells it."""

from collections.abc import Callable, Mapping

import dagster as dg

from assets import deployment, names
from assets.plan import Plan
from defs import vacuuming
from resources.sources import SourceError

SECONDS = 60
# Deployment and vacuum, which need none of these files, stay what they are.
STEPS = (*names.REFRESH, *names.TRAIN, names.OUTCOMES, names.REALIZED)
CHECKS = {  # a run in the queue names the checks that it makes
    "bars": names.BARS_ACCOUNTED,
    "features": names.FEATURES_VALID,
    "factors": names.FACTORS_VALID,
    "drift": names.NO_DRIFT,
    names.REALIZED: names.AS_PROMISED,
}


def with_readers(plans: Mapping[str, Plan], lost: Mapping[str, str]) -> dict[str, str]:
    """Why a horizon cannot be loaded, by name: what is wrong with it, or with one that it reads."""
    found = dict(lost)
    while more := {
        name: f"it reads {other}, which is not loaded: {found[other]}"
        for name, plan in plans.items()
        for other in plan.reads
        if name not in found and other in found
    }:
        found |= more
    return found


def needed(plans: Mapping[str, Plan], name: str) -> set[str]:
    """The horizon, and all that have to be loaded with it."""
    found, more = set[str](), {name}
    while more:
        found |= more
        more = {other for one in more for other in plans[one].reads} - found
    return found


def steps(plan: Plan, why: str) -> list[dg.AssetsDefinition]:
    """The horizon's steps under their usual keys: whoever asks for one, by hand or in the queue, is told why."""
    failing = [_failing(plan.horizon.name, step, why) for step in STEPS]
    return [*failing, deployment.build(plan), vacuuming.build(plan)]


def _failing(horizon: str, step: str, why: str) -> dg.AssetsDefinition:
    about = f"**Not loaded**, for a file cannot be read: {why}"

    @dg.asset(
        key=names.key(horizon, step),
        group_name=names.group(horizon),
        description=about,
        check_specs=[names.check(horizon, step, CHECKS[step], about)] if step in CHECKS else [],
    )
    def failing():
        raise SourceError(why)

    return failing


def retry(plan: Plan, load: Callable[[], object]) -> dg.SensorDefinition:
    """The sensor `refresh_<horizon>` meanwhile: its ticks fail with the reason, and tell when the files can be read.

    load: raises SourceError while they cannot.
    """
    horizon = plan.horizon.name

    @dg.sensor(
        name=f"refresh_{horizon}",
        asset_selection=dg.AssetSelection.assets(names.key(horizon, "bars")),
        minimum_interval_seconds=SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"{horizon} is not loaded, for a file cannot be read: each tick tries again, and says why.",
    )
    def sensor() -> None:
        load()
        raise SourceError(
            f"{horizon} can be read now, and could not when it was to be loaded: reload the code location (Deployment "
            "in the UI), or start `tenor up` anew"
        )

    return sensor
