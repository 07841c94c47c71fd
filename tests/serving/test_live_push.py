"""The quick check of pushed bars has the rules of the bars step; what cannot be kept is not acknowledged."""

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import httpx
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from quant.adjust import no_actions
from quant.grid import CalendarSpec, Grid
from quant.jumps import judge, no_past
from quant.validate import validate
from resources.registry import Registry
from serving.live_bars import LiveBars
from serving.live_load import NO_JUMPS
from serving.live_messages import PushedBar
from serving.live_push import Jumps, Rules, check
from serving.options import read

Serve = Callable[..., AbstractContextManager[str]]
GRID = Grid(CalendarSpec("XNYS"), "5m")
SLOTS = GRID.slots(date(2024, 3, 14), date(2024, 3, 15))
LATER = datetime(2024, 4, 1, tzinfo=UTC)
PRICE = st.sampled_from([None, 0.0, -1.0, 1.0, 2.0, 3.0])


def memory() -> tuple[Rules, LiveBars, Jumps]:
    bars = LiveBars(GRID, ("AAA", "BBB"), (), 400)
    return Rules(GRID, (), (), None, no_actions()), bars, Jumps(bars, NO_JUMPS)


@st.composite
def pushed(draw: st.DrawFn) -> PushedBar:
    stamp = SLOTS[draw(st.integers(0, 2))] + np.timedelta64(draw(st.sampled_from([0, 0, 0, 1])), "m")
    values = {name: draw(PRICE) for name in ("open", "high", "low", "close")}
    if draw(st.booleans()):
        values = {"open": 2.0, "high": 3.0, "low": 1.0, "close": 2.0}
    volume = draw(st.sampled_from([None, -1.0, 0.0, 5.0]))
    symbol = draw(st.sampled_from(["AAA", "BBB"]))
    return PushedBar(symbol=symbol, timestamp=stamp.item().replace(tzinfo=UTC), volume=volume, **values)


@settings(max_examples=80)
@given(st.lists(pushed(), min_size=1, max_size=8))
def test_the_quick_check_takes_exactly_the_rows_that_the_bars_step_takes(sent: list[PushedBar]) -> None:
    rules, bars, jumps = memory()
    found = check(dict(enumerate(sent)), rules, bars, jumps, LATER)
    frame = pl.DataFrame(
        [{**one.model_dump(), "source": "pushed"} for one in sent],
        schema={"symbol": pl.String, "timestamp": pl.Datetime("us", "UTC")}
        | dict.fromkeys(("open", "high", "low", "close", "volume"), pl.Float64)
        | {"source": pl.String},
    )
    expected = validate(frame, GRID)
    columns = ["symbol", "timestamp", "open", "high", "low", "close", "volume"]
    taken = found.frame.with_columns(pl.col("volume").fill_nan(None)).sort("symbol", "timestamp")
    assert taken.select(columns).equals(expected.good.select(columns))
    reasons = sorted(one["detail"].split(":")[0] for one in found.refused)
    assert reasons == sorted(expected.rejected["reason"])


@pytest.mark.parametrize("one_by_one", [True, False])
def test_jumps_are_told_as_the_bars_step_tells_them_also_where_a_scale_stays(one_by_one: bool) -> None:
    chance = np.random.default_rng(2)
    close = 50 * np.exp(np.cumsum(chance.normal(0, 0.01, 60)))
    close[20] *= 100  # a misplaced point
    close[40:] *= 10  # another scale, that stays
    frame = pl.DataFrame(
        {
            "symbol": "AAA",
            "timestamp": pl.Series(SLOTS[:60]).dt.replace_time_zone("UTC"),
            **{name: close for name in ("open", "high", "low", "close")},
            "volume": 1.0,
        }
    )
    rules, bars, jumps = memory()
    rules = Rules(GRID, (), (), 4.0, no_actions())
    sent = [PushedBar(**row) for row in frame.iter_rows(named=True)]
    taken = []
    for piece in [[one] for one in sent] if one_by_one else [sent]:
        told = check(dict(enumerate(piece)), rules, bars, jumps, LATER)
        bars.put(told.frame)
        taken += told.frame["timestamp"].to_list()
        assert len(told.columns["symbol"]) == len(piece), "the journal has jumps too: later ones are judged by them"
    good = judge(frame.with_columns(known_at=pl.col("timestamp")), no_past(), no_actions(), GRID, 4.0).good
    assert taken == good["timestamp"].to_list()
    assert 20 < 60 - len(taken) + 19 < 30


