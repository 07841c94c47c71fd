"""A query parameter that a route does not know is refused: ignored, `symbl=AAA` would answer for every symbol."""

from typing import Any
from urllib.parse import parse_qsl

from fastapi import params
from fastapi.dependencies.utils import get_flat_params
from starlette.requests import HTTPConnection

from serving.problems import Faults, Problem, field_error, nearest, refuse_fields


async def only_known(connection: HTTPConnection) -> None:
    """Problem 422 for parameters that the route has not; a dependency of every route."""
    if connection.scope["type"] == "http" and (refusal := unknown(connection)):
        raise refusal


def unknown(connection: HTTPConnection) -> Problem | None:
    """The refusal of a request to a FastAPI route, None where it knows all parameters."""
    if not connection.scope["query_string"]:
        return None
    return refused(connection.scope["query_string"], _known(connection.scope["route"]))


def refused(query: bytes, known: tuple[str, ...] = ()) -> Problem | None:
    """The refusal of a query string, None where all its parameters are known."""
    given = dict.fromkeys(name for name, _ in parse_qsl(query.decode("latin-1"), keep_blank_values=True))
    there, faults = f"it takes {', '.join(known)}" if known else "it takes none", Faults()

    def wrong(name: str) -> dict[str, Any]:
        near = nearest(name, known)
        hint = f"did you mean {near!r}?" if near else there
        return field_error(["query", name], f"this route has no parameter {name!r}; {hint}", near)

    faults.each((name for name in given if name not in known), wrong)
    return refuse_fields("unknown-parameter", faults.errors, faults.count) if faults.count else None


def _known(route: Any) -> tuple[str, ...]:
    call = route.dependant.call
    if call not in _of_handlers:
        taken = get_flat_params(route.dependant)
        _of_handlers[call] = tuple(param.alias for param in taken if isinstance(param.field_info, params.Query))
    return _of_handlers[call]


_of_handlers: dict[Any, tuple[str, ...]] = {}  # looked up for each request: finding them costs more than answering it
