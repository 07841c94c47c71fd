"""A store in which the loop goes round, session by session, for tests of what comes of it."""

from datetime import date, timedelta
from typing import Any

import dagster as dg
import polars as pl

from assets import names
from assets.layout import layout_of
from assets.reports import Reports
from defs.graph import build
from tests.assets.conftest import SMALL, Pipeline

WORDS = [
    *SMALL, "source.sessions=24", "drift.window_sessions=2", "drift.sample_rows=500", "retraining.first_sessions=14",
    "retraining.cooldown_sessions=2", "retraining.failures=2", "retraining.most_false_alarms=0.2",
    "judging.min_sections=2",
]  # fmt: skip
MOVED = ["momentum", "range", "volume_ratio", "change"]


class Loop:
    """A pipeline whose sessions close one after the other, and its retraining sensor."""

    def __init__(self, made: Pipeline) -> None:
        self.made = made
        self.plan = made.plan()
        self.days = self.plan.grid.dates(date(2021, 1, 1), date(2021, 3, 1)).tolist()
        self.repository = build(made.horizons, clock=made.clock).get_repository_def()
        self.sensor = self.repository.get_sensor_def("retrain_5m")
        self.reports: Reports = made._resources["reports"]

    def close(self, session: int, *, moved: float = 0.0) -> str:
        """The session is over and its tables are there; moved: shifts the factors of it."""
        day = self.days[session]
        [over] = self.plan.grid.sessions(day, day)
        self.made.clock.set(over.close + timedelta(minutes=5))
        keys = [str(one) for one in self.days[: session + 1]]
        new = keys if not self.made.lake.exists("factors/5m") else keys[-1:]
        self.made.run("bars", "features", "factors", keys=new)
        if moved:
            rows = self.made.lake.scan("factors/5m").filter(pl.col("partition") == keys[-1]).collect()
            rows = rows.with_columns(pl.col(MOVED) * (1 + moved) + moved)
            self.made.lake.write("factors/5m", [rows], keys[-1:], layout_of(self.plan, self.plan.factors))
        return keys[-1]

    def tick(self) -> dg.RunRequest | str:
        """What the sensor asks for, or why it waits."""
        context = dg.build_sensor_context(
            instance=self.made._instance,
            repository_def=self.repository,
            resources={"clock": self.made.clock, "lake": self.made.lake, "registry": self.made.registry,
                       "reports": self.reports},
        )  # fmt: skip
        with context:
            data = self.sensor.evaluate_tick(context)
        if data.run_requests:
            [request] = data.run_requests
            return request
        return str(data.skip_message)

    def train(self, tags: dict[str, str], values: tuple[str, ...] = ()) -> dg.ExecuteInProcessResult:
        return dg.materialize(
            [self.made.assets[names.key("5m", "model")]],
            instance=self.made._instance,
            resources=self.made._resources,
            tags=tags,
            raise_on_error=False,
            run_config={
                "resources": {"settings": {"config": {"overrides": list(values)}}},
                "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
            },
        )

    def told(self) -> dict[str, Any]:
        record = self.made._instance.get_latest_materialization_event(names.key("5m", "model"))
        assert record is not None
        assert record.asset_materialization is not None
        return {name: value.value for name, value in record.asset_materialization.metadata.items()}
