"""A month in minutes, under Dagster's own daemons: what comes late, wrong, twice or not at all ends where it should.

At the end every partition equals a clean rebuild from the recorded bars, bit for bit.
"""

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import dagster as dg
import polars as pl
import psutil  # type: ignore[import-untyped]
import pytest
from dagster._core.launcher.base import LaunchRunContext

from assets import names
from assets.layout import layout_of
from conf.files import REPOSITORY
from defs.refresh import DUE, RANGE_END, RANGE_START, WHAT
from resources.clock import VARIABLE, FileClock
from resources.lake import Lake
from resources.settings import OVERRIDES_VARIABLE
from tests.assets.conftest import FEW, Pipeline
from tests.loop.daemon import Daemon, daemon
from tests.loop.market import GRID, Vendor, bars, turbulent

FIRST, HISTORY, MONTH = date(2021, 11, 1), 5, 12
KEY = ["symbol", "timestamp"]
VALUES = ["open", "high", "low", "close", "volume"]


class Month:
    """A store that lives through a month: its vendor, its clock, its daemons."""

    def __init__(self, root: Path, vendor: Vendor, running: Daemon, horizons: list[str]) -> None:
        self.root, self.vendor, self.daemon, self.horizons = root, vendor, running, horizons
        self.lake = Lake(root / "lake")

    @property
    def clock(self) -> FileClock:
        return self.daemon.clock

    def close(self, day: date) -> None:
        """The session's close, and what follows from it."""
        self.clock.set(GRID.sessions(day, day)[0].close + timedelta(minutes=2))
        self.daemon.settle()

    def refreshes(self, horizon: str = "5m") -> list[dg.DagsterRun]:
        """Oldest first."""
        tags = {"tenor/horizon": horizon, WHAT: "refresh"}
        return self.daemon.instance.get_runs(dg.RunsFilter(tags=tags))[::-1]

    def runs_of(self, step: str, horizon: str = "5m") -> list[dg.DagsterRun]:
        """Runs that made a step, oldest first."""
        key = names.key(horizon, step)
        return [run for run in self.daemon.instance.get_runs()[::-1] if key in (run.asset_selection or ())]

    def next_refresh_is_killed(self) -> None:
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

    def table(self, step: str, horizon: str = "5m") -> pl.DataFrame:
        return self.lake.scan(names.table(step, horizon)).sort(KEY).collect()


@contextmanager
def replayed(
    folder: Path,
    configs: Path,
    patch: pytest.MonkeyPatch,
    words: list[str],
    vendor: Vendor,
    history: int,
    now: datetime,
) -> Iterator[Daemon]:
    """The daemons over the store below `folder`, after the vendor's first `history` sessions, at the instant `now`."""
    root, told = folder / "store", folder / "clock"
    clock = FileClock(told)
    patch.setenv("TENOR_CONF", str(configs))
    patch.setenv("TENOR_HOME", str(root))
    patch.setenv(VARIABLE, str(told))
    patch.setenv(OVERRIDES_VARIABLE, shlex.join(words))
    for day in vendor.sessions[:history]:
        vendor.send(day)
    clock.set(now)
    with daemon(root, clock) as running:
        yield running


