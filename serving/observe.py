"""Around every request: its ids, its line, its metrics, and a problem document even when the code breaks."""

import re
import time

from opentelemetry import trace
from prometheus_client import Counter
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.access_lines import AccessLines
from serving.histogram import Child
from serving.logs import correlation, fresh_id, log
from serving.metrics import Metrics
from serving.problems import MEDIA_TYPE, Problem, answer, document

HEADER = b"x-correlation-id"
QUIET = {"/health", "/api/health", "/ready", "/v2/health/live", "/v2/health/ready", "/metrics"}  # polled: no line

# A sender's id goes into our log and our headers: nothing that could forge a line.
_ACCEPTED = re.compile(rb"[A-Za-z0-9._:\-]{1,128}")


class Observe:
    """Pure ASGI, so that it costs microseconds and streams untouched. traced: whether FastAPI opened a span."""

    def __init__(self, app: ASGIApp, metrics: Metrics, lines: AccessLines, *, traced: bool = False) -> None:
        self.app = app
        self._requests = Requests(metrics, lines)
        self._traced = traced

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        request_id = fresh_id()
        scope.setdefault("state", {})["request_id"] = request_id
        identity = _sent(scope) or request_id
        token = correlation.set(identity)
        try:
            if scope["type"] == "websocket":
                await self.app(scope, receive, send)
            else:
                await self._observed(scope, receive, send, identity)
        finally:
            correlation.reset(token)

    async def _observed(self, scope: Scope, receive: Receive, send: Send, identity: str) -> None:
        began, status = time.perf_counter(), 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if self._traced:  # the span ends with the answer
                    _name_span(scope, identity)
                message["headers"] = [*message.get("headers", ()), (HEADER, identity.encode())]
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        except Problem as problem:
            if status:
                raise
            await answer(problem, scope["path"])(scope, receive, send_with_id)
        except Exception:
            log.exception("a request broke", extra={"fields": {"path": scope["path"]}})
            if status:  # the answer is half sent: only closing the connection can tell the client
                raise
            await _broken(scope, receive, send_with_id)
        finally:
            seconds = time.perf_counter() - began
            self._requests.count(_route(scope), scope["method"], scope["path"], status, seconds, identity)


class Requests:
    """Counts answered requests, and notes a line of each."""

    def __init__(self, metrics: Metrics, lines: AccessLines) -> None:
        self._metrics = metrics
        self._lines = lines
        self._seconds: dict[str, Child] = {}  # bound children: binding labels costs more than counting
        self._counters: dict[tuple[str, str, int], Counter] = {}

    def count(self, route: str, method: str, path: str, status: int, seconds: float, identity: str) -> None:
        """One request to `route`, a pattern. identity: its correlation id."""
        key = (route, method, status)
        if key not in self._counters:
            self._counters[key] = self._metrics.requests.labels(route, method, str(status))
            self._seconds[route] = self._metrics.request_seconds.labels(route)
        self._counters[key].inc()
        self._seconds[route].observe(seconds)
        if path not in QUIET or status >= 500:
            self._lines.add(method, path, status, seconds, identity)


def _name_span(scope: Scope, identity: str) -> None:
    route, span = _route(scope), trace.get_current_span()
    span.update_name(f"{scope['method']} {route}")
    span.set_attributes({"http.route": route, "tenor.correlation_id": identity})


def accepted(sent: bytes) -> str | None:
    """A sender's correlation id, None for one that we do not accept."""
    return sent.decode() if _ACCEPTED.fullmatch(sent) else None


def _sent(scope: Scope) -> str | None:
    """The sender's correlation id, None where there is none that we accept."""
    return next((accepted(value) for name, value in scope["headers"] if name == HEADER), None)


def _route(scope: Scope) -> str:
    """The route's pattern, never the path: anybody can make up paths, and each would be a time series."""
    if named := scope["state"].get("route"):
        return named
    route = scope.get("route")
    return getattr(route, "path", None) or "other"


async def _broken(scope: Scope, receive: Receive, send: Send) -> None:
    why = "the service failed to answer; its log has the reason under this correlation id"
    body = document(500, "internal-error", why, scope["path"])
    await JSONResponse(body, 500, media_type=MEDIA_TYPE)(scope, receive, send)
