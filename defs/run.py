"""`tenor run` and `tenor refresh`: horizons from bars to a served prediction, or to their tables, in this process.

The runs are recorded in the Dagster instance.
"""

import os
import shlex
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import dagster as dg
import polars as pl
from rich.console import Console

from assets import names, partitions, replay
from assets.plan import Plan
from conf.compose import asked, compose, split
from conf.schema import Horizon
from defs.display import Display
from defs.graph import build
from defs.look import root_of
from defs.processes import Processes
from defs.service import start_service
from defs.summary import print_summary
from resources.clock import clock_of_environment
from resources.dagster_storage import instance
from resources.inference import Inference, InferenceError, Predicted
from resources.lake import Lake
from resources.registry import Registry
from resources.run_launcher import machine
from resources.settings import OVERRIDES_VARIABLE

RANGE_START, RANGE_END = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"
INTERRUPTED = "DagsterExecutionInterruptedError"


@dataclass
class Outcome:
    """What the run of one horizon came to."""

    horizon: str
    metadata: dict[str, Mapping[str, dg.MetadataValue]] = field(default_factory=dict)  # by step
    warnings: dict[str, dg.AssetCheckEvaluation] = field(default_factory=dict)  # checks that did not pass, by name
    failures: list[str] = field(default_factory=list)
    predicted: Predicted | None = None


def run(overrides: Sequence[str]) -> int:
    """Materialize every step of the horizons; 0 when each ends with a served prediction, 1 when a step failed."""
    horizons = compose(overrides)
    first = next(iter(horizons.values()))
    with Processes() as processes:
        # The service starts while the first steps run: it takes a few seconds to import.
        url = start_service(processes, root_of(first), first.serving)
        return materialize(overrides, horizons, lambda runner, horizon: runner.whole(horizon, url), url)


def refresh(overrides: Sequence[str]) -> int:
    """Bring the tables of the horizons up to date, and train nothing; 0 when every step succeeded, else 1."""
    return materialize(overrides, compose(overrides), lambda runner, _: runner.tables())


def materialize(
    overrides: Sequence[str],
    horizons: Mapping[str, Horizon],
    each: Callable[["Runner", Horizon], object],
    service: str | None = None,
) -> int:
    began = time.monotonic()
    console = own_console()
    structural, values = split(overrides)
    os.environ[OVERRIDES_VARIABLE] = shlex.join(structural)
    root, clock = root_of(next(iter(horizons.values()))), clock_of_environment()
    with instance(root) as stored, Display(console) as display:
        graph = build(horizons, clock=clock, progress=display, service=service, logger=display.logger())
        made: dict[str, Outcome] = {}
        for name, what in order(horizons, asked(overrides)):
            last = partitions.newest(Plan(horizons[name]), horizons, clock.now())
            runner = Runner(graph, stored, values, made.setdefault(name, Outcome(name)), last)
            if what == "bars":
                runner.only_bars()
            else:
                each(runner, horizons[name])
            if runner.outcome.failures:
                break
        outcomes = [made[name] for name in horizons if name in made]
    print_summary(console, outcomes, seconds=time.monotonic() - began)
    return 1 if any(outcome.failures for outcome in outcomes) else 0


def order(horizons: Mapping[str, Horizon], wanted: Collection[str]) -> list[tuple[str, str]]:
    """What to run of which horizon ("bars" or "whole"): the bars that one resamples or reads come before it."""
    steps: list[tuple[str, str]] = []

    def bars(name: str) -> None:
        if name != "source" and all(done != name for done, _ in steps):
            bars(horizons[name].bars.from_)
            steps.append((name, "bars"))

    # Whose bars others need goes first: then its bars are not made apart.
    needed = {other for name in wanted for other in (horizons[name].bars.from_, *(horizons[name].at or ()))}
    for name in sorted((name for name in horizons if name in wanted), key=lambda name: name not in needed):
        for other in (horizons[name].bars.from_, *(horizons[name].at or ())):
            bars(other)
        steps.append((name, "whole"))
    return steps


def own_console() -> Console:
    """A console on a descriptor of its own: while a step runs, Dagster captures what is written to stdout."""
    return Console(file=os.fdopen(os.dup(1), "w", encoding="utf-8"))


