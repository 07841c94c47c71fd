"""The door: every request and every WebSocket passes `Access` before anything of it is read."""

from functools import partial

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.access import KEY_SUBPROTOCOL, Access
from serving.problems import Problem, answer

SUBPROTOCOL = "tenor"  # what a WebSocket agrees on where its client offered it: browsers insist on an answer
POLICY = 1008  # WebSocket close code: policy violation


class Guard:
    """ASGI middleware. The caller's name is `request.state.caller` from here on; `socket.state.still()` says whether an
    open WebSocket may stay so."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self.app = app
        self.access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        socket = scope["type"] == "websocket"
        if "caller" in scope.get("state", ()):  # the fast lane let it in
            await self.app(scope, receive, send)
            return
        try:
            caller = self.access.allow(scope["headers"], "WEBSOCKET" if socket else scope["method"], scope["path"])
        except Problem as problem:
            if socket and "websocket.http.response" not in scope.get("extensions", {}):
                await send({"type": "websocket.close", "code": POLICY, "reason": problem.detail[:120]})
            else:  # a refused WebSocket is an HTTP answer too
                await answer(problem, scope["path"])(scope, receive, send)
            return
        scope.setdefault("state", {})["caller"] = caller
        if socket:
            scope["state"]["still"] = partial(self.access.still, scope["headers"])
        if socket and SUBPROTOCOL in scope.get("subprotocols", ()):
            offered = [name for name in scope["subprotocols"] if not name.startswith(KEY_SUBPROTOCOL)]
            await self.app({**scope, "subprotocols": offered}, receive, _agreeing(send))
        else:
            await self.app(scope, receive, send)


def _agreeing(send: Send) -> Send:
    async def agree(message: Message) -> None:
        if message["type"] == "websocket.accept" and not message.get("subprotocol"):
            message = {**message, "subprotocol": SUBPROTOCOL}
        await send(message)

    return agree
