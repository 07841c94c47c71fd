"""After the tightest vacuum every answer that somebody was told is explained as before, to the bit."""

import json
from pathlib import Path
from typing import Any

import pytest

from resources import removal
from resources.lake import Lake
from tests.defs.test_explain import Say, bars, bundles, say, store  # noqa: F401
from tests.defs.test_vacuum import aged, horizon, swept

SIGNALS = ("asked.0", "sent.0", "canary.0")


def told(answer: tuple[int, str, str]) -> Any:
    status, out, _ = answer
    assert status == 0
    return json.loads(out)


@pytest.mark.slow  # trains two bundles
def test_answers_are_explained_after_a_vacuum_as_they_were_before(
    store: Path,  # noqa: F811
    say: Say,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(removal, "SETTLING", 0.0)
    lake = Lake(store / "lake")
    layout = lake.layout("bars/5m")
    assert layout is not None
    day = lake.partitions("bars/5m")[0]
    rows = lake.scan("bars/5m").collect()
    # The first session is taken away and brought back: two versions that nobody was told anything from.
    lake.write("bars/5m", [rows.filter(partition=day).head(1)], [day], layout)
    lake.write("bars/5m", [rows.filter(partition=day)], [day], layout)
    aged(store, 90)
    before = [told(say(signal, "--json")) for signal in SIGNALS]
    policy = {"5m": horizon(bundles=0, versions_days=1, reports_days=1, logs_days=1)["1h"]}
    assert swept(store, policy)
    assert [told(say(signal, "--json")) for signal in SIGNALS] == before