@pytest.fixture
def served(registry: Registry, tmp_path: Path, serve: Serve):  # type: ignore[no-untyped-def]
    live = read().live.model_copy(update={"deadline_seconds": 0.2, "queue": 1})
    with serve(tmp_path, live=live) as address, httpx.Client(base_url=address, timeout=30) as client:
        while client.get("/signals/5m").status_code != 200:
            pass
        yield client


def rows(bars: pl.DataFrame) -> list[dict]:
    numbers = ("open", "high", "low", "close", "volume")
    return [
        {"symbol": row["symbol"], "timestamp": row["timestamp"].isoformat(), **{name: row[name] for name in numbers}}
        for row in bars.iter_rows(named=True)
    ]


def test_bars_that_the_disk_refuses_are_neither_acknowledged_nor_served(
    served: httpx.Client, bars: pl.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = bars["timestamp"].unique().sort()[0]
    body = {"horizon": "5m", "bars": rows(bars.filter(pl.col("timestamp") == first))}

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", full)
        answer = served.post("/bars", json=body)
        assert answer.status_code == 503
        assert "No space left" in answer.json()["detail"]
        assert answer.headers["retry-after"]
    assert served.get("/api/data/AAA", params={"horizon": "5m"}).json()["timestamp"] == []
    assert served.post("/bars", json=body).json()["new"] == len(body["bars"])


def test_a_reader_that_does_not_keep_up_is_closed_with_a_code(served: httpx.Client, bars: pl.DataFrame) -> None:
    stamps = bars["timestamp"].unique().sort()[:40]
    with connect(f"{str(served.base_url).replace('http', 'ws')}/stream", compression=None) as socket:
        socket.recv(10)
        body = {"horizon": "5m", "bars": rows(bars.filter(pl.col("timestamp") <= stamps[-1]))}
        assert served.post("/bars", json=body).status_code == 200
        with pytest.raises(ConnectionClosed) as closed:
            list(socket)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1013


@pytest.mark.parametrize("stamp", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_times_beyond_the_calendar_are_refused(served: httpx.Client, stamp: str) -> None:
    bar = {"symbol": "AAA", "timestamp": stamp, **dict.fromkeys(("open", "high", "low", "close"), 1.0)}
    assert served.post("/bars", json={"horizon": "5m", "bars": [bar]}).status_code == 422
    assert served.get("/api/data/AAA", params={"horizon": "5m", "start": stamp}).status_code == 422


def test_a_question_s_time_without_an_offset_is_utc_and_a_pushed_bar_s_is_refused(
    served: httpx.Client, bars: pl.DataFrame
) -> None:
    moment = bars["timestamp"].max() - timedelta(hours=1)
    path, asked = "/api/data/AAA", {"horizon": "5m", "limit": 5}
    for name in ("start", "end", "cursor"):
        naive = served.get(path, params={**asked, name: f"{moment:%Y-%m-%dT%H:%M:%S}"})
        assert naive.status_code == 200, naive.text
        assert naive.json() == served.get(path, params={**asked, name: moment.isoformat()}).json()
    bar = {"symbol": "AAA", "timestamp": "2024-01-02T15:00:00", **dict.fromkeys(("open", "high", "low", "close"), 1.0)}
    assert "timezone" in served.post("/bars", json={"horizon": "5m", "bars": [bar]}).text


def test_an_unknown_horizon_or_symbol_of_a_stream_is_refused_before_it_opens(served: httpx.Client) -> None:
    address = str(served.base_url).replace("http", "ws")
    for query in ("horizon=5n", "symbol=AAB"):
        with pytest.raises(Exception, match="404"), connect(f"{address}/stream?{query}"):
            pass


def test_a_bar_may_be_ahead_of_our_clock_by_seconds_and_not_by_more() -> None:
    rules, bars, jumps = memory()
    end = GRID.ends(SLOTS[:1])[0].item().replace(tzinfo=UTC)
    price = dict.fromkeys(("open", "high", "low", "close"), 1.0)
    one = PushedBar(symbol="AAA", timestamp=SLOTS[0].item().replace(tzinfo=UTC), **price)
    early = check({0: one}, rules, bars, jumps, end - timedelta(seconds=1))
    assert early.frame["known_at"].to_list() == [end]
    assert "has not ended" in check({0: one}, rules, bars, jumps, end - timedelta(seconds=9)).refused[0]["detail"]
