"""The fast lane: small `POST /v2/models/{model}/infer` requests, answered as their bytes arrive.

A task, five ASGI layers and their messages cost three times what a prediction does. Here a request that came whole,
small and plain is answered within the call that read it. Whatever is not so, and whatever goes wrong, goes the usual
way as if nothing had happened: every refusal and every rule is written there alone.
"""

import re
import time
from typing import Any

from fastapi import FastAPI

from serving import v2_codec as codec
from serving.logs import fresh_id
from serving.observe import HEADER, Requests, accepted
from serving.parting import PartingProtocol
from serving.scoring import NOVEL_HERE, abstained
from serving.v2_infer import ROUTE

MOST = 2**16  # bytes of a body: parsing more would keep other requests waiting

_URL = re.compile(rb"/v2/models/([A-Za-z0-9._\-]+)/infer")
# What changes the meaning of a request, and is rare.
_UNUSUAL = frozenset({b"content-encoding", b"transfer-encoding", b"upgrade", b"expect"})


class Lane:
    """Answers requests of one service. Lives on the event loop."""

    def __init__(self, app: FastAPI) -> None:
        self._state = app.state
        self._requests = Requests(app.state.metrics, app.state.lines)
        self.open = app.state.traces is None  # a span is opened and closed by the usual way

    def answer(self, model: str, headers: list[tuple[bytes, bytes]], body: bytes, scope: Any) -> list[bytes] | None:
        """The answer's headers and body as they are sent, None for a request that must go the usual way."""
        began, state = time.perf_counter(), self._state
        if state.turn.spent():  # the usual way refuses it
            return None
        path = f"/v2/models/{model}/infer"
        size = identity = None
        for name, value in headers:
            if name in _UNUSUAL:
                return None
            if name == b"inference-header-content-length":
                size = value
            elif name == HEADER and identity is None:
                identity = accepted(value)
        request_id = fresh_id()
        try:
            # Told to `Guard`, so that a request which goes the usual way after all is not counted twice.
            scope["state"]["caller"] = state.access.allow(headers, "POST", path)
            request, behind = codec.decode(body, size)
            predictor = state.predictors.choose(model)
            bundle = predictor.bundle
            abstains = bundle.abstains_above is not None
            X = codec.rows(request, behind, bundle.factors, state.options.limits.rows, abstains=abstains)
            if not state.scorer.inline(predictor, X) or (abstains and len(X) > NOVEL_HERE):
                return None
            asked = time.perf_counter()
            values = state.scorer.predict(predictor, X)
            no_signal = abstained(bundle, bundle.novelty_of(X)) if abstains else None
            seconds = time.perf_counter() - asked
            told = {"bundle": bundle.id, "request": request_id}
            text, json_size = codec.encode(request, values, model, str(predictor.entry.number), told, no_signal)
        except Exception:  # the usual way meets it again, and says what is wrong
            return None
        state.scorer.keep(predictor, X, values, route=ROUTE, request_id=request_id, keys=None, seconds=seconds)
        identity = identity or request_id
        self._requests.count(ROUTE, "POST", path, 200, time.perf_counter() - began, identity)
        kind = b"application/json"
        if json_size is not None:
            kind = b"application/octet-stream\r\ninference-header-content-length: %d" % json_size
        head = b"content-length: %d\r\ncontent-type: %b\r\n%b: %b\r\n\r\n"
        return [head % (len(text), kind, HEADER, identity.encode()), text]


class LaneProtocol(PartingProtocol):
    """The service's protocol, the lane in front. `with_lane` makes the class for one service."""

    lane: Lane

    _held: list[bytes] | None = None  # the body of a request that may take the lane, None for all others
    _model = ""

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._held is not None:  # it came in parts: how long it may take is the usual way's business
            self._go_usual_way(whole=False)

    def on_headers_complete(self) -> None:
        found = _URL.fullmatch(self.url) if self.parser.get_method() == b"POST" else None
        free = self.cycle is None or self.cycle.response_complete
        if found is None or not free or not self.lane.open or self.stopping or self.flow.write_paused:
            super().on_headers_complete()
            return
        self._model = found[1].decode()
        self._held = []

    def on_body(self, body: bytes) -> None:
        if self._held is None:
            super().on_body(body)
        else:
            self._held.append(body)

    def on_message_complete(self) -> None:
        if self._held is None:
            super().on_message_complete()
            return
        body = self._held[0] if len(self._held) == 1 else b"".join(self._held)
        told = None
        if len(body) <= MOST and self.parser.should_keep_alive() and self.parser.get_http_version() == "1.1":
            told = self.lane.answer(self._model, self.headers, body, self.scope)
        if told is None:
            self._go_usual_way(whole=True)
            return
        self._held = None
        always = [part for name, value in self.server_state.default_headers for part in (name, b": ", value, b"\r\n")]
        self.transport.write(b"".join([b"HTTP/1.1 200 OK\r\n", *always, *told]))
        self.on_response_complete()

    def _go_usual_way(self, *, whole: bool) -> None:
        held, self._held = self._held or [], None
        super().on_headers_complete()
        for part in held:
            super().on_body(part)
        if whole:
            super().on_message_complete()


def with_lane(app: FastAPI) -> type[LaneProtocol]:
    """The protocol of a server of `app`: uvicorn's `http=`."""
    return type("ServiceProtocol", (LaneProtocol,), {"lane": Lane(app)})
