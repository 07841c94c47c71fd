"""Dagster's daemons in this process, one turn at a time, at the time that the clock's file says.

The code is Dagster's own: sensors, conditions, backfills and the queue are those of `dagster dev`, on the instance of
the repository's dagster.yaml. Only the launcher is another: a run happens in this process, at once, and spares its
imports.
"""

import logging
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import dagster as dg
from dagster._core.execution.backfill import BulkActionsFilter, BulkActionStatus
from dagster._core.instance.ref import InstanceRef
from dagster._core.remote_origin import InProcessCodeLocationOrigin
from dagster._core.test_utils import freeze_time
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import WorkspaceLoadTarget
from dagster._daemon.asset_daemon import AssetDaemon
from dagster._daemon.backfill import execute_backfill_iteration
from dagster._daemon.run_coordinator.queued_run_coordinator_daemon import QueuedRunCoordinatorDaemon
from dagster._daemon.sensor import execute_sensor_iteration

from conf.files import REPOSITORY
from resources import dagster_storage
from resources.clock import FileClock

LAUNCHER = {"module": "dagster._core.launcher.sync_in_memory_run_launcher", "class": "SyncInMemoryRunLauncher"}
TURN = timedelta(seconds=31)  # longer than any sensor's interval
MOST_TURNS = 40
WORKING = [BulkActionStatus.REQUESTED, BulkActionStatus.CANCELING, BulkActionStatus.FAILING]

log = logging.getLogger("tests.loop")


class Target(WorkspaceLoadTarget):
    """The code location of workspace.yaml, in this process."""

    def create_origins(self) -> Sequence[InProcessCodeLocationOrigin]:
        loaded = LoadableTargetOrigin(
            executable_path=sys.executable, module_name="defs.definitions", working_directory=str(REPOSITORY)
        )
        return [InProcessCodeLocationOrigin(loaded, location_name="tenor")]


@contextmanager
def instance(root: Path) -> Iterator[dg.DagsterInstance]:
    """The instance of the repository's dagster.yaml on the store at `root`, with runs in this process."""
    here = {"module": dagster_storage.__name__, "config": {"root": str(root)}}
    overrides = {
        "storage": {"custom": here | {"class": "Storage"}},
        "local_artifact_storage": here | {"class": "Artifacts"},
        "compute_logs": {"module": "dagster._core.storage.noop_compute_log_manager", "class": "NoOpComputeLogManager"},
        "run_launcher": LAUNCHER,
    }
    with dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(REPOSITORY), overrides=overrides)) as made:
        yield made


class Daemon:
    """The daemons that `tenor up` starts."""

    def __init__(self, stored: dg.DagsterInstance, workspace: WorkspaceProcessContext, clock: FileClock) -> None:
        self.instance, self.clock = stored, clock
        self._workspace = workspace
        self._assets = AssetDaemon(settings={}, pre_sensor_interval_seconds=30)
        self._queue = QueuedRunCoordinatorDaemon(interval_seconds=1)

    def turn(self) -> bool:
        """One look of each daemon at the clock's time, which then moves on a little; whether anything is left to do."""
        before = self._runs()
        with freeze_time(self.clock.now()):
            self._sensors()
            self._conditions()
            for _ in range(2):  # what a backfill asks for is queued and runs; then it looks what became of it
                self._backfills()
                list(self._queue.run_iteration(self._workspace))
        self.clock.set(self.clock.now() + TURN)
        busy = self.instance.get_backfills(filters=BulkActionsFilter(statuses=WORKING))
        return self._runs() != before or bool(busy)

    def settle(self) -> None:
        """Turns until two in a row had nothing to do."""
        idle = 0
        for _ in range(MOST_TURNS):
            idle = 0 if self.turn() else idle + 1
            if idle == 2:
                return
        raise AssertionError(f"after {MOST_TURNS} turns there is still something to do")

    def _sensors(self) -> None:
        futures: dict[str, Future] = {}  # type: ignore[type-arg]
        with ThreadPoolExecutor(max_workers=1) as pool:
            errors = execute_sensor_iteration(self._workspace, log, pool, None, sensor_tick_futures=futures)
            for error in errors:
                assert error is None, error
            for future in futures.values():
                future.result()

    def _conditions(self) -> None:
        self._assets._run_iteration_impl(
            self._workspace, threadpool_executor=None, amp_tick_futures={}, debug_crash_flags={}
        )

    def _backfills(self) -> None:
        for error in execute_backfill_iteration(self._workspace, log):
            assert error is None, error

    def _runs(self) -> int:
        return self.instance.get_runs_count()


@contextmanager
def daemon(root: Path, clock: FileClock) -> Iterator[Daemon]:
    """Daemons over the store; the environment says what `tenor up` would."""
    sys.modules.pop("defs.definitions", None)  # it is made of the environment when it is imported
    with instance(root) as stored, WorkspaceProcessContext(stored, Target()) as workspace:
        yield Daemon(stored, workspace, clock)
