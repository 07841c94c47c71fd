"""What alerts are tested with: a graph whose next run is told what to do, a service that says what it is told to."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from assets.plan import Plan
from conf.compose import compose
from conf.schema import Horizon
from resources.lake import Lake
from tests.defs.answering import Answering

# A Tuesday of regular hours in New York: bars of 14:30 to 21:00 UTC.
NOW = datetime(2024, 3, 5, 22, 30, tzinfo=UTC)
UI, SERVICE = "http://127.0.0.1:3000", "http://127.0.0.1:8321"
BARS, DRIFT = dg.AssetKey(["5m", "bars"]), dg.AssetKey(["5m", "drift"])
CHECK = dg.AssetCheckKey(DRIFT, "looks_like_training")


@cache
def horizons() -> Mapping[str, Horizon]:
    return compose(["horizon=5m", "source.sessions=null"])  # a market that goes on


@cache
def plans() -> Mapping[str, Plan]:
    return {name: Plan(horizon) for name, horizon in horizons().items()}


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


def bars(lake: Lake, *stamps: datetime) -> None:
    rows = [{"symbol": "AAA", "timestamp": stamp, "partition": f"{stamp:%Y-%m-%d}"} for stamp in stamps]
    frame = pl.DataFrame(rows)
    lake.write("bars/5m", [frame], frame["partition"].unique().to_list(), {})


class Switch:
    """What the next run of the assets does."""

    def __init__(self) -> None:
        self.broken: str | None = None
        self.passed, self.severity = True, dg.AssetCheckSeverity.WARN


def graph(switch: Switch) -> list[dg.AssetsDefinition]:
    @dg.asset(key=BARS)
    def bars_step() -> None:
        if switch.broken:
            try:
                raise OSError("no route to the exchange")
            except OSError as error:
                raise RuntimeError(switch.broken) from error

    @dg.asset(key=DRIFT, deps=[BARS], check_specs=[dg.AssetCheckSpec(CHECK.name, asset=DRIFT)])
    def drift_step():  # type: ignore[no-untyped-def]
        report = dg.MetadataValue.url("http://127.0.0.1:8321/reports/5m/drift.html")
        result = dg.AssetCheckResult(
            check_name=CHECK.name,
            passed=switch.passed,
            severity=switch.severity,
            metadata={"report": report, "share drifted": 0.4, "worst": "rsi_14"},
        )
        return dg.MaterializeResult(check_results=[result])

    return [bars_step, drift_step]


def run(switch: Switch, instance: dg.DagsterInstance) -> str:
    return dg.materialize(graph(switch), instance=instance, raise_on_error=False).run_id


class Service(Answering):
    """Answers /health as a service would; `health` may be changed."""

    def __init__(self, store: Path) -> None:
        self.health: dict[str, Any] = {"store": str(store), "horizons": {}}
        super().__init__(lambda _: (200, self.health))

    def serves(
        self, number: int | None, newest_bar: str | None = None, problem: str | None = None, horizon: str = "5m"
    ) -> None:
        self.health["horizons"] = {
            horizon: {"status": "serving", "number": number, "newest_bar": newest_bar, "problem": problem}
        }


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    made = Service(tmp_path)
    yield made
    made.stop()
