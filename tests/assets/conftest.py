"""A small pipeline of the real parts: Delta tables, a Dagster instance, the registry, a clock that tests set."""

import shlex
import shutil
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from assets import names, partitions
from assets.plan import Plan
from conf.compose import compose
from defs.graph import build
from quant.grid import CalendarSpec, Grid
from resources.clock import FixedClock
from resources.database import Database
from resources.lake import Lake
from resources.registry import Registry
from resources.settings import OVERRIDES_VARIABLE
from resources.sources.synthetic import SyntheticSource
from resources.vectors import Vectors
from tests.conftest import SHIPPED

OURS = ("TENOR_CONF", "TENOR_HOME", "TENOR_DATABASE_URL", OVERRIDES_VARIABLE)
RANGE_START, RANGE_END = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"
FEW = ["features=[few]", "factors=[few]"]
SMALL = [
    "horizon=5m", *FEW, "source.sessions=10", "source.symbols=4", "source.seed=5",
    "model.n_estimators=10", "model.min_data_in_leaf=20",
]  # fmt: skip
NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)

FEW_FEATURES = """# @package features.few
momentum: close / lag(close, 3) - 1
range: (high - low) / close
volume_ratio: volume / mean(volume, 5)
"""
FEW_FACTORS = """# @package factors.few
momentum: momentum
range: range
volume_ratio: volume_ratio
momentum_rank: rank(momentum)
smooth_rank: mean(rank(volume_ratio), 4)
change: log_returns(close)
"""


@dataclass(frozen=True)
class Made:
    """What one run of steps reported, by step."""

    metadata: dict[str, dict[str, Any]]
    checks: dict[str, dg.AssetCheckEvaluation]


class Pipeline:
    """The graph of some horizons over a store of its own. `words`: overrides in Hydra's grammar.

    instance: where Dagster keeps what happened, by default in memory.
    """

    def __init__(
        self, root: Path, *words: str, store: Vectors | None = None, instance: dg.DagsterInstance | None = None
    ) -> None:
        self.words = [*words, f"store.root='{root}'"]
        self.horizons = compose(self.words)
        self.clock = FixedClock(NOW)
        self.lake, self.registry = Lake(f"{root}/lake"), Registry(root, self.clock)
        graph = build(self.horizons, clock=self.clock)
        self.assets = {asset.key: asset for asset in graph.assets or () if isinstance(asset, dg.AssetsDefinition)}
        self._resources = {**(graph.resources or {}), "registry": self.registry}
        if store is not None:
            self._resources["store"] = store
        self._instance = instance or dg.DagsterInstance.ephemeral()

    def plan(self, horizon: str = "5m") -> Plan:
        return Plan(self.horizons[horizon])

    def partition_keys(self, horizon: str = "5m") -> list[str]:
        """The partitions of the horizon's tables that the source has rows for."""
        found = self.assets[names.key(horizon, "bars")].partitions_def
        assert found is not None
        last = partitions.newest(self.plan(horizon), self.horizons, self.clock.now())
        return [key for key in found.get_partition_keys() if key <= str(last)]

    def run(
        self, *steps: str, keys: Collection[str] | None = None, values: Collection[str] = (), horizon: str = "5m"
    ) -> Made:
        """Materialize steps one after the other, over the partitions `keys` (all of them by default) in one run."""
        made = Made({}, {})
        chosen = sorted(keys or self.partition_keys(horizon))
        for step in steps:
            key = names.key(horizon, step)
            partitioned = self.assets[key].partitions_def is not None
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv(OVERRIDES_VARIABLE, shlex.join(self.words))
                result = dg.materialize(
                    list(self.assets.values()),
                    selection=[key],
                    instance=self._instance,
                    resources=self._resources,
                    tags={RANGE_START: chosen[0], RANGE_END: chosen[-1]} if partitioned else {},
                    run_config={
                        "resources": {"settings": {"config": {"overrides": list(values)}}},
                        "loggers": {"console": {"config": {"log_level": "ERROR"}}},
                    },
                )
            [event] = result.get_asset_materialization_events()[-1:]
            metadata = event.step_materialization_data.materialization.metadata
            made.metadata[step] = {name: value.value for name, value in metadata.items()}
            made.checks.update({check.check_name: check for check in result.get_asset_check_evaluations()})
        return made

    def table(self, step: str, horizon: str = "5m", version: int | None = None) -> pl.DataFrame:
        """A step's table, sorted by (timestamp, symbol)."""
        rows = self.lake.scan(names.table(step, horizon), version=version)
        return rows.sort("timestamp", "symbol").collect()

    def until(self, keys: Collection[str], horizon: str = "5m") -> pl.Expr:
        """Rows of sessions up to the end of these partitions."""
        plan = self.plan(horizon)
        _, end = plan.grid.window(*partitions.window(plan, sorted(keys)))
        return pl.col("timestamp") < end


Make = Callable[..., Pipeline]
File = Callable[[pl.DataFrame], list[str]]


@pytest.fixture(scope="session")
def configs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of Tenor's config folder with a small set of features and one of factors."""
    folder = tmp_path_factory.mktemp("configs") / "conf"
    shutil.copytree(SHIPPED, folder, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    (folder / "features" / "few.yaml").write_text(FEW_FEATURES)
    (folder / "factors" / "few.yaml").write_text(FEW_FACTORS)
    return folder


@pytest.fixture(scope="module", autouse=True)
def environment(configs: Path) -> Iterator[None]:
    """That folder is the config, and no store is named. For one file at a time: the next one may have another."""
    with pytest.MonkeyPatch.context() as patch:
        for variable in OURS:
            patch.delenv(variable, raising=False)
        patch.setenv("TENOR_CONF", str(configs))
        yield


@pytest.fixture
def pipeline(tmp_path: Path) -> Make:
    """Make a pipeline, of a small synthetic market and the small sets unless told otherwise, with its own store."""
    made = iter(range(100))

    def make(*words: str) -> Pipeline:
        def given(key: str) -> bool:
            return any(word.startswith(key) for word in words)

        market = [] if given("source.path") else ["source.sessions=5", "source.symbols=4"]
        chosen = [*([] if given("horizon") else ["horizon=5m"]), *([] if given("features") else FEW)]
        return Pipeline(tmp_path / f"store{next(made)}", *chosen, *market, *words)

    return make


@pytest.fixture(scope="session")
def market() -> pl.DataFrame:
    """5-minute bars of four symbols over six sessions around a half day, as a vendor's file has them."""
    source = SyntheticSource(
        Grid(CalendarSpec("XNYS"), "5m"),
        seed=3, start=date(2021, 11, 22), sessions=6, symbols=4, signal_ic=0.05, gap_rate=0.01, splits=0,
    )  # fmt: skip
    frames = source.bars(datetime(2021, 11, 1, tzinfo=UTC), datetime(2021, 12, 31, tzinfo=UTC), None)
    return pl.concat(list(frames)).drop("source")


@pytest.fixture
def file(tmp_path: Path) -> File:
    """Write bars where the pipeline's `parquet` source reads them; its overrides."""
    path = tmp_path / "bars.parquet"

    def write(bars: pl.DataFrame) -> list[str]:
        bars.write_parquet(path)
        return ["source=parquet", f"source.path='{path}'", "universe=all"]

    return write


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vectors]:
    """Vectors on an embedded Postgres that all tests share."""
    database = Database(tmp_path_factory.mktemp("database"))
    yield Vectors(database)
    database.release()
