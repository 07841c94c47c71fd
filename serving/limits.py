"""What requests may cost: bytes of a body, plain or not, and how many may wait for a thread."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from prometheus_client import Gauge
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from conf.options import Limits
from serving.metrics import Metrics
from serving.problems import Problem


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


class Gate:
    """Lets so many requests wait for a thread and refuses the others at once: queues never grow.

    A request that is refused in a millisecond can be sent elsewhere; one that is answered too late cannot.
    most: requests; most_work: what they bring together, in rows or bytes (`unit`). told: gauges of both.
    """

    def __init__(
        self, most: int, most_work: int, unit: str, seconds: float, metrics: Metrics, told: tuple[Gauge, Gauge]
    ) -> None:
        self._most, self._most_work, self._unit, self._seconds = most, most_work, unit, seconds
        self._shed = metrics.shed
        self._told = told
        self._requests = 0
        self._work = 0

    def check(self, work: int = 0) -> None:
        """503 with Retry-After where there is no room for one request more, with so much work."""
        # A request as large as the limit is served when it is alone.
        if self._requests >= self._most or (self._work and self._work + work > self._most_work):
            self._shed.labels("full").inc()
            why = f"{self._requests} requests with {self._work:,} {self._unit} wait already: ask again in a second"
            raise Problem(503, "overloaded", why, headers={"retry-after": "1"})

    @contextmanager
    def place(self, work: int = 0) -> Iterator[None]:
        """Hold a place for as long as it takes; 503 with Retry-After where all are taken."""
        self.check(work)
        self._move(1, work)
        try:
            yield
        finally:
            self._move(-1, -work)

    @asynccontextmanager
    async def waiting(self, work: int = 0) -> AsyncIterator[None]:
        """Hold a place while computing; 503 with Retry-After where all are taken or the time is up."""
        with self.place(work):
            try:
                async with asyncio.timeout(self._seconds):
                    yield
            except TimeoutError as error:
                self._shed.labels("time").inc()
                why = f"no answer within {self._seconds:g} s: send fewer rows or bars, or ask again later"
                raise Problem(503, "took-too-long", why, headers={"retry-after": "5"}) from error

    def _move(self, requests: int, work: int) -> None:
        self._requests += requests
        self._work += work
        for gauge, value in zip(self._told, (self._requests, self._work), strict=True):
            gauge.set(value)
