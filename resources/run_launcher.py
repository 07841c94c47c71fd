"""Dagster's launcher of runs on this machine, which also notices a run whose process is gone.

Dagster's own notices it as long as the server that started the process lives. After a power cut, or a kill of all of
`tenor up` or of a `tenor run`, such a run would count as under way for ever: it would hold its pools, and no refresh
and no training would be asked for again. Run monitoring (dagster.yaml) asks here, and ends it as failed.
"""

import platform
from typing import Final

import psutil  # type: ignore[import-untyped]
from dagster import DagsterEventType, DagsterRun
from dagster._core.launcher.base import CheckRunHealthResult, WorkerStatus
from dagster._core.launcher.default_run_launcher import DefaultRunLauncher
from dagster._core.storage.tags import GRPC_INFO_TAG

MACHINE: Final = "tenor/machine"  # on runs that no launcher started: where their process is
_SLACK = 2.0  # seconds: a process says its id a moment after it began


def machine() -> dict[str, str]:
    """The tag of a run in this process."""
    return {MACHINE: platform.node()}


class Launcher(DefaultRunLauncher):
    """Runs as processes of the code server of this machine."""

    @property
    def supports_check_run_worker_health(self) -> bool:
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Whether the process of a started run lives; of a run of another machine nothing can be told."""
        here = GRPC_INFO_TAG in run.tags or run.tags.get(MACHINE) == platform.node()
        told = self._process(run.run_id) if here else None
        if told is None or _lives(*told):
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(WorkerStatus.FAILED, f"its process, {told[0]}, is gone")

    def _process(self, run_id: str) -> tuple[int, float] | None:
        """The newest process that said it executes the run, and when it said so."""
        found = None
        logs = self._instance.get_records_for_run(run_id, of_type=DagsterEventType.ENGINE_EVENT).records
        for entry in (record.event_log_entry for record in logs):
            event = entry.dagster_event
            pid = event.engine_event_data.metadata.get("pid") if event else None
            if pid is not None:
                found = int(str(pid.value)), entry.timestamp
        return found


def _lives(pid: int, said: float) -> bool:
    """Whether the process that said its id at that time lives; a later one may have the same id."""
    try:
        process = psutil.Process(pid)
        return process.create_time() <= said + _SLACK and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
