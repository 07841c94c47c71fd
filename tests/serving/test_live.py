"""Pushed bars over a real service: durable, validated, closed into sections, predicted with the bits of the window."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import polars as pl
import pytest
from websockets.sync.client import connect

from quant.adjust import ACTIONS, adjust
from quant.bundle import Bundle
from quant.inputs import bar_panel
from quant.recipe import Recipe
from resources.arrivals import Arrivals
from resources.lake import Lake
from resources.registry import Registry
from serving.options import read
from tests.serving.feed import NUMBERS, push, sent

Serve = Callable[..., AbstractContextManager[str]]
LIVE = read().live.model_copy(update={"deadline_seconds": 0.5, "refresh_seconds": 0.2})


def warm(client: httpx.Client, horizon: str = "5m") -> None:
    """Wait for the live state."""
    until = time.monotonic() + 60
    while (answer := client.get(f"/signals/{horizon}")).status_code != 200:
        assert time.monotonic() < until, answer.text
        time.sleep(0.02)


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
    with serve(tmp_path, live=LIVE) as address, httpx.Client(base_url=address, timeout=30) as client:
        warm(client)
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
        assert told["coverage"] == wanted.height / 4
        assert told["complete"] == (wanted.height == 4)


def test_a_late_bar_restates_what_follows_and_resends_nothing(
    live: httpx.Client, bundles: list[Bundle], unsplit: pl.DataFrame
) -> None:
    whole = unsplit.group_by("timestamp", maintain_order=True).len().filter(pl.col("len") == 4)["timestamp"]
    stamp, after = next((a, b) for a, b in pairwise(whole[30:]) if b - a == timedelta(minutes=5))
    now = unsplit.filter(pl.col("timestamp") == stamp)
    before = unsplit.filter(pl.col("timestamp") < stamp)
    push(live, before)
    section(live, before["timestamp"].max())
    with connect(f"{str(live.base_url).replace('http', 'ws')}/stream?horizon=5m", compression=None) as socket:
        assert json.loads(socket.recv(10))["type"] == "hello"
        push(live, now.head(3))
        told = section(live, stamp)
        assert (told["complete"], told["coverage"], told["restated_at"]) == (False, 0.75, None)
        assert len(told["signals"]) == 3
        assert json.loads(socket.recv(10))["signals"] == told["signals"]

        answer = push(live, now.tail(1))
        assert (answer["new"], answer["late"]) == (1, 1)
        again = live.get("/signals/5m").json()["sections"][0]
        assert again["signals"] == told["signals"]
        assert again["restated_at"] is not None

        push(live, unsplit.filter(pl.col("timestamp") == after))
        following = section(live, after)
        assert json.loads(socket.recv(10))["timestamp"] == following["timestamp"], "nothing was sent in between"
    expected = bundles[0].predict_bars(unsplit.filter(pl.col("timestamp") <= after), 1)
    assert [one["prediction"] for one in following["signals"]] == expected["prediction"].to_list()
    features = live.get("/api/features/" + now["symbol"][3], params={"horizon": "5m"}).json()
    assert datetime.fromisoformat(features["timestamp"][-2]) == stamp, "the late bar has features too"


def test_bars_at_fault_are_named_and_the_others_are_taken(
    live: httpx.Client, unsplit: pl.DataFrame, tmp_path: Path
) -> None:
    stamp = unsplit["timestamp"].unique().sort()[20]
    good = sent(unsplit.filter(pl.col("timestamp") == stamp))
    bar = good[0]
    minute = (stamp + timedelta(minutes=1)).isoformat()
    future = "2026-12-01T15:00:00+00:00"  # a slot of the calendar
    bad = [
        ({**bar, "symbol": "AAB"}, "symbol", "is not a symbol of this horizon"),
        ({**bar, "timestamp": minute}, "timestamp", "off_grid"),
        ({**bar, "high": bar["low"] * 0.9}, "bars[{}].high", "ohlc_order"),
        ({**bar, "close": None}, "bars[{}].close", "null_price"),
        ({**bar, "open": 0, "close": -1}, "bars[{}].open", "non_positive: a price is zero or below (open, close)"),
        ({**bar, "volume": -1}, "volume", "negative_volume"),
        ({**bar, "vwap": 3.0}, "vwap", "have no column 'vwap'"),
        ({**bar, "timestamp": future}, "timestamp", "has not ended"),
        ({**bar, "close": "101.5"}, "close", "should be a valid number"),
        ({**bar, "timestamp": "yesterday"}, "timestamp", "should be a valid datetime"),
    ]
    answer = live.post("/bars", json={"horizon": "5m", "bars": [*(one for one, _, _ in bad), *good]})
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert (told["new"], told["refused_count"]) == (len(good), len(bad))
    for row, ((_, field, detail), refusal) in enumerate(zip(bad, told["refused"], strict=True)):
        assert refusal["row"] == row
        assert refusal["field"].endswith(field.format(row))
        assert detail in refusal["detail"]
    assert told["refused"][0]["nearest"] == "AAA"

    answer = live.post("/bars", json={"horizon": "5m", "bars": [one for one, _, _ in bad]})
    assert answer.status_code == 422
    assert answer.json()["error_count"] == len(bad)
    journal = Arrivals(tmp_path).read("5m")
    assert journal.height == len(good)
    again = live.post("/bars", json={"horizon": "5m", "bars": good}).json()
    assert (again["new"], again["same"]) == (0, len(good))
    twice = live.post("/bars", json={"horizon": "5m", "bars": [good[0], good[0]]}).json()
    assert (twice["same"], twice["refused"][0]["row"]) == (1, 0)
    assert twice["refused"][0]["detail"].startswith("duplicate: ")
    assert twice["refused"][0]["field"] == "bars[0].timestamp"


def test_pages_of_data_and_features_hold_every_bar_once_from_memory_and_tables(
    registry: Registry, bundles: list[Bundle], unsplit: pl.DataFrame, tmp_path: Path, serve: Serve
) -> None:
    recipe = bundles[0].recipe
    days = recipe.grid.partition_keys(unsplit["timestamp"].dt.replace_time_zone(None).to_numpy(), "day").tolist()
    lake = Lake(tmp_path / "lake")
    layout = {"calendar": {"name": "XNYS"}, "interval": "5m", "bars": "source"}
    table = unsplit.with_columns(partition=pl.Series(days))
    stamps = unsplit["timestamp"].unique().sort()
    lake.write("bars/5m", [table.filter(pl.col("timestamp") <= stamps[-20])], sorted(set(days)), layout)
    with (
        serve(tmp_path, live=LIVE.model_copy(update={"keep": 60})) as address,
        httpx.Client(base_url=address) as client,
    ):
        warm(client)
        push(client, unsplit.filter(pl.col("timestamp") > stamps[-20]))
        section(client, stamps[-1])
        mine = unsplit.filter(pl.col("symbol") == "CCC").sort("timestamp")
        times, closes, cursor, pages = [], [], None, 0
        while True:
            query = {"horizon": "5m", "limit": 50} | ({"cursor": cursor} if cursor else {})
            page = client.get("/api/data/CCC", params=query).json()
            times, closes, pages = page["timestamp"] + times, page["columns"]["close"] + closes, pages + 1
            if (cursor := page["next"]) is None:
                break
        assert [datetime.fromisoformat(stamp) for stamp in times] == mine["timestamp"].to_list()
        assert closes == mine["close"].to_list()
        assert pages == -(-mine.height // 50)
        start, end = mine["timestamp"][-40], mine["timestamp"][-10]
        query = {"horizon": "5m", "start": start.isoformat(), "end": end.isoformat(), "columns": ["open", "volume"]}
        page = client.get("/api/data/CCC", params=query).json()
        assert page["columns"] == {name: mine[name][-40:-10].to_list() for name in ("open", "volume")}
        assert page["next"] is None

        panel_values = recipe.feature_program.run(
            bar_panel(
                unsplit, recipe.grid, slots := stamps_of(recipe, unsplit), recipe.symbols, recipe.feature_program.inputs
            )
        )
        page = client.get("/api/features/CCC", params={"horizon": "5m", "limit": 30}).json()
        rows = np.searchsorted(
            slots, np.array([stamp.removesuffix("Z") for stamp in page["timestamp"]], "datetime64[us]")
        )
        assert len(rows) == 30
        for name, values in page["columns"].items():
            expected = panel_values[name][rows, recipe.symbols.index("CCC")]
            assert np.array_equal(np.array(values, np.float64), expected, equal_nan=True)
        told = client.get("/metrics").text
        assert 'tenor_cache_total{outcome="miss",route="data"}' in told
        assert client.get("/api/data/CCD", params={"horizon": "5m"}).status_code == 404
        wrong = client.get("/api/data/CCC", params={"horizon": "5m", "columns": "clsoe"})
        assert (wrong.status_code, wrong.json()["errors"][0]["nearest"]) == (422, "close")


def test_a_feed_that_runs_ahead_of_the_table_leaves_no_hole_between_it_and_the_memory(
    registry: Registry, unsplit: pl.DataFrame, tmp_path: Path, serve: Serve, bundles: list[Bundle]
) -> None:
    recipe = bundles[0].recipe
    stamps = unsplit["timestamp"].unique().sort()
    table = unsplit.filter(pl.col("timestamp") <= stamps[60])
    days = recipe.grid.partition_keys(table["timestamp"].dt.replace_time_zone(None).to_numpy(), "day").tolist()
    layout = {"calendar": {"name": "XNYS"}, "interval": "5m", "bars": "source"}
    rows = table.with_columns(partition=pl.Series(days))
    Lake(tmp_path / "lake").write("bars/5m", [rows], sorted(set(days)), layout)
    with (
        serve(tmp_path, live=LIVE.model_copy(update={"keep": 20})) as address,
        httpx.Client(base_url=address, timeout=30) as client,
    ):
        warm(client)
        for first in range(61, len(stamps), 50):
            last = stamps[min(first + 49, len(stamps) - 1)]
            push(client, unsplit.filter(pl.col("timestamp").is_between(stamps[first], last)))
        mine = unsplit.filter(pl.col("symbol") == "CCC").sort("timestamp")
        page = client.get("/api/data/CCC", params={"horizon": "5m", "limit": mine.height + 5}).json()
        assert [datetime.fromisoformat(stamp) for stamp in page["timestamp"]] == mine["timestamp"].to_list()
        assert page["columns"]["close"] == mine["close"].to_list()
        assert page["next"] is None
        wrong = [{**bar, "timestamp": "2024-01-02T15:00:00"} for bar in sent(mine[:2])]  # no time zone
        told = client.post("/bars", json={"horizon": "5m", "bars": wrong}).json()
        assert told["errors"][0]["pointer"] == "#/bars/0/timestamp"


def test_a_new_champion_with_other_factors_answers_the_next_section_from_a_warm_state(
    live: httpx.Client, registry: Registry, unsplit: pl.DataFrame, train_bundle: Callable[..., Bundle]
) -> None:
    factors = {"smooth": "mean(rank(momentum), 9)", "volume_ratio": "volume_ratio"}
    other = train_bundle(unsplit, factors, ())
    whole = unsplit.group_by("timestamp", maintain_order=True).len().filter(pl.col("len") == 4)["timestamp"]
    stamps = whole[60:62]
    push(live, unsplit.filter(pl.col("timestamp") <= stamps[0]))
    section(live, stamps[0])
    registry.write(other, {})
    registry.promote("5m", other.id, "better")
    assert live.post("/models/5m/load").json()["changed"]
    push(live, unsplit.filter(pl.col("timestamp") > stamps[0], pl.col("timestamp") <= stamps[1]))
    told = section(live, stamps[1])
    assert told["bundle"] == other.id
    expected = other.predict_bars(unsplit.filter(pl.col("timestamp") <= stamps[1]), 1)
    assert [one["prediction"] for one in told["signals"]] == expected["prediction"].to_list()


def test_a_split_that_the_source_declares_is_in_the_factors_of_the_bars_pushed_after_it(
    registry: Registry, bundles: list[Bundle], unsplit: pl.DataFrame, tmp_path: Path, serve: Serve
) -> None:
    grid = bundles[0].recipe.grid
    sessions = grid.session_dates(unsplit["timestamp"].dt.replace_time_zone(None).to_numpy())
    ex = np.unique(sessions)[4]
    actions = pl.DataFrame({"symbol": ["BBB"], "date": [ex.item()], "split": [2.0], "dividend": [0.4]})
    split = pl.Series(sessions >= ex) & (unsplit["symbol"] == "BBB")
    raw = unsplit.with_columns(
        *(pl.when(split).then(pl.col(name) / 2).otherwise(pl.col(name)) for name in ("open", "high", "low", "close"))
    )
    whole = adjust(raw, actions.cast(ACTIONS), grid)
    assert whole["price_factor"].n_unique() == 2
    before = pl.Series(sessions < ex)
    layout = {"calendar": {"name": "XNYS"}, "interval": "5m", "bars": "source"}
    days = grid.partition_keys(raw.filter(before)["timestamp"].dt.replace_time_zone(None).to_numpy(), "day").tolist()
    lake = Lake(tmp_path / "lake")
    lake.write("bars/5m", [raw.filter(before).with_columns(partition=pl.Series(days))], sorted(set(days)), layout)
    lake.write("actions/5m", [actions.with_columns(partition=pl.lit("always"))], ["always"], layout)
    stamps = raw.filter(~before)["timestamp"].unique().sort()

    def tell(client: httpx.Client, stamp: datetime) -> None:
        told = section(client, stamp)
        expected = bundles[0].predict_bars(whole.filter(pl.col("timestamp") <= stamp), 1)
        assert [one["prediction"] for one in told["signals"]] == expected["prediction"].to_list()

    with serve(tmp_path, live=LIVE) as address, httpx.Client(base_url=address, timeout=30) as client:
        warm(client)
        for stamp in stamps[:6]:
            push(client, raw.filter(pl.col("timestamp") == stamp))
            tell(client, stamp)
    with serve(tmp_path, live=LIVE) as address, httpx.Client(base_url=address, timeout=30) as client:
        warm(client)  # bars and arrivals again
        push(client, raw.filter(pl.col("timestamp") == stamps[6]))
        tell(client, stamps[6])


def stamps_of(recipe: Recipe, bars: pl.DataFrame) -> np.ndarray:
    """The slots of a market's span."""
    days = recipe.grid.session_dates(bars["timestamp"].dt.replace_time_zone(None).to_numpy())
    return recipe.grid.slots(days.min().item(), days.max().item())


