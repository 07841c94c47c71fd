"""A run whose process is gone is ended as failed, so that it holds no pool and nothing waits for it; no other is."""

import os
import subprocess
import sys
from collections.abc import Iterator
from logging import getLogger
from pathlib import Path
from typing import Any

import dagster as dg
import psutil  # type: ignore[import-untyped]
import pytest
from dagster._core.events import EngineEventData
from dagster._core.instance.ref import InstanceRef
from dagster._core.storage.tags import GRPC_INFO_TAG
from dagster._daemon.monitoring.run_monitoring import monitor_started_run

from conf.files import REPOSITORY
from resources import run_launcher
from resources.run_launcher import MACHINE, Launcher, machine

LAUNCHER = {"module": run_launcher.__name__, "class": "Launcher"}
BY_A_SERVER = {GRPC_INFO_TAG: "{}"}


@pytest.fixture(scope="module")
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test(overrides={"run_launcher": LAUNCHER}) as made:
        yield made


@pytest.fixture
def process() -> Iterator["subprocess.Popen[bytes]"]:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as made:
        yield made
        made.kill()


@dg.job
def nothing() -> None:
    pass


def watched(instance: dg.DagsterInstance, pid: int | None, tags: dict[str, str]) -> tuple[Any, str]:
    """A started run of that process, and its status once Dagster's run monitoring has looked at it."""
    run = instance.create_run_for_job(nothing, tags=tags, status=dg.DagsterRunStatus.STARTED)
    if pid is not None:
        instance.report_engine_event("Started process for run", run, EngineEventData.in_process(pid))
    return run, look(instance, run.run_id)


def look(instance: dg.DagsterInstance, run_id: str) -> str:
    record = instance.get_run_record_by_id(run_id)
    assert record is not None
    monitor_started_run(instance, None, record, getLogger("test"))  # type: ignore[arg-type]
    again = instance.get_run_by_id(run_id)
    assert again is not None
    return again.status.value


@pytest.mark.parametrize("tags", [BY_A_SERVER, machine()], ids=["a server's", "the command line's"])
def test_a_run_ends_as_failed_once_its_process_is_gone(
    instance: dg.DagsterInstance, process: "subprocess.Popen[bytes]", tags: dict[str, str]
) -> None:
    run, status = watched(instance, process.pid, tags)
    assert status == "STARTED"
    process.kill()
    process.wait()
    assert look(instance, run.run_id) == "FAILURE"


def test_a_zombie_and_a_later_process_of_the_same_id_are_not_the_runs_own(
    instance: dg.DagsterInstance, process: "subprocess.Popen[bytes]", monkeypatch: pytest.MonkeyPatch
) -> None:
    run, status = watched(instance, process.pid, BY_A_SERVER)
    monkeypatch.setattr(run_launcher, "_SLACK", -3600.0)  # as if it had said so an hour ago
    assert (status, look(instance, run.run_id)) == ("STARTED", "FAILURE")
    monkeypatch.undo()
    run, status = watched(instance, process.pid, BY_A_SERVER)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and nobody has buried it
    assert psutil.Process(process.pid).status() == psutil.STATUS_ZOMBIE
    assert (status, look(instance, run.run_id)) == ("STARTED", "FAILURE")


def test_nothing_is_said_of_a_run_of_another_machine_or_one_that_has_not_said_its_process(
    instance: dg.DagsterInstance,
) -> None:
    assert watched(instance, 2**22 + 1, {MACHINE: "another"})[1] == "STARTED"
    assert watched(instance, 2**22 + 1, {})[1] == "STARTED"
    assert watched(instance, None, BY_A_SERVER)[1] == "STARTED"


def test_the_instance_of_dagster_yaml_has_it(tmp_path: Path) -> None:
    here = InstanceRef.from_dir(str(REPOSITORY), overrides={"storage": {"sqlite": {"base_dir": str(tmp_path)}}})
    assert isinstance(here.run_launcher, Launcher)
    assert here.settings["run_monitoring"]["enabled"] is True
