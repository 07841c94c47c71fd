"""The stream over real sockets: a hundred readers, and one that stops reading."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest
import uvicorn
from fastapi import FastAPI
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.frames import Close, CloseCode, Frame, Opcode
from websockets.streams import StreamReader

from resources.registry import Registry
from serving import sockets, stream
from serving.app import create_app
from serving.options import read
from tests.serving.feed import sent, until

Serve = Callable[..., AbstractContextManager[str]]
ROOM = 8  # messages that may wait for a reader
SIZE = 64_000  # of a message: what a section of some hundred symbols has


@dataclass
class Service:
    """A service whose messages the test makes."""

    app: FastAPI
    server: uvicorn.Server
    loop: asyncio.AbstractEventLoop
    port: int
    sent: int = 0

    def broadcast(self) -> None:
        """One message to all readers: its number, when it was sent, and much else."""
        text = json.dumps([self.sent, time.monotonic(), "." * SIZE])
        self.loop.call_soon_threadsafe(self.app.state.hub.broadcast, "5m", lambda _: text)
        self.sent += 1

    def readers(self) -> int:
        return len(self.app.state.hub._readers)


@contextmanager
def running(root: Path, **changed: Any) -> Iterator[Service]:
    options = read()
    live = options.live.model_copy(update={"queue": ROOM, **changed})
    app = create_app(root, options=options.model_copy(update={"live": live}))
    found: list[asyncio.AbstractEventLoop] = []
    config = uvicorn.Config(
        app, port=0, log_config=None, ws=sockets.Sockets, ws_per_message_deflate=False, timeout_graceful_shutdown=15
    )
    server = uvicorn.Server(config)

    async def serve() -> None:
        found.append(asyncio.get_running_loop())
        await server.serve()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    try:
        until(lambda: server.started)
        listener = server.servers[0].sockets[0]
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)  # full after some messages, not after 4 MB
        yield Service(app, server, found[0], listener.getsockname()[1])
    finally:
        server.should_exit = True
        thread.join(timeout=30)
        assert not thread.is_alive(), "the service did not stop"


class Silent:
    """A client that says hello and then reads nothing until it is told to."""

    def __init__(self, port: int) -> None:
        self.port, self.socket = port, socket.socket()

    def __enter__(self) -> "Silent":
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.settimeout(30)
        self.socket.connect(("127.0.0.1", self.port))
        lines = [
            "GET /stream HTTP/1.1", f"Host: 127.0.0.1:{self.port}", "Connection: Upgrade", "Upgrade: websocket",
            "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "", "",
        ]  # fmt: skip
        self.socket.sendall("\r\n".join(lines).encode())
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += self.socket.recv(1)
        assert answer.startswith(b"HTTP/1.1 101"), answer
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def read_all(self) -> list[Frame]:
        """Every frame, to the one that closes."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        reader, frames = StreamReader(), list[Frame]()
        while not frames or frames[-1].opcode is not Opcode.CLOSE:
            parser = Frame.parse(reader.read_exact, mask=False, max_size=None)
            try:
                while True:
                    next(parser)  # it asks for more
                    piece = self.socket.recv(1 << 20)
                    assert piece, "the connection ended without a word"
                    reader.feed_data(piece)
            except StopIteration as whole:
                frames.append(whole.value)
        return frames


@contextmanager
def listening(port: int, count: int) -> Iterator[list[list[tuple[int, float]]]]:
    """So many readers that keep up; each notes the number of a message and how long it was on its way."""
    heard: list[list[tuple[int, float]]] = [[] for _ in range(count)]
    ready, ending = threading.Barrier(2), threading.Event()

    async def one(notes: list[tuple[int, float]], joined: asyncio.Semaphore) -> None:
        async with connect(f"ws://127.0.0.1:{port}/stream", compression=None, max_size=None, proxy=None) as reader:
            await reader.recv()
            joined.release()
            async for message in reader:
                number, sent, _ = json.loads(message)
                notes.append((number, time.monotonic() - sent))

    async def all_of_them() -> None:
        joined = asyncio.Semaphore(0)
        tasks = [asyncio.create_task(one(notes, joined)) for notes in heard]
        for _ in tasks:
            await joined.acquire()
        await asyncio.to_thread(ready.wait, 30)
        await asyncio.to_thread(ending.wait)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    thread = threading.Thread(target=asyncio.run, args=(all_of_them(),))
    thread.start()
    ready.wait(30)
    try:
        yield heard
    finally:
        ending.set()
        thread.join(30)


