"""The sensor that keeps deployments: ledger and services decide, and nothing is kept in a cursor."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import cast

import dagster as dg

from assets import names
from assets.deployment import ENTRY, LOOKED, SERVED, entry_text
from defs.priority import deployment_priority
from defs.refresh import HORIZON, WHAT
from resources.clock import Clock
from resources.instances import Instances, of
from resources.registry import Entry, Registry, RegistryError

SECONDS = 15
DEPLOY = "deploy"
PAUSE = timedelta(minutes=1)  # at least, between two looks at services that come and go under the same champion
IN_PROGRESS = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]

Numbers = Mapping[str, int | None]


@dataclass(frozen=True)
class Told:
    """What the newest deployment said: of which entry, what each service then served, when, in which run."""

    entry: str
    served: Numbers
    looked: datetime
    run: str


def deploy_champions(horizons: Sequence[str]) -> dg.SensorDefinition:
    """One run of a horizon's deployment where the ledger, or what a service serves, is not what it told last.

    Missed ticks lose nothing: the next one compares the same things. A run that failed is not asked for again until one
    of them changes, for they and the deployment before are its key.
    """

    @dg.sensor(
        name="deploy_champions",
        asset_selection=dg.AssetSelection.assets(*(names.key(horizon, "deployment") for horizon in horizons)),
        minimum_interval_seconds=SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="A new entry of the ledger makes every service load and serve it; who comes or goes is told too.",
    )
    def sensor(
        context: dg.SensorEvaluationContext,
        clock: dg.ResourceParam[Clock],
        registry: dg.ResourceParam[Registry],
        instances: dg.ResourceParam[Instances],
    ):
        champions, damaged = _champions(registry, horizons)
        if not champions and not damaged:
            return dg.SkipReason("the ledger has no champion")
        looked = dict(zip(instances.urls, instances.look(), strict=True))
        requests = []
        for horizon, entry in champions.items():
            served = {url: of(found, url, horizon).number for url, found in looked.items()}
            before = last_told(context.instance, horizon)
            if wanted(entry, served, before, clock.now()) and not _under_way(context.instance, horizon):
                requests.append(_request(horizon, entry, served, before))
        if damaged and not requests:  # a tick that fails asks for nothing: first what the other horizons need
            raise RegistryError("; ".join(damaged))
        return requests or dg.SkipReason("every service serves what the newest deployments say")

    return sensor


def _champions(registry: Registry, horizons: Sequence[str]) -> tuple[dict[str, Entry], list[str]]:
    """The newest entry by horizon, and what is wrong with the ledgers that cannot tell theirs."""
    found: dict[str, Entry] = {}
    damaged: list[str] = []
    for horizon in horizons:
        try:
            if (entry := registry.champion(horizon)) is not None:
                found[horizon] = entry
        except RegistryError as error:
            damaged.append(str(error))
    return found, damaged


def wanted(entry: Entry, served: Numbers, before: Told | None, now: datetime) -> bool:
    """Whether the deployment is to be made: it never was, another entry is the newest, or services changed."""
    if before is None or before.entry != entry_text(entry):
        return True
    return before.served != served and not before.looked <= now < before.looked + PAUSE


def last_told(instance: dg.DagsterInstance, horizon: str) -> Told | None:
    """What the newest deployment said; None where there was none, or one of an older Tenor."""
    event = instance.get_latest_materialization_event(names.key(horizon, "deployment"))
    if event is None or event.asset_materialization is None:
        return None
    found = {name: value.value for name, value in event.asset_materialization.metadata.items()}
    if SERVED not in found:
        return None
    looked = datetime.fromisoformat(str(found[LOOKED]))
    return Told(str(found[ENTRY]), cast(Numbers, found[SERVED]), looked, event.run_id)


def _under_way(instance: dg.DagsterInstance, horizon: str) -> bool:
    tags = {HORIZON: horizon, WHAT: DEPLOY}
    return bool(instance.get_runs(dg.RunsFilter(tags=tags, statuses=IN_PROGRESS), limit=1))


def _request(horizon: str, entry: Entry, served: Numbers, before: Told | None) -> dg.RunRequest:
    seen = hashlib.sha256(json.dumps(served, sort_keys=True).encode()).hexdigest()[:8]
    return dg.RunRequest(
        run_key=f"{horizon} {entry_text(entry)} {seen} after {before.run if before else 'nothing'}",
        asset_selection=[names.key(horizon, "deployment")],
        tags={
            HORIZON: horizon,
            WHAT: DEPLOY,
            "tenor/ledger": str(entry.number),
            "tenor/why": entry.why[:200],
            **deployment_priority(),
        },
    )
