"""Under Dagster's own daemons a source dies and comes back: each thing that this makes wrong is told once each way."""

import json
from collections import Counter
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import pytest

from resources.alerts import AlertState
from tests.assets.conftest import FEW
from tests.loop.market import GRID, Vendor, bars
from tests.loop.replay import Replay, replayed

HISTORY = 5

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.fixture
def month(tmp_path: Path, configs: Path) -> Iterator[Replay]:
    vendor = Vendor(tmp_path / "vendor", bars(date(2021, 11, 1), HISTORY + 3))
    words = ["horizon=5m,30m", *FEW, "vectors.window=20", "drift.window_sessions=2"]
    now = GRID.sessions(vendor.sessions[HISTORY - 1], vendor.sessions[HISTORY - 1])[0].close + timedelta(days=1)
    with replayed(tmp_path, configs, words, vendor, HISTORY, now) as replay:
        yield replay


def told(month: Replay) -> list[tuple[str, str, tuple[str, ...]]]:
    """Kind, state and horizons of every message so far."""
    file = month.root / "alerts" / "log.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    return [(one["kind"], one["state"], tuple(sorted({item["horizon"] for item in one["items"]}))) for one in lines]


def test_a_source_that_dies_and_comes_back_is_told_once_each_way(month: Replay) -> None:
    days = month.vendor.sessions
    month.daemon.settle()
    month.vendor.send(days[HISTORY])
    month.close(days[HISTORY])
    # No service runs, which is told; nothing else is wrong.
    calm = [one for one in told(month) if one[0] != "service_stale"]
    assert calm == []

    month.vendor.dies()
    month.close(days[HISTORY + 1])
    assert told(month)[-1:] == [("run_failed", "raised", ("5m",))]
    before = len(told(month))
    for minutes in (80, 11):  # the bars are late, and have been for alerts.after.data_late
        month.clock.set(month.clock.now() + timedelta(minutes=minutes))
        month.daemon.settle()
    # It was tried again and failed again, which is the same thing; and now bars that should be here are not.
    assert told(month)[before:] == [("data_late", "raised", ("30m", "5m"))]

    month.vendor.lives()
    month.vendor.send(days[HISTORY + 1])
    month.vendor.send(days[HISTORY + 2])
    month.close(days[HISTORY + 2])
    ended = Counter(one for one in told(month)[before + 1 :] if one[0] != "service_stale")
    assert ended == {("run_failed", "resolved", ("5m",)): 1, ("data_late", "resolved", ("30m", "5m")): 1}
    memory = AlertState(month.root).read()
    assert {one.kind for one in memory.held} <= {"service_stale"}
    assert memory.waiting == ()
