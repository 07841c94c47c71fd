"""WebSockets that end: also those of a reader that no longer reads, whose socket is full."""

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

PARTING = 5.0  # seconds that a reader gets to read what is on its way, the close frame last


class Sockets(WebSocketsSansIOProtocol):
    """uvicorn's, which would wait with a close frame, and with the end, until everything before is read."""

    async def send(self, message) -> None:  # type: ignore[no-untyped-def]
        """Queue a close frame behind what waits in the socket; everything else waits for room."""
        if message["type"] == "websocket.close":
            self.writable.set()
            self._part()
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and not message.get("more_body", False):
            self.handshake_complete = True  # refused in full: uvicorn would log an error of ours for each

    def keepalive_timeout(self) -> None:
        """End a reader that answers no ping."""
        super().keepalive_timeout()
        self._part()

    def shutdown(self) -> None:
        """End because the service stops, which waits for no reader."""
        super().shutdown()
        self._part()

    def _part(self) -> None:
        self.loop.call_later(PARTING, self.transport.abort)
