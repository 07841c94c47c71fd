"""`POST /v2/models/{model}/infer`, in front of FastAPI's routes: their machinery costs more than a prediction."""

import re
from typing import Final

import msgspec
from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from quant.bundle import BundleError
from serving import v2_codec as codec
from serving.problems import Problem, documented
from serving.query import refused
from serving.v2_messages import IndexRequest, InferRequest, InferResponse, LoadRequest, UnloadRequest

ROUTE: Final = "/v2/models/{model}/infer"
VERSION_ROUTE: Final = "/v2/models/{model}/versions/{version}/infer"
DESCRIPTION: Final = """Predict rows (Open Inference Protocol). Clients of Triton, KServe and MLServer work unchanged.

The model is a horizon, its version the entry of the promotion ledger that serves. Send one tensor `[rows, factors]` in
the order of `GET /models/{horizon}`, or one tensor per factor, named after it. With the header
`inference-header-content-length` tensors may follow the JSON as bytes. A model with `novelty.abstain_above` has a
second output, `abstained`: where it is true, the prediction is no signal."""

_PATH = re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?/infer")


class Infer:
    """ASGI middleware: answers inference requests, passes all others on."""

    def __init__(self, app: ASGIApp, service: FastAPI) -> None:
        self.app = app
        self._state = service.state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = _PATH.fullmatch(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
        if found is None:
            await self.app(scope, receive, send)
            return
        model, version = found.groups()
        scope["state"]["route"] = VERSION_ROUTE if version else ROUTE
        if scope["query_string"] and (refusal := refused(scope["query_string"])):
            raise refusal
        body = await _read(receive)
        if body is None:
            return
        headers = dict(scope["headers"])
        answer, size = await self._infer(model, version, body, headers, scope["state"]["request_id"])
        told = [(b"content-length", str(len(answer)).encode())]
        if size is None:
            told.append((b"content-type", b"application/json"))
        else:
            told.append((b"content-type", b"application/octet-stream"))
            told.append((b"inference-header-content-length", str(size).encode()))
        await send({"type": "http.response.start", "status": 200, "headers": told})
        await send({"type": "http.response.body", "body": answer})

    async def _infer(
        self, model: str, version: str | None, body: bytes, headers: dict[bytes, bytes], request_id: str
    ) -> tuple[bytes, int | None]:
        state = self._state
        limits = state.options.limits
        if encoding := headers.get(b"content-encoding"):
            body = codec.decompress(body, encoding, limits.body_mib * 2**20)
        request, behind = codec.decode(body, headers.get(b"inference-header-content-length"))
        predictor = state.predictors.choose(model)
        serves = str(predictor.entry.number)
        if version is not None and version != serves:
            raise wrong_version(model, version, serves)
        bundle = predictor.bundle
        X = codec.rows(request, behind, bundle.factors, limits.rows, abstains=bundle.abstains_above is not None)
        try:
            scored = await state.scorer.score(predictor, X, route=ROUTE, request_id=request_id, novel=False)
        except BundleError as error:
            raise Problem(422, "wrong-tensors", str(error)) from error
        told = {"bundle": bundle.id, "request": request_id}
        return codec.encode(request, scored.values, model, serves, told, scored.abstained)


def wrong_version(model: str, version: str, serves: str) -> Problem:
    """404 for a version that does not serve."""
    why = f"version {version!r} of {model} does not serve, version {serves} does: ask for that, or for none"
    return Problem(404, "unknown-version", why, horizon=model, serves=serves)


async def _read(receive: Receive) -> bytes | None:
    """The whole body; None where the client went away. `BodyLimit` around us bounds it."""
    message = await receive()
    if message["type"] == "http.disconnect":
        return None
    body: bytes = message.get("body", b"")
    if not message.get("more_body", False):
        return body
    parts = [body]
    while message.get("more_body", False):
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts.append(message.get("body", b""))
    return b"".join(parts)


def document(app: FastAPI) -> None:
    """Put the route into the OpenAPI document, its messages from the very types that parse them."""
    made = app.openapi
    (asked, answered, *_), schemas = msgspec.json.schema_components(
        [InferRequest, InferResponse, IndexRequest, LoadRequest, UnloadRequest],
        ref_template="#/components/schemas/{name}",
    )
    example = {"inputs": [{"name": "factors", "shape": [1, 2], "datatype": "FP32", "data": [[0.1, None]]}]}

    def operation(*names: str) -> dict[str, object]:
        return {
            "tags": ["predictions"],
            "summary": "Infer",
            "description": DESCRIPTION,
            "operationId": "_".join(["infer", *names[1:]]),
            "parameters": [
                {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names
            ],
            "requestBody": {"required": True, "content": {"application/json": {"schema": asked, "example": example}}},
            "responses": {
                "200": {"description": "Successful Response", "content": {"application/json": {"schema": answered}}},
                **{str(code): told for code, told in documented(400, 404, 408, 413, 415, 422, 503).items()},
            },
        }

    def openapi() -> dict[str, object]:
        schema = made()
        schema["components"]["schemas"] |= schemas
        schema["paths"] |= {ROUTE: {"post": operation("model")}}
        schema["paths"] |= {VERSION_ROUTE: {"post": operation("model", "version")}}
        return schema

    app.openapi = openapi  # type: ignore[method-assign]
