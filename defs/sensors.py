"""Sensors that read what is there, never one event: the promotion ledger, and how far the tables are."""

import json
from collections.abc import Sequence

import dagster as dg

from assets import names
from assets.outcomes import LOG
from resources.lake import Lake
from resources.registry import Registry

SECONDS = 5
PAUSE = 60  # seconds between looks for new bars: realized scores are in no hurry


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


def score_answers(horizons: Sequence[str]) -> dg.SensorDefinition:
    """One run of `score_<horizon>` for each new version of the bars, where the service has answered anything.

    The outcome of an answer becomes known with the bars of its look-ahead: realized scores follow them. The cursor
    holds the last version seen per horizon; a table made anew begins with another.
    """

    @dg.sensor(
        name="score_answers",
        asset_selection=dg.AssetSelection.assets(*(names.key(horizon, names.OUTCOMES) for horizon in horizons)),
        minimum_interval_seconds=PAUSE,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="New bars score the answers whose outcome they tell.",
    )
    def sensor(context: dg.SensorEvaluationContext, lake: dg.ResourceParam[Lake]):
        seen = json.loads(context.cursor or "{}")
        requests = []
        for horizon in horizons:
            version = lake.version(names.table("bars", horizon))
            if version is None or seen.get(horizon) == version or not lake.exists(names.table(LOG, horizon)):
                continue
            seen[horizon] = version
            # No run key: after `tenor clean` versions begin again, and a version is asked for once by the cursor.
            requests.append(
                dg.RunRequest(
                    asset_selection=[names.key(horizon, names.OUTCOMES)],
                    tags={"tenor/horizon": horizon, "tenor/bars": str(version)},
                )
            )
        if not requests:
            return dg.SkipReason("no new bars where the service has answered")
        return dg.SensorResult(run_requests=requests, cursor=json.dumps(seen))

    return sensor
