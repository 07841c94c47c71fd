"""Around every request: a correlation id, one log line, and a problem document even when the code breaks."""

import logging
import re
import time
import uuid

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.logs import correlation, event, log
from serving.problems import MEDIA_TYPE, document

HEADER = "x-correlation-id"
QUIET = {"/health", "/api/health", "/ready", "/v2/health/live", "/v2/health/ready"}  # polled: logged at DEBUG

# A sender's id goes into our log and our headers: nothing that could forge a line.
_ACCEPTED = re.compile(rb"[A-Za-z0-9._:\-]{1,128}")


class Observe:
    """Pure ASGI, so that it costs microseconds and streams untouched."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        sent = dict(scope["headers"]).get(HEADER.encode(), b"")
        identity = sent.decode() if _ACCEPTED.fullmatch(sent) else uuid.uuid4().hex
        token = correlation.set(identity)
        started, status = time.perf_counter(), 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", []), (HEADER.encode(), identity.encode())]
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        except Exception:
            log.exception("a request broke", extra={"fields": {"path": scope["path"]}})
            if status:  # the answer is half sent: only closing the connection can tell the client
                raise
            await _broken(scope, receive, send_with_id)
        finally:
            event(
                logging.DEBUG if scope["path"] in QUIET else logging.INFO,
                "request",
                method=scope["method"],
                path=scope["path"],
                status=status,
                milliseconds=round((time.perf_counter() - started) * 1e3, 3),
            )
            correlation.reset(token)


async def _broken(scope: Scope, receive: Receive, send: Send) -> None:
    why = "the service failed to answer; its log has the reason under this correlation id"
    body = document(500, "internal-error", why, scope["path"])
    await JSONResponse(body, 500, media_type=MEDIA_TYPE)(scope, receive, send)
