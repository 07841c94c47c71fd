"""Tenor as its user has it: a config folder with a horizon of their own, and a store that `tenor run` made."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conf.compose import compose
from conf.files import REPOSITORY
from defs.processes import Processes
from defs.service import start_service
from resources.inference import Inference
from resources.settings import OVERRIDES_VARIABLE
from tests.conftest import SHIPPED

OURS = ("TENOR_CONF", "TENOR_HOME", "TENOR_DATABASE_URL", "DAGSTER_HOME", OVERRIDES_VARIABLE)
STRUCTURAL = ["source.sessions=24", "source.symbols=3"]
VALUES = [
    "model.n_estimators=20", "model.min_data_in_leaf=20", "vectors.window=50",
    "drift.calibration_windows=4", "drift.max_columns=5", "folds.count=2",
]  # fmt: skip

HALF_HOUR = """# @package _global_
# Half-hour bars made of the five-minute ones.
defaults:
  - override /source: synthetic
  - override /universe: demo
  - override /calendar: XNYS
  - override /features: [volatility]
  - override /factors: [pass_through]
  - override /label: forward_return

interval: 30m
bars: {from: 5m}
partition: day
"""

Tenor = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def configs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of Tenor's config folder in which one YAML file adds the horizon 30m."""
    folder = tmp_path_factory.mktemp("configs") / "conf"
    shutil.copytree(SHIPPED, folder, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    (folder / "horizon" / "30m.yaml").write_text(HALF_HOUR)
    return folder


@pytest.fixture(scope="session")
def settings(configs: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the environment says: that folder, and a store in which there is nothing."""
    nothing = tmp_path_factory.mktemp("nothing") / "store"
    return {"TENOR_CONF": str(configs), "TENOR_HOME": str(nothing), "COLUMNS": "200"}


@pytest.fixture(scope="module", autouse=True)
def environment(settings: dict[str, str]) -> Iterator[None]:
    """This process has those settings. For one file at a time: the next one may have others."""
    with pytest.MonkeyPatch.context() as patch:
        for variable in OURS:
            patch.delenv(variable, raising=False)
        for variable, value in settings.items():
            patch.setenv(variable, value)
        yield


@pytest.fixture(scope="session")
def tenor(settings: dict[str, str]) -> Tenor:
    """Run the command line as a process of its own, with TENOR_HOME at `root`."""

    def run(*words: str, root: Path | None = None, timeout: float = 200) -> subprocess.CompletedProcess[str]:
        kept = {name: value for name, value in os.environ.items() if name not in OURS}
        store = {"TENOR_HOME": str(root)} if root else {}
        return subprocess.run(
            [sys.executable, "-m", "defs.cli", *words],
            env={**kept, **settings, **store},
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    return run


@pytest.fixture(scope="session")
def ran(tenor: Tenor, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """The store that `tenor run horizon=5m,30m` made of a small market, and what it printed."""
    root = tmp_path_factory.mktemp("ran") / "store"
    return root, tenor("run", "horizon=5m,30m", *STRUCTURAL, *VALUES, root=root)


@pytest.fixture
def store(ran: tuple[Path, subprocess.CompletedProcess[str]]) -> Path:
    """The store of `ran`, which must have gone well."""
    root, done = ran
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return root


@pytest.fixture(scope="session")
def service(ran: tuple[Path, subprocess.CompletedProcess[str]]) -> Iterator[Inference]:
    """The inference service over the store of `ran`, a process of its own."""
    root, _ = ran
    with Processes() as processes:
        url = start_service(processes, root, compose(["horizon=5m"])["5m"].serving)
        with Inference(url) as made:
            made.wait_ready(60)
            yield made
