"""The sensor that hands each new champion to the service: it reads the promotion ledger, never one event."""

import json
from collections.abc import Sequence

import dagster as dg

from assets import names
from resources.registry import Registry

SECONDS = 5


def deploy_champions(horizons: Sequence[str]) -> dg.SensorDefinition:
    """One run of `deploy_<horizon>` for the newest ledger entry, however many events a tick missed.

    The cursor holds the last entry seen per horizon: its number and its time, for `tenor clean` takes the ledger, whose
    numbers then start anew, and may leave the database with this cursor. A failed tick keeps its cursor and is tried
    again.
    """

    @dg.sensor(
        name="deploy_champions",
        asset_selection=dg.AssetSelection.assets(*(names.key(horizon, "deployment") for horizon in horizons)),
        minimum_interval_seconds=SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="A new entry of the promotion ledger makes the service load and serve it.",
    )
    def sensor(context: dg.SensorEvaluationContext, registry: dg.ResourceParam[Registry]):
        seen = json.loads(context.cursor or "{}")
        requests = []
        for horizon in horizons:
            entry = registry.champion(horizon)
            if entry is None or seen.get(horizon) == (this := f"{entry.number} {entry.at.isoformat()}"):
                continue
            seen[horizon] = this
            requests.append(
                dg.RunRequest(
                    run_key=f"{horizon} {this}",
                    asset_selection=[names.key(horizon, "deployment")],
                    tags={
                        "tenor/horizon": horizon,
                        "tenor/ledger": str(entry.number),
                        "tenor/why": entry.why[:200],
                    },
                )
            )
        if not requests:
            return dg.SkipReason("the ledger has no new champion")
        return dg.SensorResult(run_requests=requests, cursor=json.dumps(seen))

    return sensor
