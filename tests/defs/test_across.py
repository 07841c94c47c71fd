"""`tenor run` of a horizon that reads another one: its bars come along, and the service takes both."""

import subprocess
from collections.abc import Collection
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from conf.compose import compose
from defs.cli import main
from defs.processes import Processes
from defs.run import order
from defs.service import start_service
from resources.inference import Inference, InferenceError
from resources.lake import Lake
from resources.registry import Registry
from tests.defs.conftest import STRUCTURAL, VALUES, Tenor

FEATURES = """# @package features.across
momentum: close / lag(close, 6) - 1
stretch: close / at("30m", mean(close, 4)) - 1
"slow_{n}": {expr: 'at("30m", close / lag(close, n) - 1)', n: [1, 3], description: "return of {n} half hours"}
"""
FACTORS = """# @package factors.across
"{f}": {expr: f, f: features}
slow_rank: rank(at("30m", volume / mean(volume, 6)))
"""
WORDS = ["horizon=5m", "features=[across]", "factors=[across]"]


@pytest.fixture(scope="module", autouse=True)
def sets(configs: Path) -> None:
    (configs / "features" / "across.yaml").write_text(FEATURES)
    (configs / "factors" / "across.yaml").write_text(FACTORS)


@pytest.fixture(scope="module")
def ran(sets: None, tenor: Tenor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store that `tenor run horizon=5m` made, where 5m reads 30m and 30m is made of 5m."""
    root = tmp_path_factory.mktemp("across") / "store"
    done: subprocess.CompletedProcess[str] = tenor("run", *WORDS, *STRUCTURAL, *VALUES, root=root)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "prediction served for 5m" in done.stdout
    return root


def test_only_the_bars_of_the_other_horizon_come_along(ran: Path) -> None:
    lake = Lake(f"{ran}/lake")
    assert lake.exists("bars/30m")
    assert not lake.exists("features/30m")
    assert Registry(ran).champion("30m") is None


def test_the_service_answers_from_the_bars_of_both_as_from_the_factor_table(ran: Path) -> None:
    lake, champion = Lake(f"{ran}/lake"), Registry(ran).champion("5m")
    assert champion is not None
    recipe = Registry(ran).load("5m", champion.id).recipe
    table = lake.scan("factors/5m").drop("known_at", "partition").sort("timestamp", "symbol").collect()
    bars, theirs = (lake.scan(f"bars/{name}").drop("partition").collect() for name in ("5m", "30m"))
    slots = recipe.grid.slots(*recipe.grid.session_dates(_naive(table["timestamp"])[[0, -1]]).tolist())
    newest = np.unique(_naive(table["timestamp"]))[-78:]
    with Processes() as processes:
        serving = compose(["horizon=5m"])["5m"].serving
        with Inference(start_service(processes, ran, serving)) as service:
            service.wait_ready(60)
            asked, found = [], []
            for slot in newest[::7]:
                since = slots[int(np.searchsorted(slots, slot)) - recipe.lookback]
                ours = bars.filter(pl.col("timestamp").is_between(_aware(since), _aware(slot)))
                wanted = recipe.needs(ours, 1)["30m"]
                halves = theirs.filter(pl.col("timestamp").is_between(_aware(wanted[0]), _aware(wanted[-1])))
                asked.append(service.predict_rows("5m", table.filter(pl.col("timestamp") == _aware(slot))).frame)
                found.append(service.predict_bars("5m", ours, at={"30m": halves}).frame)
            with pytest.raises(InferenceError, match="the bars of horizon 30m too: send them"):
                service.predict_bars("5m", ours)
    assert pl.concat(found).equals(pl.concat(asked))


def _naive(stamps: pl.Series) -> np.ndarray:
    return stamps.dt.replace_time_zone(None).to_numpy()


def _aware(slot: np.datetime64) -> datetime:
    return slot.astype("datetime64[us]").item().replace(tzinfo=UTC)


def test_features_are_listed_with_the_look_back_of_each_horizon(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["features", *WORDS]) == 0
    shown = [line.split("│") for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    lookbacks = {
        cells[1].strip(): cells[3].strip() for cells in reversed(shown)
    }  # features are above what passes them on
    assert lookbacks["slow_3"] == "0, 30m 10"
    assert lookbacks["stretch"] == "0, 30m 10"
    assert lookbacks["slow_rank"] == "0, 30m 12"
    assert lookbacks["momentum"] == "6"


def test_the_graph_of_a_horizon_that_reads_another_is_valid(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", *WORDS]) == 0
    assert "2 horizons are valid (5m, 30m)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('at("30min", close)', "features/across.yaml:2: slow, column 1: there is no horizon 30min for at(…)"),
        (
            'close / at("30m", clse)',
            "slow, column 19: unknown name clse in horizon 30m; did you mean close?",
        ),
    ],
)
def test_a_mistake_names_file_entry_and_column(
    configs: Path, capsys: pytest.CaptureFixture[str], text: str, problem: str
) -> None:
    (configs / "features" / "across.yaml").write_text(f"# @package features.across\nslow: {text}\n")
    try:
        assert main(["validate", "horizon=5m", "features=[across]", "factors=[pass_through]"]) == 2
    finally:
        (configs / "features" / "across.yaml").write_text(FEATURES)
    assert problem in capsys.readouterr().err


@pytest.mark.parametrize(
    ("horizons", "wanted", "expected"),
    [
        ({"5m": "source", "1h": "5m"}, ["5m", "1h"], "5m 1h"),
        ({"5m": "source 1h", "1h": "5m"}, ["5m"], "5m:bars 1h:bars 5m"),
        ({"5m": "source 1h", "1h": "5m"}, ["5m", "1h"], "5m:bars 1h:bars 5m 1h"),
        ({"5m": "source 1h", "1h": "source"}, ["5m", "1h"], "1h 5m"),
        ({"1m": "source", "5m": "1m 1h", "1h": "1m"}, ["5m"], "1m:bars 1h:bars 5m"),
        ({"5m": "source 1h", "1h": "source 5m"}, ["5m", "1h"], "1h:bars 5m 1h"),
    ],
)
def test_the_bars_that_a_horizon_needs_are_made_before_it(
    horizons: dict[str, str], wanted: Collection[str], expected: str
) -> None:
    """Each horizon is written as where its bars come from, and the horizons that it reads."""
    made = {}
    for name, text in horizons.items():
        source, *read = text.split()
        made[name] = SimpleNamespace(bars=SimpleNamespace(from_=source), at=dict.fromkeys(read))
    steps = order(made, wanted)  # type: ignore[arg-type]
    assert " ".join(name if what == "whole" else f"{name}:{what}" for name, what in steps) == expected
