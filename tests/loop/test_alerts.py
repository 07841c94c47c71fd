"""Under Dagster's own daemons a source dies and comes back: each thing that this makes wrong is told once each way."""

import json
from collections import Counter
from datetime import timedelta

import pytest

from resources.alerts import AlertState
from tests.loop.test_month import HISTORY, Month, month  # noqa: F401

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


def told(month: Month) -> list[tuple[str, str, tuple[str, ...]]]:  # noqa: F811
    """Kind, state and horizons of every message so far."""
    file = month.root / "alerts" / "log.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    return [(one["kind"], one["state"], tuple(sorted({item["horizon"] for item in one["items"]}))) for one in lines]


def test_a_source_that_dies_and_comes_back_is_told_once_each_way(month: Month) -> None:  # noqa: F811
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