@dataclass
class Runner:
    """Runs the jobs of one horizon and gathers what they report; last: the newest session that there are bars of."""

    graph: dg.Definitions
    stored: dg.DagsterInstance
    values: list[str]
    outcome: Outcome
    last: date | None

    def only_bars(self) -> None:
        self._job("bars", partitioned=True)

    def tables(self, span: tuple[str, str] | None = None) -> bool:
        """Bars, features, factors and what is made of them; span: first and last partition, all of them by default."""
        return self._job("refresh", partitioned=True, span=span)

    @property
    def keys(self) -> list[str]:
        """The partitions of the horizon's tables that there are bars for."""
        parts = self.graph.resolve_job_def(names.job(self.outcome.horizon, "bars")).partitions_def
        assert parts is not None
        return [] if self.last is None else [key for key in parts.get_partition_keys() if key <= str(self.last)]

    def whole(self, horizon: Horizon, url: str) -> None:
        """Refresh, train, deploy, and ask the service for a prediction; stops at the first failure."""
        done = self.tables() and self._job("train") and self._job("deploy")
        if done and "skipped" in self.outcome.metadata["drift"]:
            # The first run had no bundle to compare with when drift was due; now there is one.
            done = self._job("drift", partitioned=True)
        if done:
            try:
                with Inference(url) as inference:
                    self.outcome.predicted = inference.predict_rows(horizon.name, self.newest(horizon))
            except InferenceError as error:
                self.outcome.failures.append(f"prediction: {error}")

    def newest(self, horizon: Horizon) -> pl.DataFrame:
        """The factor rows of the newest section, as the bundle that serves reads them."""
        lake = Lake(f"{root_of(horizon)}/lake")
        served, trained = (self.outcome.metadata[step]["bundle"].value for step in ("deployment", "model"))
        if served != trained:
            # A champion that was not beaten may have other factors than those of the table.
            champion = Registry(root_of(horizon)).load(horizon.name, str(served))
            return replay.newest(Plan(horizon), lake, champion)
        table = lake.scan(names.table("factors", horizon.name))
        newest = table.filter(pl.col("timestamp") == pl.col("timestamp").max()).collect()
        return newest.drop("known_at", "partition").sort("symbol")

    def _job(self, what: str, *, partitioned: bool = False, span: tuple[str, str] | None = None) -> bool:
        name = names.job(self.outcome.horizon, what)
        job = self.graph.resolve_job_def(name)
        tags = machine()
        if partitioned:
            if not self.keys:
                self.outcome.failures.append("bars: none has ended yet, there is nothing to make")
                return False
            first, last = span or (self.keys[0], self.keys[-1])
            tags |= {RANGE_START: first, RANGE_END: last}
        config: dict[str, Any] = {"loggers": {"display": {}}}
        if self.values:
            config["resources"] = {"settings": {"config": {"overrides": self.values}}}
        result = job.execute_in_process(config, instance=self.stored, tags=tags, raise_on_error=False)
        failures = result.filter_events(lambda event: event.is_step_failure)
        errors = [event.step_failure_data.error for event in failures]
        if any(error is not None and error.cls_name == INTERRUPTED for error in errors):
            raise KeyboardInterrupt
        for event in result.get_asset_materialization_events():
            made = event.step_materialization_data.materialization
            self.outcome.metadata[made.asset_key.path[-1]] = made.metadata
        for check in result.get_asset_check_evaluations():
            self.outcome.warnings.pop(check.check_name, None)
            if not check.passed:
                self.outcome.warnings[check.check_name] = check
        for event in failures:
            step = str(event.step_key).rpartition("__")[2]
            self.outcome.failures.append(f"{step}: {_reason(event.step_failure_data)}")
        if not result.success and not self.outcome.failures:
            self.outcome.failures.append(f"{name} failed; its log is in the Dagster UI, run {result.run_id}")
        return result.success


def _reason(failure: Any) -> str:
    """What the code that failed had to say: the innermost error's message, without the name of its class."""
    if failure.user_failure_data is not None:
        return str(failure.user_failure_data.description)
    error = failure.error
    while error.cause is not None:
        error = error.cause
    message = str(error.message).strip()
    _, named, said = message.partition(f"{error.cls_name}: ")
    return said if named else message
