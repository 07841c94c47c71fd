"""What requests may cost: bytes of a body, plain or not, and how many may wait for the compute thread."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from conf.options import Limits
from serving.messages import PredictBars, PredictRows
from serving.metrics import Metrics
from serving.problems import Problem, field_error, refuse_fields


class BodyLimit:
    """ASGI middleware: refuses a body that is too large, declared or streamed, or that takes too long to arrive.

    Starlette's own limit answers in plain text, this one with a problem document.
    """

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self.app = app
        self.limit = limits.body_mib * 2**20
        self.seconds = limits.seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        declared = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        if declared.isdigit() and int(declared) > self.limit:
            raise body_too_large(self.limit)
        until = asyncio.get_running_loop().time() + self.seconds
        read, whole = 0, False

        async def limited() -> Message:
            nonlocal read, whole
            if whole:  # what is waited for now is the client's going away
                return await receive()
            try:
                async with asyncio.timeout_at(until):
                    message = await receive()
            except TimeoutError as error:
                why = f"the body did not arrive within {self.seconds:g} s"
                raise Problem(408, "body-too-slow", why, headers={"connection": "close"}) from error
            read += len(message.get("body", b""))
            if read > self.limit:
                raise body_too_large(self.limit)
            whole = not message.get("more_body", False)
            return message

        await self.app(scope, limited, send)


class PlainBody:
    """ASGI middleware around the routes that read no compressed bodies: 415, where JSON's own error would mislead."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            encoding = next((value for name, value in scope["headers"] if name == b"content-encoding"), b"identity")
            if encoding.lower() != b"identity":
                why = f"content-encoding {encoding.decode('latin-1')!r}: only v2 inference reads it; send plain JSON"
                raise Problem(415, "unknown-encoding", why)
        await self.app(scope, receive, send)


def body_too_large(limit: int) -> Problem:
    """413 for a body of more than `limit` bytes."""
    why = f"the body is larger than {limit / 2**20:g} MiB: send fewer rows or bars per request"
    return Problem(413, "body-too-large", why, limit_bytes=limit)


def check_sizes(limits: Limits, body: PredictRows | PredictBars) -> None:
    """422 for more rows, bars or predicted slots than one request may have."""
    sizes: list[tuple[list[str | int], int, int]] = []
    if isinstance(body, PredictRows):
        sizes.append((["rows"], len(body.rows), limits.rows))
    else:
        sizes.append((["bars"], len(body.bars), limits.bars))
        sizes += [(["at", name], len(bars), limits.bars) for name, bars in body.at.items()]
        sizes.append((["last"], body.last, limits.last))
    if errors := [
        field_error(where, f"{size:,} are more than the {most:,} of one request: send several")
        for where, size, most in sizes
        if size > most
    ]:
        raise refuse_fields("too-large", errors)


class Gate:
    """Lets so many requests wait for the compute thread and refuses the others at once: queues never grow.

    A request that is refused in a millisecond can be sent elsewhere; one that is answered too late cannot.
    """

    def __init__(self, limits: Limits, metrics: Metrics) -> None:
        self._limits = limits
        self._metrics = metrics
        self._requests = 0
        self._rows = 0

    @asynccontextmanager
    async def waiting(self, rows: int = 0) -> AsyncIterator[None]:
        """Hold a place while computing; 503 with Retry-After where all are taken or the time is up."""
        limits = self._limits
        # A request as large as the limit is served when it is alone.
        if self._requests >= limits.waiting or (self._rows and self._rows + rows > limits.waiting_rows):
            self._metrics.shed.labels("full").inc()
            why = f"{self._requests} requests with {self._rows} rows wait already: ask again in a second"
            raise Problem(503, "overloaded", why, headers={"retry-after": "1"})
        self._move(1, rows)
        try:
            async with asyncio.timeout(limits.seconds):
                yield
        except TimeoutError as error:
            self._metrics.shed.labels("time").inc()
            why = f"no answer within {limits.seconds:g} s: send fewer rows or bars, or ask again later"
            raise Problem(503, "took-too-long", why, headers={"retry-after": "5"}) from error
        finally:
            self._move(-1, -rows)

    def _move(self, requests: int, rows: int) -> None:
        self._requests += requests
        self._rows += rows
        self._metrics.waiting.set(self._requests)
        self._metrics.waiting_rows.set(self._rows)
