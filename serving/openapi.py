"""What the OpenAPI document says of every route alike: who may call it, and that each refusal is a problem document."""

from typing import Any

from fastapi import FastAPI

from serving import bodies
from serving.access import role_of
from serving.live_messages import PushBars
from serving.messages import PredictBody
from serving.problems import documented

SCHEMES = {
    "key": {"type": "http", "scheme": "bearer", "description": "an API key, where the service has keys"},
    "password": {"type": "http", "scheme": "basic", "description": "the key as password, for browsers"},
}


def install(app: FastAPI) -> None:
    """Complete the document; after every other part of it is in place."""
    made = app.openapi

    def openapi() -> dict[str, Any]:
        schema = made()
        schema["components"]["securitySchemes"] = SCHEMES
        for body in (PredictBody, PushBars):
            schema["components"]["schemas"] |= bodies.schemas(body)
        for path, methods in schema["paths"].items():
            for method, operation in methods.items():
                _complete(operation, role_of(method.upper(), path.replace("{", "").replace("}", "")))
        for unused in ("HTTPValidationError", "ValidationError"):  # FastAPI's own, which we never answer
            schema["components"]["schemas"].pop(unused, None)
        return schema

    app.openapi = openapi  # type: ignore[method-assign]


def _complete(operation: dict[str, Any], role: str | None) -> None:
    refusals = {str(status): told for status, told in documented(401, 403, 422, 429).items()}
    if "422" in operation["responses"]:
        operation["responses"]["422"] = refusals["422"]
    if role is None:
        return
    operation["security"] = [{name: []} for name in SCHEMES]
    operation["x-role"] = role
    operation["responses"] |= {status: refusals[status] for status in ("401", "403", "429")}
