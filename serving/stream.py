"""The WebSocket `/stream`: signals as they are made, to readers that keep up; a slow one is dropped, not waited for."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Annotated

from fastapi import APIRouter, Query, WebSocket, WebSocketDisconnect

from serving.metrics import Metrics
from serving.problems import Problem, answer
from serving.query import unknown

SLOW = 1013  # WebSocket close code: try again later
AWAY = 1001  # the service is going away
POLICY = 1008  # its key ended
WHY = {SLOW: "too slow: connect again", AWAY: "the service stops", POLICY: "this API key is not valid any more"}
PARTING = 1.0  # seconds that a close may take

router = APIRouter()

Filter = tuple[frozenset[str], frozenset[str]]  # horizons and symbols; an empty one is all


class Reader:
    """One socket's queue; lives on the event loop."""

    def __init__(self, wanted: Filter, room: int, still: Callable[[], bool]) -> None:
        self.wanted = wanted
        self.still = still  # whether its key is valid
        self.dropped = asyncio.Event()
        self.code = AWAY
        self._queue: asyncio.Queue[str] = asyncio.Queue(room)

    def offer(self, message: str) -> bool:
        """Queue a message; where there is no room the reader is dropped."""
        if self.dropped.is_set():
            return False
        try:
            self._queue.put_nowait(message)
        except asyncio.QueueFull:
            self.drop(SLOW)
            return False
        return True

    def drop(self, code: int) -> None:
        self.code = code
        self.dropped.set()

    async def next(self) -> str:
        return await self._queue.get()


class Hub:
    """All readers. A message is encoded once for those who want the same."""

    def __init__(self, room: int, metrics: Metrics) -> None:
        self._room = room
        self._readers: set[Reader] = set()
        self._metrics = metrics
        metrics.stream_readers.set_function(lambda: len(self._readers))

    def join(self, wanted: Filter, still: Callable[[], bool] = lambda: True) -> Reader:
        reader = Reader(wanted, self._room, still)
        self._readers.add(reader)
        return reader

    def leave(self, reader: Reader) -> None:
        self._readers.discard(reader)

    def broadcast(self, horizon: str, encode: Callable[[frozenset[str]], str | None]) -> int:
        """Offer a section to all who want it; returns to how many.

        encode: the message for these symbols (all of them where empty), None where it has none of them.
        """
        made: dict[frozenset[str], str | None] = {}
        reached = 0
        for reader in self._readers:
            horizons, symbols = reader.wanted
            if horizons and horizon not in horizons:
                continue
            if symbols not in made:
                made[symbols] = encode(symbols)
            message = made[symbols]
            if message is not None:
                if reader.offer(message):
                    reached += 1
                else:
                    self._metrics.stream_dropped.inc()
        for reader in [reader for reader in self._readers if reader.dropped.is_set()]:
            self.leave(reader)
        return reached

    def end_uninvited(self) -> None:
        """Drop the readers whose key is not valid any more."""
        for reader in [reader for reader in self._readers if not reader.still()]:
            reader.drop(POLICY)
            self.leave(reader)

    def close(self) -> None:
        """Say goodbye to everybody."""
        for reader in self._readers:
            reader.drop(AWAY)
        self._readers.clear()


@router.websocket("/stream")
async def stream(
    socket: WebSocket,
    horizon: Annotated[Sequence[str], Query()] = (),
    symbol: Annotated[Sequence[str], Query()] = (),
) -> None:
    """Signals of each section that closes, as the `Section` of `GET /signals`; by horizon and symbol, both repeatable.

    The first message says hello. A reader that does not keep up is closed with 1013: connect again, and read what
    was missed from `GET /signals/{horizon}`.
    """
    live, hub = socket.app.state.live, socket.app.state.hub
    try:
        if refusal := unknown(socket):
            raise refusal
        live.require(horizon, symbol)
    except Problem as problem:
        await socket.send_denial_response(answer(problem, "/stream"))
        return
    await socket.accept()
    reader = hub.join((frozenset(horizon), frozenset(symbol)), socket.state.still)
    works = (_send(socket, reader, live.hello(horizon)), _listen(socket), reader.dropped.wait())
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        hub.leave(reader)
        for task in tasks:
            task.cancel()
        for ended in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(ended, Exception) and not isinstance(ended, WebSocketDisconnect):
                raise ended
    if reader.dropped.is_set():
        # Its socket is full, or gone: it is not waited for.
        with contextlib.suppress(TimeoutError, RuntimeError, WebSocketDisconnect):
            await asyncio.wait_for(socket.close(reader.code, WHY[reader.code]), PARTING)


async def _send(socket: WebSocket, reader: Reader, hello: str) -> None:
    await socket.send_text(hello)
    while True:
        await socket.send_text(await reader.next())


async def _listen(socket: WebSocket) -> None:
    """Until the client leaves; what it says is not listened to."""
    while (await socket.receive())["type"] != "websocket.disconnect":
        pass
