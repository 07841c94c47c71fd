"""`tenor up`: a model trained in the UI is served at once, what is killed comes back, and stopping leaves nothing."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TextIO

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


def started(root: Path, words: Sequence[str], log: TextIO) -> subprocess.Popen[bytes]:
    """`tenor up` over a store, with what it says in `log`."""
    return subprocess.Popen(
        [sys.executable, "-m", "defs.cli", "up", *words],
        env={**os.environ, "TENOR_HOME": str(root)}, cwd=REPOSITORY, stdout=log, stderr=subprocess.STDOUT,
    )  # fmt: skip


def stopped(up: subprocess.Popen[bytes], number: int, log: TextIO) -> str:
    """What it said until it ended at this signal; killed where it does not."""
    up.send_signal(number)
    try:
        up.wait(60)
    except subprocess.TimeoutExpired:
        up.kill()
        raise
    finally:
        log.seek(0)
        told = log.read()
        print(told[-6000:])
    return told


@pytest.mark.slow
def test_a_model_trained_in_the_ui_is_served_without_a_restart_and_ctrl_c_leaves_nothing(
    store: Path, tmp_path: Path
) -> None:
    root = tmp_path / "store"
    shutil.copytree(store, root, ignore=shutil.ignore_patterns("postgres", "dagster"))
    ports = free_port(), free_port()
    words = ["horizon=5m,30m", *STRUCTURAL, f"serving.port={ports[0]}", f"serving.dagster_port={ports[1]}"]
    log = (tmp_path / "up.log").open("w+")
    up = started(root, words, log)
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
        stopped(up, signal.SIGINT, log)
    assert up.returncode == 0
    _, left = psutil.wait_procs(family, timeout=10)
    assert left == []
    assert servers(root) == []


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_whatever_is_killed_runs_again_once_and_sigterm_leaves_nothing(tmp_path: Path) -> None:
    root, ports = tmp_path / "store", (free_port(), free_port())
    words = ["horizon=5m", "automation=off", f"serving.port={ports[0]}", f"serving.dagster_port={ports[1]}"]
    log = (tmp_path / "up.log").open("w+")
    up = started(root, words, log)
    ui = f"http://127.0.0.1:{ports[1]}"
    parts = ("-m serving ", "api grpc", "code-server start", "dagster._daemon run", "dagster_webserver", " dev -w")

    def one_each() -> dict[str, int] | None:
        """The process of each part, where all run and answer."""
        found = {part: running(part, root) for part in parts}
        if any(len(pids) != 1 for pids in found.values()) or not (answers(ui) and loaded(ui)):
            return None
        with Inference(f"http://127.0.0.1:{ports[0]}") as service:
            return {part: pids[0] for part, pids in found.items()} if alive(service) else None

    try:
        wait(one_each, 120, "the start")
        for part in (part for part in parts if part != "dagster_webserver"):  # noticed as the daemon's end is
            before = one_each()
            assert before is not None
            os.kill(before[part], signal.SIGKILL)
            wait(lambda: not psutil.pid_exists(before[part]) or zombie(before[part]), 10, f"the end of {part}")  # noqa: B023
            wait(one_each, 150, f"the return of {part}")
        assert up.poll() is None
    finally:
        told = stopped(up, signal.SIGTERM, log)
    assert up.returncode == 0
    assert [part for part in parts if running(part, root)] == []
    assert servers(root) == []
    assert f"tenor: service ended by itself with status -9, see {root}/service.log; it is started again in" in told
    assert f"tenor: dagster ended by itself with status -9, see {root}/dagster.log; it is started again in" in told
    assert "tenor: dagster's code server is gone" in told


def running(part: str, root: Path) -> list[int]:
    """Processes of this store in whose command line the words stand, wherever they were started."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        words = " ".join(process.info["cmdline"] or ())
        with contextlib.suppress(psutil.Error):
            if part in words and not zombie(process.pid) and process.environ().get("TENOR_HOME") == str(root):
                found.append(process.pid)
    return found


def zombie(pid: int) -> bool:
    return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)


def loaded(ui: str) -> bool:
    """Whether Dagster has the graph, which it has from its code server."""
    query = "{ workspaceOrError { ... on Workspace { locationEntries { locationOrLoadError { __typename } } } } }"
    told = httpx.post(f"{ui}/graphql", json={"query": query}, timeout=30).json()
    entries = told["data"]["workspaceOrError"]["locationEntries"]
    return [(entry["locationOrLoadError"] or {}).get("__typename") for entry in entries] == ["RepositoryLocation"]


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
