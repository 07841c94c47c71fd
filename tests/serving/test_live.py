"""Pushed bars over a real service: durable, validated, closed into sections, predicted with the bits of the window."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import polars as pl
import pytest

from quant.bundle import Bundle
from resources import arrivals
from resources.inference import Inference
from resources.registry import Registry
from serving.options import read

Serve = Callable[..., AbstractContextManager[str]]
NUMBERS = ("open", "high", "low", "close", "volume")
LIVE = read().live.model_copy(update={"deadline_seconds": 0.5, "refresh_seconds": 0.2})


def sent(bars: pl.DataFrame) -> list[dict[str, Any]]:
    """Rows of the bars table as a client pushes them."""
    return [
        {"symbol": row["symbol"], "timestamp": row["timestamp"].isoformat(), **{name: row[name] for name in NUMBERS}}
        for row in bars.iter_rows(named=True)
    ]


def push(client: httpx.Client, bars: pl.DataFrame) -> dict[str, Any]:
    answer = client.post("/bars", json={"horizon": "5m", "bars": sent(bars)})
    assert answer.status_code == 200, answer.text
    return answer.json()


def section(client: httpx.Client, stamp: datetime) -> dict[str, Any]:
    """The signals of a section, once it has closed."""
    until = time.monotonic() + 20
    while time.monotonic() < until:
        found = client.get("/signals/5m").json()["sections"]
        if found and datetime.fromisoformat(found[0]["timestamp"]) >= stamp:
            assert datetime.fromisoformat(found[0]["timestamp"]) == stamp
            return found[0]
        time.sleep(0.02)
    raise AssertionError(f"the section of {stamp} did not close")


@pytest.fixture(scope="module")
def unsplit(bars: pl.DataFrame) -> pl.DataFrame:
    """The market without its split: nobody declares one to the service."""
    return bars.with_columns(price_factor=pl.lit(1.0))


@pytest.fixture
def live(registry: Registry, tmp_path: Path, serve: Serve) -> Iterator[httpx.Client]:
    with serve(tmp_path, live=LIVE) as address:
        with Inference(address) as inference:
            inference.wait_ready(30)
        with httpx.Client(base_url=address, timeout=30) as client:
            yield client


def test_signals_of_pushed_sections_have_the_bits_of_predictions_from_the_whole_history(
    live: httpx.Client, bundles: list[Bundle], unsplit: pl.DataFrame
) -> None:
    stamps = unsplit["timestamp"].unique().sort()[:60]
    keys, X = bundles[0].recipe.rows(unsplit.filter(pl.col("timestamp") <= stamps[-1]))
    expected = keys.with_columns(prediction=bundles[0].predict_rows(X))
    push(live, unsplit.filter(pl.col("timestamp") < stamps[50]))
    for stamp in stamps[50:]:
        push(live, unsplit.filter(pl.col("timestamp") == stamp))
        told = section(live, stamp)
        wanted = expected.filter(pl.col("timestamp") == stamp)
        assert [one["symbol"] for one in told["signals"]] == wanted["symbol"].to_list()
        assert [one["prediction"] for one in told["signals"]] == wanted["prediction"].to_list()
        assert told["bundle"] == bundles[0].id
        assert told["coverage"] == wanted.height / 4 and told["complete"] == (wanted.height == 4)
