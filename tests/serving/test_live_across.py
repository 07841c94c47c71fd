"""Live horizons that hang together: hours made of pushed five minutes, a model that reads both, tables that move on."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import polars as pl
import pytest
from websockets.sync.client import connect

from quant.across import Other
from quant.bundle import Bundle
from quant.grid import CalendarSpec, Grid
from quant.inputs import names
from quant.recipe import Recipe
from quant.resample import resample
from resources.lake import Lake
from resources.registry import Registry
from serving.options import read
from tests.serving.feed import push, until

Serve = Callable[..., AbstractContextManager[str]]
LIVE = read().live.model_copy(update={"deadline_seconds": 0.3, "refresh_seconds": 0.1})
XNYS = CalendarSpec("XNYS")
FIVE, HOUR = Grid(XNYS, "5m"), Grid(XNYS, "1h")
FEATURES = {
    "momentum": "close / lag(close, 6) - 1",
    "stretch": 'close / at("1h", trend) - 1',
    "slow": 'at("1h", close / lag(close, 2) - 1)',
}
FACTORS = {"momentum": "momentum", "stretch": "stretch", "slow_rank": "mean(rank(slow), 3)"}
CALENDAR = {"calendar": {"name": "XNYS"}}


@pytest.fixture(scope="module")
def unsplit(bars: pl.DataFrame) -> pl.DataFrame:
    return bars.with_columns(price_factor=pl.lit(1.0))


@pytest.fixture(scope="module")
def hours(unsplit: pl.DataFrame) -> pl.DataFrame:
    return resample(unsplit, FIVE, HOUR).sort("timestamp", "symbol")


@pytest.fixture(scope="module")
def bundle(unsplit: pl.DataFrame, hours: pl.DataFrame, train_across: Callable[..., Bundle]) -> Bundle:
    other = Other(XNYS, "1h", names(), {"trend": "mean(close, 5)"})
    symbols = ("AAA", "BBB", "CCC", "DDD")
    recipe = Recipe(XNYS, "5m", symbols, names(), FEATURES, FACTORS, others={"1h": other})
    return train_across(recipe, unsplit, {"1h": hours})


def keep(lake: Lake, horizon: str, bars: pl.DataFrame, grid: Grid, finer: str) -> None:
    days = grid.partition_keys(bars["timestamp"].dt.replace_time_zone(None).to_numpy(), "day").tolist()
    layout = {**CALENDAR, "interval": grid.interval, "bars": finer}
    lake.write(f"bars/{horizon}", [bars.with_columns(partition=pl.Series(days))], sorted(set(days)), layout)


@pytest.fixture
def live(
    bundle: Bundle, unsplit: pl.DataFrame, hours: pl.DataFrame, tmp_path: Path, serve: Serve
) -> Iterator[httpx.Client]:
    """A service with tables up to noon of the sixth session; the rest is to be pushed."""
    noon = cut(unsplit)
    keep(Lake(tmp_path / "lake"), "5m", unsplit.filter(pl.col("timestamp") < noon), FIVE, "source")
    whole = resample(unsplit.filter(pl.col("timestamp") < noon), FIVE, HOUR)
    keep(Lake(tmp_path / "lake"), "1h", whole, HOUR, "5m")
    registry = Registry(tmp_path)
    registry.write(bundle, {})
    registry.promote("5m", bundle.id, "reads 1h")
    with serve(tmp_path, live=LIVE) as address, httpx.Client(base_url=address, timeout=30) as client:
        until(lambda: client.get("/signals/5m").status_code == 200)
        yield client


def cut(bars: pl.DataFrame) -> datetime:
    return bars["timestamp"].unique().sort()[400]


def section(client: httpx.Client, stamp: datetime) -> dict[str, Any]:
    def newest() -> dict[str, Any] | None:
        found = client.get("/signals/5m").json()["sections"]
        return found[0] if found and datetime.fromisoformat(found[0]["timestamp"]) == stamp else None

    return until(newest)


def test_hours_are_made_of_pushed_bars_before_the_section_that_reads_them_closes(
    live: httpx.Client, bundle: Bundle, unsplit: pl.DataFrame, hours: pl.DataFrame
) -> None:
    stamps = unsplit["timestamp"].unique().sort().to_list()[400:430]  # over two ends of an hour
    for stamp in stamps:
        now = unsplit.filter(pl.col("timestamp") == stamp)
        push(live, now)
        told = section(live, stamp)
        # As training has it, were these bars known when they are here: the hour that ends with a bar is known with it.
        until_now = unsplit.filter(pl.col("timestamp") <= stamp)
        theirs = resample(until_now, FIVE, HOUR)
        expected = bundle.predict_bars(until_now, 1, absent=[], others={"1h": theirs})
        assert [one["symbol"] for one in told["signals"]] == expected["symbol"].to_list()
        assert [one["prediction"] for one in told["signals"]] == expected["prediction"].to_list()
    whole = hours.filter(pl.col("symbol") == "AAA", pl.col("timestamp") <= stamps[20])
    page = live.get("/api/data/AAA", params={"horizon": "1h", "limit": 500, "end": stamps[20].isoformat()}).json()
    assert page["columns"]["close"][:-1] == whole["close"].to_list()[: len(page["columns"]["close"]) - 1]
    bar = {"symbol": "AAA", "timestamp": "2023-11-28T15:30:00Z", **dict.fromkeys(("open", "high", "low", "close"), 1)}
    refused = live.post("/bars", json={"horizon": "1h", "bars": [bar]})
    assert refused.status_code == 409
    assert "push these" in refused.json()["detail"]


def test_an_hour_that_a_restart_finds_half_made_closes_when_it_is_whole(
    live: httpx.Client, bundle: Bundle, unsplit: pl.DataFrame, tmp_path: Path, serve: Serve
) -> None:
    stamps = unsplit["timestamp"].unique().sort()[400:430]
    ends = [stamp for stamp in stamps if HOUR.ends(HOUR.floor(_naive(stamp)))[0] == FIVE.ends(_naive(stamp))[0]]
    half = [stamp for stamp in stamps if stamp < ends[1]][:-3]
    push(live, unsplit.filter(pl.col("timestamp").is_in(half)))
    section(live, half[-1])

    def closed(address: str) -> datetime:
        with connect(f"{address.replace('http', 'ws')}/stream", compression=None) as socket:
            return datetime.fromisoformat(json.loads(socket.recv(10))["horizons"]["1h"])

    first = HOUR.floor(_naive(ends[0]))[0].item().replace(tzinfo=UTC)
    with serve(tmp_path, live=LIVE) as address, httpx.Client(base_url=address, timeout=30) as client:
        until(lambda: client.get("/signals/5m").status_code == 200)
        section(client, half[-1])
        time.sleep(4 * LIVE.deadline_seconds)
        assert closed(address) == first
        push(client, unsplit.filter(pl.col("timestamp") > half[-1], pl.col("timestamp") <= ends[1]))
        until(lambda: closed(address) > first)


def _naive(stamp: datetime) -> np.ndarray:
    return np.array([stamp.replace(tzinfo=None)], "datetime64[us]")


def test_bars_that_the_pipeline_wrote_are_taken_from_the_tables_and_their_newest_section_gets_signals(
    live: httpx.Client, bundle: Bundle, unsplit: pl.DataFrame, tmp_path: Path
) -> None:
    stamp = unsplit["timestamp"].unique().sort()[420]
    now = unsplit.filter(pl.col("timestamp") <= stamp)
    hourly = resample(now, FIVE, HOUR)
    keep(Lake(tmp_path / "lake"), "1h", hourly, HOUR, "5m")
    time.sleep(0.5)
    keep(Lake(tmp_path / "lake"), "5m", now, FIVE, "source")
    told = section(live, stamp)
    expected = bundle.predict_bars(now, 1, others={"1h": hourly})
    assert [one["prediction"] for one in told["signals"]] == expected["prediction"].to_list()
