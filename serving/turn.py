"""Overload on the event loop: when one turn of it has worked for long, the rest of its requests are refused at once.

Small requests are answered on the loop, one after the other. A thousand that came together would each wait for all of
those before them, and so would the probes. Threads have their own queues, behind `limits.Gate`.
"""

import asyncio
import time

from starlette.types import ASGIApp, Receive, Scope, Send

from serving.metrics import Metrics
from serving.problems import Problem

# Seconds of CPU: about what the slowest request of a turn waits for, and a probe twice. With 0.1 of 800 calls of one
# row at once 561 were answered, with this 788, and no probe waited longer (bench/overload.py on a busy machine).
BUDGET = 0.25
ALWAYS = frozenset({"/health", "/api/health", "/ready", "/metrics", "/v2/health/live", "/v2/health/ready"})


class Turn:
    """How much the present turn of the event loop has worked since its first request."""

    def __init__(self) -> None:
        self._ends: float | None = None  # CPU time of this thread at which it is spent; None: no request has come

    def spent(self) -> bool:
        """Whether what comes now has to wait for another turn; asked once for each request."""
        # CPU time: a machine that is busy with other things is no reason to refuse anybody.
        now = time.thread_time()
        if self._ends is None:
            self._ends = now + BUDGET
            asyncio.get_running_loop().call_soon(self._over)
            return False
        return now > self._ends

    def _over(self) -> None:
        self._ends = None


class Shedding:
    """ASGI middleware: Problem 503 with Retry-After for what a turn has no time for; probes and metrics pass."""

    def __init__(self, app: ASGIApp, turn: Turn, metrics: Metrics) -> None:
        self.app = app
        self._turn = turn
        self._shed = metrics.shed.labels("turn")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in ALWAYS and self._turn.spent():
            self._shed.inc()
            why = "more requests came at once than are answered in time: ask again in a second"
            raise Problem(503, "overloaded", why, headers={"retry-after": "1"})
        await self.app(scope, receive, send)
