"""Every error of the service is an RFC 9457 problem document that names the field and says what to do."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from http import HTTPStatus
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from serving.logs import correlation
from serving.messages import ProblemDocument

MEDIA_TYPE = "application/problem+json"
T = TypeVar("T")

LISTED = 20  # errors spelt out in one document; the rest are counted

_DOCUMENT = ProblemDocument.model_json_schema(ref_template="#/components/schemas/{model}")
_SCHEMAS = {**_DOCUMENT.pop("$defs"), "ProblemDocument": _DOCUMENT}


class Problem(HTTPException):
    """A refusal with an RFC 9457 document: `kind` is for machines, `detail` tells people what to do."""

    def __init__(
        self, status: int, kind: str, detail: str, *, headers: Mapping[str, str] | None = None, **members: Any
    ) -> None:
        super().__init__(status, detail, dict(headers or {}))
        self.kind = kind
        self.members = members


def nearest(name: str, names: Collection[str]) -> str | None:
    """The known name most like `name`, or None when nothing is close."""
    close = get_close_matches(name, list(names), n=1)
    return close[0] if close else None


def refuse_fields(kind: str, errors: Sequence[Mapping[str, Any]], count: int | None = None) -> Problem:
    """A 422 that says the first field error, lists the first `LISTED` and counts all of them, or says their count."""
    found = len(errors) if count is None else count
    more = f" (and {found - 1} more)" if found > 1 else ""
    detail = f"{errors[0]['field']}: {errors[0]['detail']}{more}"
    return Problem(422, kind, detail, errors=list(errors[:LISTED]), error_count=found)


@dataclass
class Faults:
    """What is wrong with a request: the first `LISTED` field errors, and how many there are."""

    errors: list[dict[str, Any]] = field(default_factory=list)
    count: int = 0

    def add(self, errors: Sequence[dict[str, Any]], count: int) -> None:
        """The first of these errors, of which there are so many."""
        self.errors += errors[: LISTED - len(self.errors)]
        self.count += count

    def each(self, wrong: Iterable[T], error: Callable[[T], dict[str, Any]]) -> None:
        """An error for each of these, made only where it is listed: looking for the nearest name takes long."""
        for one in wrong:
            if len(self.errors) < LISTED:
                self.errors.append(error(one))
            self.count += 1

    def refuse(self, kind: str) -> None:
        """Problem 422, where anything is wrong."""
        if self.count:
            raise refuse_fields(kind, self.errors, self.count)


def field_error(location: Sequence[str | int], detail: str, near: str | None = None) -> dict[str, Any]:
    """One of a document's `errors`: where in the body (JSON pointer, field, row), and what."""
    escaped = (str(part).replace("~", "~0").replace("/", "~1") for part in location)
    error: dict[str, Any] = {
        "pointer": "/".join(["#", *escaped]),
        "field": _spelt(location),
        "detail": detail,
    }
    if row := [part for part in location if isinstance(part, int)]:
        error["row"] = row[0]
    if near:
        error["nearest"] = near
    return error


def document(status: int, kind: str, detail: str, path: str, **members: Any) -> dict[str, Any]:
    """The members of a problem document; extension members follow the standard ones."""
    if path.startswith("/v2"):  # clients of the Open Inference Protocol read `error`
        members["error"] = detail
    return {
        "type": "about:blank" if kind == "about:blank" else f"urn:tenor:problem:{kind}",
        "title": HTTPStatus(status).phrase if kind == "about:blank" else kind.replace("-", " ").capitalize(),
        "status": status,
        "detail": detail,
        "instance": path,
        "correlation_id": correlation.get(),
        **members,
    }


def install(app: FastAPI) -> None:
    """Answer every refusal of `app`, FastAPI's own too, with a problem document that OpenAPI knows."""
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(RequestValidationError, _on_validation)
    made = app.openapi

    def openapi() -> dict[str, Any]:
        schema = made()
        schema["components"]["schemas"] |= _SCHEMAS
        return schema

    app.openapi = openapi  # type: ignore[method-assign]


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI `responses` for a route that can refuse with these statuses."""
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}},
        }
        for status in statuses
    }


def answer(problem: Problem, path: str) -> JSONResponse:
    """The response to a request for `path` that is refused."""
    body = document(problem.status_code, problem.kind, problem.detail, path, **problem.members)
    made = JSONResponse(body, problem.status_code, media_type=MEDIA_TYPE)
    for name, value in (problem.headers or {}).items():
        # A browser takes a line for one challenge: it would know the first scheme alone, and ask its user for nothing.
        for line in value.split(", ") if name == "www-authenticate" else [value]:
            made.headers.append(name, line)
    return made


async def _on_http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    if isinstance(error, Problem):
        return answer(error, request.url.path)
    body = document(error.status_code, "about:blank", str(error.detail), request.url.path)
    return JSONResponse(body, error.status_code, dict(error.headers or {}), media_type=MEDIA_TYPE)


async def _on_validation(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    found = error.errors()
    if found and found[0]["type"] == "json_invalid":
        why = f"the body is not JSON: {found[0]['ctx']['error']} at character {found[0]['loc'][-1]}"
        return await _on_http(request, Problem(400, "not-json", why))
    if isinstance(error.body, bytes):
        why = "the body was not read as JSON: send it with the header content-type: application/json"
        return await _on_http(request, Problem(415, "not-json", why))
    errors = [field_error(_location(one["loc"]), one["msg"]) for one in found]
    return await _on_http(request, refuse_fields("invalid-request", errors))


def _location(loc: Sequence[str | int]) -> list[str | int]:
    """FastAPI's error location less the leading "body"."""
    return list(loc[1:]) if loc and loc[0] == "body" else list(loc)


def _spelt(location: Sequence[str | int]) -> str:
    """`("rows", 3, "factors", "rsi_14")` as people write it: `rows[3].factors.rsi_14`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return text.lstrip(".") or "body"
