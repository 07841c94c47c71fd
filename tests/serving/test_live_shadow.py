"""A challenger that reads other inputs computes its own where there are bars, and answers nobody."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest

from conf.options import Beside
from quant.bundle import Bundle
from resources.lake import Lake
from resources.registry import Registry
from serving.log_rows import table
from serving.options import read
from tests.serving.feed import push, sent

Serve = Callable[..., AbstractContextManager[str]]
FACTORS = {"smooth": "mean(rank(momentum), 9)", "volume_ratio": "volume_ratio"}
LIVE = read().live.model_copy(update={"deadline_seconds": 0.4, "refresh_seconds": 0.1})
LOG = read().log.model_copy(update={"flush_seconds": 0.05})


@pytest.fixture(scope="module")
def unsplit(bars: pl.DataFrame) -> pl.DataFrame:
    return bars.with_columns(price_factor=pl.lit(1.0))


@pytest.fixture(scope="module")
def other(unsplit: pl.DataFrame, train_bundle: Callable[..., Bundle]) -> Bundle:
    return train_bundle(unsplit, FACTORS, ())


@pytest.fixture
def client(registry: Registry, other: Bundle, tmp_path: Path, serve: Serve) -> Iterator[httpx.Client]:
    registry.write(other, {})
    beside = Beside(shadow=True, canary=0.9)
    with (
        serve(tmp_path, follow_seconds=0.1, beside=beside, live=LIVE, log=LOG) as url,
        httpx.Client(base_url=url, timeout=30) as made,
    ):
        until(lambda: made.get("/signals/5m").status_code == 200)
        yield made


def until(true: Callable[[], Any]) -> Any:
    end = time.monotonic() + 30
    while (found := true()) is None or found is False:
        assert time.monotonic() < end
        time.sleep(0.02)
    return found


def shadows(root: Path, route: str) -> pl.DataFrame:
    lake = Lake(f"{root}/lake")
    if not lake.exists(table("5m")):
        return pl.DataFrame()
    return lake.scan(table("5m")).filter(pl.col("role") == "shadow", pl.col("route") == route).sort("signal").collect()


def test_it_scores_live_sections_under_the_champions_signals_with_the_bits_of_the_whole_history(
    client: httpx.Client, other: Bundle, bundles: list[Bundle], unsplit: pl.DataFrame, tmp_path: Path
) -> None:
    beside = until(lambda: client.get("/models/5m").json()["challenger"])
    assert (beside["bundle"], beside["status"]) == (other.id, "shadow")
    assert "reads other inputs than the champion (factors" in beside["problem"]
    assert "live sections and requests with bars" in beside["problem"]
    whole = unsplit.group_by("timestamp", maintain_order=True).len().filter(pl.col("len") == 4)["timestamp"]
    stamps = whole[60:63]
    push(client, unsplit.filter(pl.col("timestamp") < stamps[0]))
    time.sleep(1.0)  # until its state is warm
    told: dict[datetime, dict[str, Any]] = {}

    def closed(stamp: datetime) -> bool:
        found = client.get("/signals/5m").json()["sections"][0]
        told[stamp] = found
        return datetime.fromisoformat(found["timestamp"]) == stamp

    last = stamps[0]
    for stamp in stamps:
        now = unsplit.filter(pl.col("timestamp") <= stamp, pl.col("timestamp") >= last)
        push(client, now)
        until(lambda stamp=stamp: closed(stamp))
        last = stamp
    assert {section["bundle"] for section in told.values()} == {bundles[0].id}, "it is no canary"

    def logged(stamp: datetime) -> pl.DataFrame | None:
        rows = shadows(tmp_path, "live")
        rows = rows.filter(pl.col("timestamp") == stamp) if rows.height else rows
        return rows if rows.height else None

    for stamp in stamps:
        rows = until(lambda stamp=stamp: logged(stamp))
        expected = other.predict_bars(unsplit.filter(pl.col("timestamp") <= stamp), 1)
        assert rows["symbol"].to_list() == expected["symbol"].to_list()
        assert rows["prediction"].to_list() == expected["prediction"].to_list()
        assert rows["signal"].to_list() == [one["signal"] for one in told[stamp]["signals"]]
        assert set(rows["bundle"]) == {other.id}
        assert len(rows["inputs"][0]) == len(FACTORS)


def test_it_scores_requests_with_bars_and_leaves_rows_alone(
    client: httpx.Client, other: Bundle, bundles: list[Bundle], unsplit: pl.DataFrame, tmp_path: Path
) -> None:
    until(lambda: client.get("/models/5m").json()["challenger"])
    asked = unsplit.filter(pl.col("timestamp") <= unsplit["timestamp"].unique().sort()[100])
    rows = bundles[0].golden.drop("prediction").head(2)
    values = [dict(zip(bundles[0].factors, row, strict=True)) for row in rows.select(bundles[0].factors).rows()]
    answer = client.post("/predict", json={"horizon": "5m", "rows": [{"factors": one} for one in values]})
    assert answer.status_code == 200, answer.text
    answer = client.post("/predict", json={"horizon": "5m", "bars": sent(asked), "last": 2})
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert told["bundle"] == bundles[0].id

    found = until(lambda: rows if (rows := shadows(tmp_path, "/predict")).height else None)
    expected = other.predict_bars(asked, 2)
    assert found["signal"].to_list() == sorted(one["signal"] for one in told["predictions"])
    assert found.sort("timestamp", "symbol")["prediction"].to_list() == expected["prediction"].to_list()


def test_bars_that_are_enough_for_the_champion_alone_are_counted_and_answered(
    registry: Registry, unsplit: pl.DataFrame, train_bundle: Callable[..., Bundle], tmp_path: Path, serve: Serve
) -> None:
    wide = unsplit.with_columns(vwap=pl.col("close") * 1.0001)
    registry.write(train_bundle(wide, {"edge": "close / vwap - 1"}, ("vwap",)), {})
    with serve(tmp_path, follow_seconds=0.1, live=LIVE, log=LOG) as url, httpx.Client(base_url=url) as client:
        until(lambda: client.get("/ready").status_code == 200)
        until(lambda: client.get("/models/5m").json()["challenger"])
        asked = unsplit.filter(pl.col("timestamp") <= unsplit["timestamp"].unique().sort()[40])
        answer = client.post("/predict", json={"horizon": "5m", "bars": sent(asked), "last": 1}, timeout=30)
        assert answer.status_code == 200, answer.text
        count = float(len(answer.json()["predictions"]))
        until(lambda: f"tenor_shadow_failures_total {count}" in client.get("/metrics").text)
        assert client.get("/signals/5m").status_code in (200, 503)
