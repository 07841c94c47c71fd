"""A store that lives through sessions of a made-up market under Dagster's daemons, and what may befall it."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import psutil  # type: ignore[import-untyped]
import pytest
from dagster._core.launcher.base import LaunchRunContext

from assets import names
from conf.compose import compose
from conf.files import REPOSITORY
from defs.refresh import HORIZON, WHAT
from resources import settings
from resources.clock import VARIABLE, FileClock
from resources.lake import Lake
from resources.settings import OVERRIDES_VARIABLE
from tests.assets.conftest import FEW_FACTORS, FEW_FEATURES
from tests.conftest import SHIPPED
from tests.defs.conftest import HALF_HOUR
from tests.loop.daemon import Daemon, daemon
from tests.loop.market import GRID, Vendor


class Replay:
    """The store, its vendor, its clock, its daemons. words: the overrides of its horizons."""

    def __init__(self, root: Path, vendor: Vendor, running: Daemon, words: list[str]) -> None:
        self.root, self.vendor, self.daemon, self.words = root, vendor, running, words
        self.lake = Lake(root / "lake")

    @property
    def clock(self) -> FileClock:
        return self.daemon.clock

    def close(self, day: date) -> None:
        """The session's close, and what follows from it."""
        self.clock.set(GRID.sessions(day, day)[0].close + timedelta(minutes=2))
        self.daemon.settle()

    def asked(self, what: str, horizon: str = "5m") -> list[dg.DagsterRun]:
        """Runs that a sensor asked for (`refresh`, `train`), oldest first."""
        return self.daemon.instance.get_runs(dg.RunsFilter(tags={HORIZON: horizon, WHAT: what}))[::-1]

    def runs_of(self, step: str, horizon: str = "5m") -> list[dg.DagsterRun]:
        """Runs that made a step, oldest first."""
        key = names.key(horizon, step)
        return [run for run in self.daemon.instance.get_runs()[::-1] if key in (run.asset_selection or ())]

    def failure(self, run: dg.DagsterRun) -> str:
        """What a failed run says."""
        logs = self.daemon.instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
        return " ".join(str(entry.dagster_event.event_specific_data.error) for entry in logs if entry.dagster_event)

    def told(self, step: str, horizon: str = "5m") -> dict[str, Any]:
        """The newest metadata of a step."""
        event = self.daemon.instance.get_latest_materialization_event(names.key(horizon, step))
        assert event is not None
        assert event.asset_materialization is not None
        return {name: value.value for name, value in event.asset_materialization.metadata.items()}

    def table(self, step: str, horizon: str = "5m") -> pl.DataFrame:
        return self.lake.scan(names.table(step, horizon)).sort("symbol", "timestamp").collect()

    def next_run_is_killed(self) -> None:
        """The next run happens in a process of its own, which is killed in the middle of its first write."""
        launcher = self.daemon.instance.run_launcher
        launch = launcher.launch_run

        def killed(context: LaunchRunContext) -> None:
            launcher.launch_run = launch  # type: ignore[method-assign]
            words = [sys.executable, "-m", "tests.loop.killed", str(self.root), context.dagster_run.run_id]
            done = subprocess.run(words, cwd=REPOSITORY, env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, timeout=200)
            assert done.returncode == -signal.SIGKILL
            run = self.daemon.instance.get_run_by_id(context.dagster_run.run_id)
            assert run is not None
            assert run.status == dg.DagsterRunStatus.STARTED  # a process that is gone tells nobody
            # What Dagster's run monitoring does when it finds that out.
            self.daemon.instance.report_run_failed(run, "the run's process is gone")

        launcher.launch_run = killed  # type: ignore[method-assign]

    def postgres_is_killed(self) -> None:
        """SIGKILL to the server: nothing is shut down in order. Its sessions end when they notice."""
        server = psutil.Process(int((self.root / "postgres" / "data" / "postmaster.pid").read_text().split()[0]))
        family = [server, *server.children(recursive=True)]
        server.kill()
        _, alive = psutil.wait_procs(family, timeout=30)
        assert not alive


def small_configs(folder: Path) -> Path:
    """A copy of Tenor's config in `folder`, with small sets and a resampled horizon, 30m, that has no model."""
    made = folder / "conf"
    shutil.copytree(SHIPPED, made, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    (made / "features" / "few.yaml").write_text(FEW_FEATURES)
    (made / "factors" / "few.yaml").write_text(FEW_FACTORS)
    untrained = "  - override /retraining: 'off'\n\ninterval"
    (made / "horizon" / "30m.yaml").write_text(HALF_HOUR.replace("\ninterval", untrained, 1))
    return made


@contextmanager
def replayed(
    folder: Path, configs: Path, words: list[str], vendor: Vendor, history: int, now: datetime
) -> Iterator[Replay]:
    """The store below `folder` with the vendor's first `history` sessions there to be read, at the instant `now`.

    words: which horizons, and how; the store and its source go without saying. The environment of this process and of
    those that it starts says what that of `tenor up` would. No run of a replay changes the config: it is composed once
    and not for each of hundreds of runs, which took two fifths of the time.
    """
    root, told = folder / "store", folder / "clock"
    clock = FileClock(told)
    source = ["source=parquet", f"source.path='{vendor.glob}'", "universe=all", f"store.root='{root}'"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TENOR_CONF", str(configs))
        patch.setenv("TENOR_HOME", str(root))
        patch.setenv(VARIABLE, str(told))
        patch.setenv(OVERRIDES_VARIABLE, shlex.join([*words, *source]))
        once = cache(lambda *given: compose(given))
        patch.setattr(settings, "compose", lambda given: once(*given))
        for day in vendor.sessions[:history]:
            vendor.send(day)
        clock.set(now)
        with daemon(root, clock) as running:
            yield Replay(root, vendor, running, [*words, *source])