def test_a_refused_jump_costs_no_bar_that_was_taken_before_or_after_it_also_not_at_a_restart(
    registry: Registry, tmp_path: Path, serve: Serve, unsplit: pl.DataFrame
) -> None:
    stamps = unsplit["timestamp"].unique().sort()

    def bars(symbol: str, first: int, last: int, scale: float = 1.0) -> pl.DataFrame:
        there = pl.col("timestamp").is_between(stamps[first], stamps[last])
        rows = unsplit.filter(there, pl.col("symbol") == symbol)
        return rows.with_columns(pl.col(name) * scale for name in NUMBERS[:4])

    def refused(client: httpx.Client, wrong: pl.DataFrame) -> None:
        answer = client.post("/bars", json={"horizon": "5m", "bars": sent(wrong)})
        assert answer.status_code == 422, answer.text
        assert answer.json()["error_count"] == wrong.height

    def data(client: httpx.Client) -> list[dict[str, Any]]:
        asked = [client.get(f"/api/data/{symbol}", params={"horizon": "5m", "limit": 500}) for symbol in ("AAA", "BBB")]
        return [answer.json() for answer in asked]

    with serve(tmp_path, live=LIVE) as address, httpx.Client(base_url=address, timeout=30) as client:
        warm(client)
        for symbol in ("AAA", "BBB"):
            push(client, bars(symbol, 0, 20))
        refused(client, bars("AAA", 20, 20, 100.0))  # a revision of a bar that stands
        push(client, bars("BBB", 30, 30))
        refused(client, bars("BBB", 22, 26, 40.0))  # late ones, on a scale that would make the newest the jump
        before = data(client)
    with serve(tmp_path, live=LIVE) as address, httpx.Client(base_url=address, timeout=30) as client:
        warm(client)
        assert data(client) == before
        taken = [bars("AAA", 0, 20).height, bars("BBB", 0, 20).height + bars("BBB", 30, 30).height]
        assert [len(found["timestamp"]) for found in before] == taken
        refused(client, bars("AAA", 21, 21, 100.0))  # still judged by those before
        push(client, bars("AAA", 21, 21))
