"""Bodies of JSON requests: small ones are parsed at once, others on a thread, so many and no more."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from fastapi import Request
from pydantic import TypeAdapter
from starlette.requests import ClientDisconnect

from serving.limits import Gate
from serving.problems import Problem

INLINE = 16 * 2**10  # bytes that are parsed sooner than a thread begins

T = TypeVar("T")


class Bodies:
    """Reads the bodies of requests whose lists may be long."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="parse")

    async def read(self, request: Request, parse: Callable[..., T], *told: Any) -> T:
        """`parse(body, *told)`. Problem 415 for another content type, 503 where too many bodies wait."""
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
            why = "the body was not read as JSON: send it with the header content-type: application/json"
            raise Problem(415, "not-json", why)
        declared = request.headers.get("content-length", "")
        if not declared.isdigit() or int(declared) > INLINE:
            self._gate.check(
                int(declared) if declared.isdigit() else 0
            )  # before it is received: what is refused then costs next to nothing
        body = await whole(request)
        if len(body) <= INLINE:
            return parse(body, *told)
        async with self._gate.waiting(len(body)):
            return await asyncio.get_running_loop().run_in_executor(self._thread, parse, body, *told)

    def close(self) -> None:
        """Finish what is being parsed."""
        self._thread.shutdown(cancel_futures=True)


async def whole(request: Request) -> bytes:
    """The body. Problem 400 where the client went away, which is no error of ours."""
    try:
        return await request.body()
    except ClientDisconnect as error:
        raise Problem(400, "client-gone", "the client went away before its body had arrived") from error


def documented(kind: Any) -> dict[str, Any]:
    """`openapi_extra` of a route that reads its body itself; `schemas` has what it refers to."""
    schema = {key: value for key, value in _schema(kind).items() if key != "$defs"}
    if "anyOf" not in schema:
        schema = {"$ref": f"#/components/schemas/{kind.__name__}"}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def schemas(kind: Any) -> dict[str, Any]:
    """The OpenAPI components that `documented` refers to."""
    schema = _schema(kind)
    made = dict(schema.pop("$defs", {}))
    return made if "anyOf" in schema else made | {kind.__name__: schema}


def _schema(kind: Any) -> dict[str, Any]:
    return TypeAdapter(kind).json_schema(ref_template="#/components/schemas/{model}")
