"""What was published comes back as it was: the same ids, values and times, whatever ended the service."""

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.sync.client import connect

from resources.journal import JournalError
from resources.registry import Registry
from serving.live_published import Published, everything, history, prune
from serving.live_section import SectionSignals
from serving.options import read
from serving.record import Scored
from tests.serving.feed import push, until

Serve = Callable[..., AbstractContextManager[str]]
LIVE = read().live.model_copy(update={"deadline_seconds": 0.4, "refresh_seconds": 0.2})
AT = datetime(2026, 1, 5, 15, 0, 0, 123457, tzinfo=UTC)
SLOT = np.datetime64("2026-01-05T14:55", "us")


@pytest.fixture(scope="module")
def unsplit(bars: pl.DataFrame) -> pl.DataFrame:
    return bars.with_columns(price_factor=pl.lit(1.0))


@pytest.fixture
def start(registry: Registry, tmp_path: Path, serve: Serve) -> Callable[[], AbstractContextManager[httpx.Client]]:
    @contextmanager
    def started() -> Iterator[httpx.Client]:
        with serve(tmp_path, live=LIVE) as address, httpx.Client(base_url=address, timeout=30) as client:
            until(lambda: client.get("/signals/5m").status_code == 200)
            yield client

    return started


def sections(client: httpx.Client) -> list[dict[str, Any]]:
    return client.get("/signals/5m", params={"sections": 1000}).json()["sections"]


def closed(client: httpx.Client, stamp: datetime) -> dict[str, Any]:
    def newest() -> dict[str, Any] | None:
        found = sections(client)[:1]
        return found[0] if found and datetime.fromisoformat(found[0]["timestamp"]) == stamp else None

    return until(newest)


@contextmanager
def listening(client: httpx.Client) -> Iterator[tuple[Any, str]]:
    """A stream's socket, and the newest closed section that its hello names."""
    with connect(f"{str(client.base_url).replace('http', 'ws')}/stream?horizon=5m", compression=None) as socket:
        yield socket, json.loads(socket.recv(10))["horizons"]["5m"]


def test_sections_come_back_after_a_restart_as_they_were_sent_and_none_is_sent_again(
    start: Callable[[], AbstractContextManager[httpx.Client]], unsplit: pl.DataFrame
) -> None:
    stamps = unsplit["timestamp"].unique().sort()
    at = {stamp: unsplit.filter(pl.col("timestamp") == stamp) for stamp in stamps[:44]}
    with start() as client:
        push(client, unsplit.filter(pl.col("timestamp") < stamps[40]))
        closed(client, stamps[39])
        push(client, at[stamps[40]].head(2))  # closes at its deadline
        closed(client, stamps[40])
        push(client, at[stamps[40]])  # the others come late
        push(client, at[stamps[41]])
        closed(client, stamps[41])
        before = sections(client)
    assert [one["restated_at"] is not None for one in before[:3]] == [False, True, False]
    with start() as client:
        assert sections(client) == before
        with listening(client) as (socket, newest):
            assert datetime.fromisoformat(newest) == stamps[41]
            push(client, at[stamps[42]])
            told = closed(client, stamps[42])
            assert json.loads(socket.recv(10))["signals"] == told["signals"], "nothing else was sent before"
        again = sections(client)
        assert again[1:] == before
    ids = [one["signal"] for section in again for one in section["signals"]]
    assert len(set(ids)) == len(ids)


