"""A bundle is what its data, config and code make of it: in any process, in any store, searched for or not."""

import shutil
from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl
import pytest

from quant.bundle import FILES
from quant.grid import CalendarSpec, Grid
from resources.registry import Registry
from resources.sources.synthetic import SyntheticSource
from tests.defs.conftest import VALUES, Tenor

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # three whole runs

TUNED = ["tuning=default", "tuning.trials=3", "tuning.startup_trials=2"]


def bundle(tenor: Tenor, root: Path, path: Path) -> tuple[str, dict[str, bytes]]:
    """Id and files of the bundle that a run over the bars at `path` makes, each run with a new database."""
    words = ["source=parquet", f"source.path='{path}'", "universe=all", *VALUES, *TUNED]
    done = tenor("run", "horizon=5m", *words, root=root)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    registry = Registry(root)
    [id] = registry.bundles("5m")
    folder = registry.path("5m", id)
    return id, {name: (folder / name).read_bytes() for name in (*FILES, "manifest.json", "oof.parquet")}


def test_the_same_bars_config_and_code_search_out_the_same_bundle_twice_and_one_changed_bar_another(
    tenor: Tenor, tmp_path: Path
) -> None:
    market = SyntheticSource(
        Grid(CalendarSpec("XNYS"), "5m"),
        seed=5, start=date(2022, 3, 1), sessions=24, symbols=3, signal_ic=0.1, gap_rate=0.01, splits=0,
    )  # fmt: skip
    bars = pl.concat(market.bars(datetime(2022, 2, 1, tzinfo=UTC), datetime(2022, 6, 1, tzinfo=UTC), None))
    path = tmp_path / "bars.parquet"
    bars.drop("source").write_parquet(path)
    once, files = bundle(tenor, tmp_path / "one", path)
    again, others = bundle(tenor, tmp_path / "two", path)
    assert again == once
    assert [name for name in files if files[name] != others[name]] == []
    shutil.rmtree(tmp_path / "two")

    row = bars.height // 2
    close = bars["close"][row] * 1.0001
    bars = bars.with_columns(
        close=pl.when(pl.int_range(pl.len()) == row).then(close).otherwise("close"),
        high=pl.when(pl.int_range(pl.len()) == row).then(pl.max_horizontal("high", pl.lit(close))).otherwise("high"),
    )
    bars.drop("source").write_parquet(path)
    changed, _ = bundle(tenor, tmp_path / "three", path)
    assert changed != once
