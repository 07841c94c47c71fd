"""Refuse a body larger than the limit before it fills the memory, declared or streamed."""

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.problems import Problem


class BodyLimit:
    """ASGI middleware. Starlette's own limit answers in plain text, this one with a problem document."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self.app = app
        self.limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        declared = Headers(scope=scope).get("content-length", "0")
        read = 0

        async def limited() -> Message:
            nonlocal read
            if declared.isdigit() and int(declared) > self.limit:
                raise self._refusal()
            message = await receive()
            read += len(message.get("body", b""))
            if read > self.limit:
                raise self._refusal()
            return message

        await self.app(scope, limited, send)

    def _refusal(self) -> Problem:
        why = f"the body is larger than {self.limit / 2**20:g} MiB: send fewer rows or bars per request"
        return Problem(413, "body-too-large", why, limit_bytes=self.limit)
