"""Answers about bars: whatever is kept of them, each is what the newest bars and tables say; and few read a table."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import polars as pl
import pytest

from quant.bundle import Bundle
from resources.lake import Lake
from resources.registry import Registry
from serving.options import read
from tests.serving.feed import push

Serve = Callable[..., AbstractContextManager[str]]
LIVE = read().live.model_copy(update={"deadline_seconds": 0.3, "refresh_seconds": 0.1, "keep": 30})
LAYOUT = {"calendar": {"name": "XNYS"}, "interval": "5m", "bars": "source"}


@pytest.fixture(scope="module")
def unsplit(bars: pl.DataFrame) -> pl.DataFrame:
    return bars.with_columns(price_factor=pl.lit(1.0))


def keep(root: Path, bundle: Bundle, bars: pl.DataFrame) -> None:
    days = bundle.recipe.grid.partition_keys(bars["timestamp"].dt.replace_time_zone(None).to_numpy(), "day").tolist()
    Lake(root / "lake").write("bars/5m", [bars.with_columns(partition=pl.Series(days))], sorted(set(days)), LAYOUT)


def warm(client: httpx.Client) -> None:
    end = time.monotonic() + 30
    while client.get("/signals/5m").status_code != 200:
        assert time.monotonic() < end
        time.sleep(0.02)


def outcomes(client: httpx.Client) -> dict[str, float]:
    lines = [line for line in client.get("/metrics").text.splitlines() if line.startswith("tenor_cache_total{")]
    return {
        kind: sum(float(line.split()[-1]) for line in lines if f'outcome="{kind}"' in line) for kind in ("hit", "miss")
    }


def expected(bars: pl.DataFrame, symbol: str, query: dict[str, Any]) -> tuple[list[datetime], list[float], bool]:
    """Times, closes, and whether there are older ones."""
    rows = bars.filter(pl.col("symbol") == symbol).sort("timestamp")
    if "start" in query:
        rows = rows.filter(pl.col("timestamp") >= datetime.fromisoformat(query["start"]))
    if "end" in query:
        rows = rows.filter(pl.col("timestamp") < datetime.fromisoformat(query["end"]))
    page = rows.tail(query["limit"])
    return page["timestamp"].to_list(), page["close"].to_list(), rows.height > query["limit"]


def test_kept_answers_are_those_of_the_bars_of_now_and_nearly_all_come_from_memory(
    registry: Registry, bundles: list[Bundle], unsplit: pl.DataFrame, tmp_path: Path, serve: Serve
) -> None:
    chance = np.random.default_rng(3)
    stamps = unsplit["timestamp"].unique().sort().to_list()
    keep(tmp_path, bundles[0], unsplit.filter(pl.col("timestamp") <= stamps[400]))
    queries: list[dict[str, Any]] = [{"limit": 20}, {"limit": 100}, {"limit": 500}]
    for _ in range(12):
        first, last = sorted(chance.choice(len(stamps), 2, replace=False).tolist())
        query = {"start": stamps[first].isoformat(), "end": stamps[last].isoformat()}
        queries.append({"limit": int(chance.integers(1, 300)), **dict(list(query.items())[chance.integers(0, 2) :])})

    def ask(client: httpx.Client, bars: pl.DataFrame) -> None:
        for query in queries:
            for symbol in ("AAA", "CCC"):
                page = client.get(f"/api/data/{symbol}", params={"horizon": "5m", **query}).json()
                times, closes, more = expected(bars, symbol, query)
                assert [datetime.fromisoformat(stamp) for stamp in page["timestamp"]] == times, query
                assert page["columns"]["close"] == closes
                assert (page["next"] is not None) >= more, query

    with serve(tmp_path, live=LIVE) as address, httpx.Client(base_url=address, timeout=30) as client:
        warm(client)
        ask(client, unsplit.filter(pl.col("timestamp") <= stamps[400]))
        before = outcomes(client)
        for stamp in stamps[401:421]:
            push(client, unsplit.filter(pl.col("timestamp") == stamp))
            ask(client, unsplit.filter(pl.col("timestamp") <= stamp))
        now = outcomes(client)
        hits, misses = (now[kind] - before[kind] for kind in ("hit", "miss"))
        assert hits + misses == 20 * 2 * len(queries)
        assert misses / (hits + misses) < 0.05

        # A revision that the pipeline wrote into the past.
        there = pl.col("timestamp") == stamps[50]
        revised = unsplit.with_columns(pl.when(there).then(pl.col("close") * 1.0001).otherwise(pl.col("close")))
        end, query = time.monotonic() + 20, {"horizon": "5m", "end": stamps[51].isoformat(), "limit": 1}
        assert client.get("/api/data/CCC", params=query).status_code == 200  # kept from now on
        keep(tmp_path, bundles[0], revised.filter(pl.col("timestamp") <= stamps[420]))
        wanted = expected(revised, "CCC", query)[1]
        assert wanted != expected(unsplit, "CCC", query)[1]
        while client.get("/api/data/CCC", params=query).json()["columns"]["close"] != wanted:
            assert time.monotonic() < end
            time.sleep(0.05)
        ask(client, revised.filter(pl.col("timestamp") <= stamps[420]))
