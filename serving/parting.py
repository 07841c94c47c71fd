"""Ends connections so that what was asked is answered and what was answered arrives.

A socket that is closed with unread bytes resets its client, which may then lose the answer that it was sent before.
"""

import asyncio
from typing import cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

BYTES = 2**22  # of a refused body, read and thrown away
SECONDS = 2.0  # that this may take
GRACE = 0.1  # seconds in which a service that stops still reads requests
PARTING = 0.5  # seconds that a client gets to hear that it has stopped


class Parting:
    """A cycle's transport, whose end is the protocol's business."""

    def __init__(self, protocol: "PartingProtocol") -> None:
        transport = protocol.transport
        self.write, self.is_closing, self.get_extra_info = (
            transport.write,
            transport.is_closing,
            transport.get_extra_info,
        )
        self.close = protocol.part


class PartingProtocol(HttpToolsProtocol):
    """uvicorn's protocol, which would close a connection whatever lies unread in it."""

    stopping = False

    _left: int | None = None  # bytes that may still be thrown away, None before the parting
    _timer: asyncio.TimerHandle | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._left is None:
            super().data_received(data)
            return
        self._left -= len(data)
        if self._left < 0:
            self.transport.close()

    def on_headers_complete(self) -> None:
        before = self.cycle
        super().on_headers_complete()
        if self.cycle is not before:  # else it becomes a WebSocket
            self.cycle.transport = cast(asyncio.Transport, Parting(self))
            self.cycle.keep_alive &= not self.stopping

    def on_response_complete(self) -> None:
        if self._left is None:
            super().on_response_complete()
        else:
            self.server_state.total_requests += 1
            self.flow.resume_reading()

    def shutdown(self) -> None:
        """Stop: what has come, and may lie unread in the socket, is answered; then the connection ends."""
        self.stopping = True
        if self.cycle is None or self.cycle.response_complete:
            self._timer = self.loop.call_later(GRACE, self._end_idle)
        else:
            self.cycle.keep_alive = False

    def _end_idle(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.part()

    def part(self) -> None:
        """Say that nothing more comes, and read on until the client has heard it, or for as long as it may take."""
        if self._left is not None or self.transport.is_closing():
            return
        unread = self.cycle is not None and self.cycle.more_body
        if not unread and not self.stopping:
            self.transport.close()
            return
        self._left = BYTES
        self._timer = self.loop.call_later(SECONDS if unread else PARTING, self.transport.close)
        self.transport.write_eof()
