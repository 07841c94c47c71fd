"""`tenor up`: a model trained from the UI is served without a restart, and Ctrl-C leaves nothing running."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import psutil  # type: ignore[import-untyped]
import pytest

from conf.files import REPOSITORY
from resources.inference import Inference, ServiceDown
from resources.lake import Lake
from tests.defs.conftest import STRUCTURAL, VALUES

EASY = ["judging.margin=-1.0", "judging.min_sections=2"]
LAUNCH = """
mutation ($params: ExecutionParams!) {
  launchRun(executionParams: $params) {
    __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message }
  }
}"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait(until: Callable[[], object], seconds: float, what: str) -> None:
    end = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < end, f"{what} did not happen within {seconds:.0f} s"
        time.sleep(0.5)


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/server_info", timeout=5).is_success
    except httpx.TransportError:
        return False


@pytest.mark.slow
def test_a_model_trained_in_the_ui_is_served_without_a_restart_and_ctrl_c_leaves_nothing(
    store: Path, tmp_path: Path
) -> None:
    root = tmp_path / "store"
    shutil.copytree(store, root, ignore=shutil.ignore_patterns("postgres", "dagster"))
    ports = free_port(), free_port()
    words = ["horizon=5m,30m", *STRUCTURAL, f"serving.port={ports[0]}", f"serving.dagster_port={ports[1]}"]
    log = (tmp_path / "up.log").open("w+")
    up = subprocess.Popen(
        [sys.executable, "-m", "defs.cli", "up", *words],
        env={**os.environ, "TENOR_HOME": str(root)}, cwd=REPOSITORY, stdout=log, stderr=subprocess.STDOUT,
    )  # fmt: skip
    family: list[psutil.Process] = []
    try:
        ui = f"http://127.0.0.1:{ports[1]}"
        with Inference(f"http://127.0.0.1:{ports[0]}") as service:
            wait(lambda: alive(service), 90, "the start of the service")
            service.wait_ready(60)
            wait(lambda: answers(ui), 90, "the start of the UI")
            rows = Lake(f"{root}/lake").scan("factors/5m").drop("known_at", "partition").collect().tail(50)
            before = service.predict_rows("5m", rows)
            # A margin below 0 lets a worse model win: this is about serving, not about judging.
            overrides = [*VALUES, "model.num_leaves=3", "model.learning_rate=0.3", *EASY]
            launched = launch(ui, overrides)
            wait(lambda: serving(service) != before.bundle, 150, f"the swap after run {launched}")
            after = service.predict_rows("5m", rows)
        assert after.bundle != before.bundle
        assert after.number == before.number + 1
        assert not after.frame["prediction"].equals(before.frame["prediction"])
        assert (after.frame["prediction"] - before.frame["prediction"]).abs().max() > 0  # type: ignore[operator]
        wait(lambda: deployed(ui, after.bundle), 90, "the materialization of deployment")
        family = [*psutil.Process(up.pid).children(recursive=True), *servers(root)]
        assert len(family) > 3
    finally:
        up.send_signal(signal.SIGINT)
        try:
            up.wait(60)
        except subprocess.TimeoutExpired:
            up.kill()
            raise
        finally:
            log.seek(0)
            print(log.read()[-6000:])
    assert up.returncode == 0
    _, left = psutil.wait_procs(family, timeout=10)
    assert left == []
    assert servers(root) == []


def alive(service: Inference) -> bool:
    try:
        service.health()
    except ServiceDown:
        return False
    return True


def launch(ui: str, overrides: list[str]) -> str:
    """Start `train_5m` as the UI's launchpad does; the run's id."""
    config = {"resources": {"settings": {"config": {"overrides": overrides}}}}
    selector = {"repositoryLocationName": "tenor", "repositoryName": "__repository__", "jobName": "train_5m"}
    params = {"selector": selector, "runConfigData": config, "mode": "default"}
    answer = httpx.post(f"{ui}/graphql", json={"query": LAUNCH, "variables": {"params": params}}, timeout=60).json()
    result = answer["data"]["launchRun"]
    assert result["__typename"] == "LaunchRunSuccess", answer
    return str(result["run"]["runId"])


def serving(service: Inference) -> str:
    [model] = [model for model in service.models() if model["horizon"] == "5m"]
    return str(model["bundle"])


def deployed(ui: str, bundle: str) -> bool:
    """Whether the newest materialization of 5m/deployment names the bundle."""
    query = """{ assetOrError(assetKey: {path: ["5m", "deployment"]}) { ... on Asset { assetMaterializations(limit: 1)
      { metadataEntries { label ... on TextMetadataEntry { text } } } } } }"""
    answer = httpx.post(f"{ui}/graphql", json={"query": query}, timeout=30).json()
    made = answer["data"]["assetOrError"].get("assetMaterializations", [])
    return any(entry.get("text") == bundle for event in made for entry in event["metadataEntries"])


def servers(root: Path) -> list[psutil.Process]:
    """Database servers on this store's data."""
    found = psutil.process_iter(["name", "cmdline"])
    return [
        process
        for process in found
        if process.info["name"] == "postgres" and str(root) in " ".join(process.info["cmdline"] or ())
    ]
