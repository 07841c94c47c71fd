"""What a tick of each sensor costs a store at rest: CPU of the process that evaluates it, and the share of a core.

bench/ticks.py [--horizons 5m,1h] [--sessions 252]      a made-up store on an embedded database; medians over --ticks
"""

import argparse
import os
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import dagster as dg

from assets import names, partitions
from assets.plan import Plan
from conf.compose import compose
from conf.schema import Horizon
from defs import alerting, automation, deploying, refresh, retraining
from defs.graph import build
from resources import dagster_storage
from resources.clock import FixedClock, SystemClock
from resources.database import Database
from resources.settings import OVERRIDES_VARIABLE

SMALL = ["features=[volatility]", "factors=[pass_through]", "source.symbols=2"]
VALUES = ["model.n_estimators=5", "folds.count=2", "drift.calibration_windows=4", "vectors.window=20"]
SECONDS = {
    "refresh": refresh.SECONDS, "follow": automation.SECONDS, "retrain": retraining.SECONDS,
    "deploy": deploying.SECONDS, "tell": alerting.SECONDS,
}  # fmt: skip


class Store:
    """Horizons whose tables, models and events are those of a store that ran for so many sessions."""

    def __init__(self, root: Path, horizons: str, sessions: int, instance: dg.DagsterInstance) -> None:
        self.words = [f"horizon={horizons}", *SMALL, f"source.sessions={sessions}", f"store.root='{root}'"]
        os.environ[OVERRIDES_VARIABLE] = shlex.join(self.words)
        self.horizons, self.instance = compose(self.words), instance
        plan = Plan(next(iter(self.horizons.values())))
        self.clock = FixedClock(SystemClock().now())
        last = partitions.newest(plan, self.horizons, self.clock.now())
        assert last is not None
        self.clock.set(plan.grid.sessions(last, last)[0].close + timedelta(hours=2))
        self.defs = build(self.horizons, clock=self.clock)
        self.repository = self.defs.get_repository_def()

    def fill(self) -> None:
        for name, horizon in self.horizons.items():
            keys = self._keys(horizon)
            span = {refresh.RANGE_START: keys[0], refresh.RANGE_END: keys[-1]}
            self._run(f"refresh_{name}", span)
            self._run(f"train_{name}", {})
            self._run(f"score_{name}", {})
            self._run(f"deploy_{name}", {})

    def _keys(self, horizon: Horizon) -> list[str]:
        plan = Plan(horizon)
        found = self.repository.assets_defs_by_key[names.key(horizon.name, "bars")].partitions_def
        assert found is not None
        last = partitions.newest(plan, self.horizons, self.clock.now())
        return [key for key in found.get_partition_keys() if key <= str(last)]

    def _run(self, job: str, tags: dict[str, str]) -> None:
        config = {
            "resources": {"settings": {"config": {"overrides": VALUES}}},
            "loggers": {"console": {"config": {"log_level": "ERROR"}}},
        }
        done = self.repository.get_job(job).execute_in_process(
            instance=self.instance, run_config=config, tags=tags, raise_on_error=True
        )
        assert done.success

    def sensor(self, name: str) -> Callable[[], object]:
        """One tick of a sensor."""
        found = self.repository.get_sensor_def(name)

        def tick() -> object:
            resources = {name: self.defs.resources[name] for name in found.required_resource_keys}  # type: ignore[index]
            with dg.build_sensor_context(
                instance=self.instance, repository_def=self.repository, resources=resources
            ) as context:
                return found.evaluate_tick(context)

        return tick

    def conditions(self, horizon: str) -> Callable[[], object]:
        """One tick of a horizon's conditions, each from where the last one ended."""
        keys = [names.key(horizon, step) for step in (*names.REFRESH, *automation.SCORES)]
        state: list[dg.AutomationConditionSensorDefinition | None] = [None]

        def tick() -> object:
            found = dg.evaluate_automation_conditions(
                defs=self.defs,
                instance=self.instance,
                asset_selection=dg.AssetSelection.assets(*keys),
                cursor=state[0],  # type: ignore[arg-type]
                evaluation_time=self.clock.now(),
            )
            state[0] = found.cursor  # type: ignore[assignment]
            return found

        return tick


def measured(tick: Callable[[], object], times: int) -> tuple[float, float]:
    """Median CPU and wall seconds of a tick, after two that nobody measures."""
    spent: list[tuple[float, float]] = []
    for number in range(times + 2):
        cpu, wall = time.process_time(), time.perf_counter()
        tick()
        if number >= 2:
            spent.append((time.process_time() - cpu, time.perf_counter() - wall))
    return statistics.median(cpu for cpu, _ in spent), statistics.median(wall for _, wall in spent)


def main(words: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--horizons", default="5m,1h")
    parser.add_argument("--sessions", type=int, default=252)
    parser.add_argument("--ticks", type=int, default=7)
    given = parser.parse_args(words)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as ends:
        os.environ["TENOR_HOME"] = folder
        ends.callback(Database(Path(folder)).release)  # the last to go: its folder goes next
        instance = ends.enter_context(dagster_storage.instance(Path(folder)))
        store = Store(Path(folder), given.horizons, given.sessions, instance)
        store.fill()
        total = 0.0
        print(f"{given.horizons}, {given.sessions} sessions, at rest")
        ticks = {name: store.sensor(name) for name in ("deploy_champions", "tell_alerts")}
        for horizon in store.horizons:
            if store.repository.has_sensor_def(f"refresh_{horizon}"):
                ticks[f"refresh_{horizon}"] = store.sensor(f"refresh_{horizon}")
            ticks |= {
                f"follow_{horizon}": store.conditions(horizon),
                f"retrain_{horizon}": store.sensor(f"retrain_{horizon}"),
            }
        for name, tick in ticks.items():
            cpu, wall = measured(tick, given.ticks)
            share = cpu / SECONDS[name.partition("_")[0]]
            total += share
            print(f"{name:18} {cpu * 1e3:7.0f} ms CPU {wall * 1e3:7.0f} ms wall   {share:6.2%} of a core", flush=True)
        print(f"{'all':18} {'':32} {total:6.2%} of a core")


if __name__ == "__main__":
    main(sys.argv[1:])
