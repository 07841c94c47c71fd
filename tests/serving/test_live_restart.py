"""A service that is killed comes back with every acknowledged bar, and with the live state it had, bit for bit."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest

from quant.bundle import Bundle
from resources.arrivals import Arrivals
from resources.registry import Registry
from tests.serving.feed import push

REPOSITORY = Path(__file__).parents[2]


@contextmanager
def process(root: Path) -> Iterator[tuple[httpx.Client, subprocess.Popen[bytes], float]]:
    """`python -m serving`; with how many seconds passed from its start until it was ready."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = [sys.executable, "-m", "serving", "--store", str(root), "--port", str(port), "--log-level", "error"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TENOR_")}
    began = time.monotonic()
    service = subprocess.Popen(words, cwd=REPOSITORY, env=environment)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            while not _ready(client):
                assert service.poll() is None, "the service ended"
                assert time.monotonic() < began + 60
                time.sleep(0.02)
            yield client, service, time.monotonic() - began
    finally:
        service.kill()
        service.wait(30)


def _ready(client: httpx.Client) -> bool:
    try:
        return client.get("/signals/5m").status_code == 200
    except httpx.TransportError:
        return False


def section(client: httpx.Client, stamp: datetime) -> dict[str, Any]:
    until = time.monotonic() + 30
    while time.monotonic() < until:
        found = client.get("/signals/5m").json()["sections"]
        if found and datetime.fromisoformat(found[0]["timestamp"]) == stamp:
            return found[0]
        time.sleep(0.02)
    raise AssertionError(f"the section of {stamp} did not close")


@pytest.mark.slow
def test_killed_while_bars_come_it_loses_none_and_goes_on_with_the_same_bits(
    registry: Registry, bundles: list[Bundle], bars: pl.DataFrame, tmp_path: Path
) -> None:
    bars = bars.with_columns(price_factor=pl.lit(1.0))
    whole = bars.group_by("timestamp", maintain_order=True).len().filter(pl.col("len") == 4)["timestamp"]
    stamps = bars["timestamp"].unique().sort()
    last, following = whole[80], whole[81]
    with process(tmp_path) as (client, service, _):
        push(client, bars.filter(pl.col("timestamp") < stamps[40]))
        for stamp in stamps.filter((stamps >= stamps[40]) & (stamps <= last)):
            push(client, bars.filter(pl.col("timestamp") == stamp))
        before = section(client, last)
        features = client.get("/api/features/BBB", params={"horizon": "5m", "limit": 50}).json()
        service.send_signal(signal.SIGKILL)
        service.wait(30)
    assert Arrivals(tmp_path).read("5m").height == bars.filter(pl.col("timestamp") <= last).height

    with process(tmp_path) as (client, _, seconds):
        print(f"ready {seconds:.2f} s after the process started")
        again = section(client, last)
        assert again == before, "the same section, under the same signals"
        assert client.get("/api/features/BBB", params={"horizon": "5m", "limit": 50}).json() == features
        push(client, bars.filter(pl.col("timestamp") > last, pl.col("timestamp") <= following))
        told = section(client, following)
    expected = bundles[0].predict_bars(bars.filter(pl.col("timestamp") <= following), 1)
    assert [one["prediction"] for one in told["signals"]] == expected["prediction"].to_list()
