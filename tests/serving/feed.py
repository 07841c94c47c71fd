"""A feed, as tests are one: bars of the table as a client pushes them, and waiting for what becomes of them."""

import time
from collections.abc import Callable
from typing import Any

import httpx
import polars as pl

NUMBERS = ("open", "high", "low", "close", "volume")


def sent(bars: pl.DataFrame) -> list[dict[str, Any]]:
    """Rows of the bars table as a client pushes them."""
    return [
        {"symbol": row["symbol"], "timestamp": row["timestamp"].isoformat(), **{name: row[name] for name in NUMBERS}}
        for row in bars.iter_rows(named=True)
    ]


def push(client: httpx.Client, bars: pl.DataFrame) -> dict[str, Any]:
    """Push bars of the horizon 5m; what the service says of them."""
    answer = client.post("/bars", json={"horizon": "5m", "bars": sent(bars)})
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


def until(true: Callable[[], Any]) -> Any:
    """What it gives, once that is true."""
    end = time.monotonic() + 30
    while not (found := true()):
        assert time.monotonic() < end
        time.sleep(0.02)
    return found