def test_a_section_that_was_open_when_the_service_ended_is_sent_once_its_bars_are_there(
    start: Callable[[], AbstractContextManager[httpx.Client]],
    unsplit: pl.DataFrame,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = unsplit.group_by("timestamp", maintain_order=True).len().filter(pl.col("len") == 4)["timestamp"]
    stamp = whole[30]
    monkeypatch.setattr("serving.live_feed.Feed._until", lambda *_: datetime.max.replace(tzinfo=UTC))
    now = unsplit.filter(pl.col("timestamp") == stamp)
    with start() as client:
        push(client, unsplit.filter(pl.col("timestamp") < stamp))
        push(client, now.head(3))
    with start() as client:
        with listening(client) as (socket, _):
            push(client, now.tail(1))
            told = json.loads(socket.recv(10))
        assert (datetime.fromisoformat(told["timestamp"]), told["complete"]) == (stamp, True)
        assert closed(client, stamp)["signals"] == told["signals"]


def test_a_bar_revised_and_revised_back_is_known_since_then_also_after_a_restart(
    start: Callable[[], AbstractContextManager[httpx.Client]], unsplit: pl.DataFrame
) -> None:
    stamps = unsplit["timestamp"].unique().sort()
    first = unsplit.filter(pl.col("timestamp") <= stamps[30])
    one = unsplit.filter(pl.col("timestamp") == stamps[20]).head(1)
    symbol = one["symbol"][0]

    def data(client: httpx.Client) -> dict[str, Any]:
        return client.get(f"/api/data/{symbol}", params={"horizon": "5m", "limit": 100}).json()

    with start() as client:
        push(client, first)
        known = data(client)["known_at"]
        for factor in (1.0005, 1.0):
            push(client, one.with_columns(pl.col("close", "high") * factor))
        before = data(client)
        assert [was != now for was, now in zip(known, before["known_at"], strict=True)].count(True) == 1
    with start() as client:
        assert data(client) == before


# -- the journal alone -------------------------------------------------------------------------------------------------


def section(slot: int, value: float = 0.1, request: str = "a", closed_at: datetime = AT) -> SectionSignals:
    return SectionSignals(
        horizon="5m",
        slot=SLOT + np.timedelta64(5 * slot, "m"),
        closed_at=closed_at,
        bundle="b",
        number=3,
        coverage=2 / 3,
        complete=False,
        symbols=["AAA"],
        scored=Scored(np.array([value]), request),
        shares=np.array([1 / 3]),
    )


def keep(root: Path, *sections: SectionSignals) -> None:
    async def write() -> None:
        published = Published(root)
        await published.keep(sections)
        published.close()

    asyncio.run(write())


def told(root: Path, most: int = 100) -> list[dict[str, Any]]:
    return [one.to_dict() for one in history(root, "5m", most).sections]


@settings(max_examples=25)
@given(st.lists(st.floats(width=64), min_size=1, max_size=5))
def test_every_value_comes_back_with_its_bits_and_nan_as_nan(
    tmp_path_factory: pytest.TempPathFactory, values: list[float]
) -> None:
    values = [value for value in values if not np.isinf(value)]
    root = tmp_path_factory.mktemp("published")
    keep(root, *(section(number, value) for number, value in enumerate(values)))
    found = [one.scored.values[0] for one in history(root, "5m", 100).sections]
    assert np.array_equal(found, values, equal_nan=True)
    assert [np.signbit(one) for one in found if one == 0] == [np.signbit(one) for one in values if one == 0]


def test_of_a_section_that_two_instances_published_the_first_is_the_one(tmp_path: Path) -> None:
    keep(tmp_path, section(0, 0.2, "later", AT + timedelta(seconds=1)), section(1))
    keep(tmp_path, section(0, 0.1, "first"))
    assert [one["signals"][0]["signal"] for one in told(tmp_path)] == ["first.0", "a.0"]


def test_files_of_days_before_the_sections_that_are_held_are_deleted(tmp_path: Path) -> None:
    for day in range(4):
        keep(tmp_path, *(section(100 * day + number, closed_at=AT + timedelta(days=day)) for number in range(3)))
    assert len(told(tmp_path, 5)) == 5
    assert len(everything(tmp_path, "5m")) == 12
    prune(tmp_path, "5m", 5)
    days = sorted(file.name[:10] for file in (tmp_path / "published" / "5m").iterdir())
    assert days == [str(date(2026, 1, 5) + timedelta(days=day)) for day in (2, 3)]
    assert len(told(tmp_path, 5)) == 5


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    keep(tmp_path, section(0), section(1))
    [file] = (tmp_path / "published" / "5m").iterdir()
    file.write_bytes(file.read_bytes().replace(b'"bundle":"b"', b'"bundle":"c"', 1))
    with pytest.raises(JournalError, match=rf"{file.name}, line 1 is damaged"):
        told(tmp_path)