def test_a_reader_that_stops_reading_is_dropped_and_the_others_hear_everything_at_once(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "PARTING", 0.05)
    with running(tmp_path) as service, listening(service.port, 5) as heard, Silent(service.port) as silent:
        until(lambda: service.readers() == 6)
        while service.readers() == 6:
            service.broadcast()
            assert service.sent < 1000, "it is never dropped"
            until(lambda: min(map(len, heard)) == service.sent)
        for _ in range(5):
            service.broadcast()
        until(lambda: min(map(len, heard)) == service.sent)
        for notes in heard:
            assert [number for number, _ in notes] == list(range(service.sent))
            assert max(late for _, late in notes) < 0.5
        time.sleep(0.2)
        *messages, last = silent.read_all()
        assert Close.parse(bytes(last.data)).code == stream.SLOW
        texts = [json.loads(bytes(frame.data)) for frame in messages]
        assert texts[0]["type"] == "hello"
        assert [text[0] for text in texts[1:]] == list(range(len(texts) - 1)), "without a hole until it was dropped"
        assert b"tenor_stream_dropped_total 1.0" in service.app.state.metrics.text()


def test_a_reader_that_never_reads_again_loses_its_socket(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "PARTING", 0.2)
    with running(tmp_path) as service, Silent(service.port):
        until(lambda: service.readers() == 1)
        assert len(service.server.server_state.connections) == 1
        while service.readers():
            service.broadcast()
            assert service.sent < 1000, "it is never dropped"
            time.sleep(0.002)
        until(lambda: not service.server.server_state.connections)


def test_a_stop_waits_for_no_reader(registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "PARTING", 0.2)
    with running(tmp_path, queue=1000) as service, Silent(service.port):
        until(lambda: service.readers() == 1)
        for _ in range(150):  # more than the sockets hold
            service.broadcast()
        time.sleep(0.3)
        service.server.should_exit = True
        until(lambda: not service.loop.is_running())  # it would wait for ever


def test_a_hundred_readers_hear_every_section_alike(
    registry: Registry, serve: Serve, bars: pl.DataFrame, tmp_path: Path
) -> None:
    stamps = bars["timestamp"].unique().sort()

    async def hear(address: str, client: httpx.AsyncClient) -> list[list[str]]:
        url = f"{address.replace('http', 'ws')}/stream?horizon=5m"
        readers = [await connect(url, compression=None, proxy=None) for _ in range(100)]
        for reader in readers:
            assert json.loads(await reader.recv())["type"] == "hello"
        for stamp in stamps[30:34]:
            await push(client, bars.filter(pl.col("timestamp") == stamp))
        found = [[str(await asyncio.wait_for(reader.recv(), 20)) for _ in range(4)] for reader in readers]
        await asyncio.gather(*(reader.close() for reader in readers))
        return found

    async def push(client: httpx.AsyncClient, rows: pl.DataFrame) -> None:
        answer = await client.post("/bars", json={"horizon": "5m", "bars": sent(rows)})
        assert answer.status_code == 200, answer.text

    def same(section: dict[str, Any], stamp: datetime) -> bool:
        return datetime.fromisoformat(section["timestamp"]) == stamp

    async def run(address: str) -> None:
        async with httpx.AsyncClient(base_url=address, timeout=30) as client:
            while (await client.get("/signals/5m")).status_code != 200:
                await asyncio.sleep(0.05)
            await push(client, bars.filter(pl.col("timestamp") < stamps[30]))
            while not (held := (await client.get("/signals/5m")).json()["sections"]) or not same(held[0], stamps[29]):
                await asyncio.sleep(0.05)
            found = await hear(address, client)
            assert all(heard == found[0] for heard in found)
            told = [json.loads(message) for message in found[0]]
            kept = (await client.get("/signals/5m", params={"sections": 4})).json()["sections"]
            for message, section in zip(told, reversed(kept), strict=True):
                assert message == {"type": "section", **section}

    live = read().live.model_copy(update={"deadline_seconds": 0.3})
    with serve(tmp_path, live=live) as address:
        asyncio.run(run(address))


def test_readers_are_told_that_the_service_goes_away(registry: Registry, tmp_path: Path) -> None:
    async def told(port: int) -> int | None:
        async with connect(f"ws://127.0.0.1:{port}/stream", proxy=None) as reader:
            await reader.recv()
            service.server.should_exit = True
            with pytest.raises(ConnectionClosed):
                await reader.recv()
            return reader.close_code

    with running(tmp_path) as service:
        assert asyncio.run(told(service.port)) == CloseCode.SERVICE_RESTART