@pytest.fixture
def month(tmp_path: Path, configs: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Month]:
    root = tmp_path / "store"
    vendor = Vendor(tmp_path / "vendor", turbulent(bars(FIRST, HISTORY + MONTH), date(2021, 11, 22)))
    words = [
        "horizon=5m,30m", *FEW, "source=parquet", f"source.path='{vendor.glob}'", "universe=all",
        "vectors.window=20", "drift.window_sessions=2", f"store.root='{root}'",
    ]  # fmt: skip
    now = datetime(2021, 11, 6, 12, tzinfo=UTC)  # a Saturday
    with replayed(tmp_path, configs, monkeypatch, words, vendor, HISTORY, now) as running:
        yield Month(root, vendor, running, words)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_month_with_every_mishap_ends_as_a_clean_rebuild(month: Month, tmp_path: Path) -> None:
    vendor, days = month.vendor, month.vendor.sessions
    late, revised, missing, dead, killed, restarted = (days[at] for at in (6, 8, 10, 12, 14, 15))

    month.daemon.settle()  # the first start: all there is, in one run for each step that can share one
    assert [spans(run) for run in month.refreshes()] == [(str(days[0]), str(days[HISTORY - 1]))]
    assert [len(month.runs_of(step)) for step in ("bars", "features", "factors", "drift")] == [1, 1, 1, 1]
    assert month.table("factors")["timestamp"].dt.date().unique().sort().to_list() == days[:HISTORY]

    for index, day in enumerate(days[HISTORY:], HISTORY):
        rows = vendor.of(day)
        if day == late:
            vendor.send(
                day, rows.filter((pl.col("symbol") != "S001") | (pl.col("timestamp") < rows["timestamp"].max()))
            )
        elif day != missing:
            vendor.send(day)
        if day == days[7]:
            vendor.send(late)
        if day == days[9]:
            noon = pl.col("timestamp").dt.hour() == 17
            vendor.send(revised, vendor.of(revised).with_columns(close=pl.when(noon).then("low").otherwise("close")))
        if day == days[11]:
            vendor.send(missing)
        if day == dead:
            vendor.dies()
        if day == killed:
            month.next_refresh_is_killed()
        if day == restarted:
            month.postgres_is_killed()
        before = len(month.runs_of("features"))
        month.close(day)
        if day == missing:
            assert month.table("bars")["timestamp"].dt.date().max() == days[index - 1]
        elif day == dead:
            newest = month.refreshes()[-1]
            assert newest.status == dg.DagsterRunStatus.FAILURE
            assert "vendor" in failure(month, newest)
            vendor.lives()
        elif day != days[13]:
            assert len(month.runs_of("features")) - before == 1, day

    asked = [run for run in month.refreshes() if run.is_success]
    moments = [run.tags[DUE] for run in asked]
    assert len({*moments}) == len(moments)  # no due moment was served twice
    assert len(moments) == 1 + MONTH - 1  # the first start, and each session but the dead one, which the next covers
    assert {run.status for run in month.daemon.instance.get_runs()} == {
        dg.DagsterRunStatus.SUCCESS,
        dg.DagsterRunStatus.FAILURE,
    }

    # Nothing was lost: the table holds what the vendor sent last, and what was late or revised is known since it came.
    sent = pl.concat(vendor.sent.values()).sort(KEY)
    stored = month.table("bars")
    assert stored.select(*KEY, *VALUES).equals(sent.select(*KEY, *VALUES))
    changed = stored.filter(pl.col("known_at") > pl.col("timestamp") + timedelta(minutes=5))
    assert {*changed["timestamp"].dt.date()} == {late, revised}  # of `missing` the source had nothing yet: history

    # Every partition equals a clean rebuild from the recorded bars.
    clean = rebuilt(month, tmp_path / "clean")
    for horizon in ("5m", "30m"):
        for step in ("features", "factors"):
            assert month.table(step, horizon).equals(clean.table(step, horizon).sort(KEY)), (horizon, step)


def spans(run: dg.DagsterRun) -> tuple[str, str]:
    return run.tags[RANGE_START], run.tags[RANGE_END]


def failure(month: Month, run: dg.DagsterRun) -> str:
    """What a failed run says."""
    logs = month.daemon.instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
    return " ".join(str(entry.dagster_event.event_specific_data.error) for entry in logs if entry.dagster_event)


def rebuilt(month: Month, root: Path) -> Pipeline:
    """A store in which features and factors are made once, in one run, of the recorded bars."""
    clean = Pipeline(root, *(word for word in month.horizons if not word.startswith("store.root")))
    for horizon in ("5m", "30m"):
        bars_table = names.table("bars", horizon)
        rows = month.lake.scan(bars_table).collect()
        keys = rows["partition"].unique().sort().to_list()
        clean.lake.write(bars_table, [rows], keys, layout_of(clean.plan(horizon)))
        clean.run("features", "factors", horizon=horizon)
    return clean
