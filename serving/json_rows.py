"""JSON bodies with long lists: taken apart first, then validated item by item, so that no step holds up the others."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from serving.problems import LISTED, Faults, Problem, field_error, refuse_fields

M = TypeVar("M", bound=BaseModel)

MANY = 1_000  # errors of one item

_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_items = msgspec.json.Decoder(list[msgspec.Raw]).decode


@dataclass(frozen=True)
class Items:
    """total: how many items there were. good: those that are fine, by their row. wrong: the field errors of the first
    `LISTED` of the others; count: of all of them."""

    total: int
    good: dict[int, Any]
    wrong: dict[int, list[dict[str, Any]]]
    count: int


def members(body: bytes) -> dict[str, Any]:
    """The members of a JSON object, not yet parsed. Problem 400 for what is not JSON, 422 for what is no object."""
    found: Any
    try:
        return _members(body)
    except msgspec.ValidationError:
        found = None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # NaN and Infinity, which JSON has not and Python's clients write: read them, to say in which field they are.
        try:
            found = from_json(body)
        except ValueError as error:
            raise Problem(400, "not-json", f"the body is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise refuse_fields("invalid-request", [field_error([], "the body must be a JSON object")])
    return found


def plain(value: Any) -> Any:
    """A member as Python values."""
    try:
        return from_json(bytes(value)) if isinstance(value, msgspec.Raw) else value
    except ValueError as error:  # bytes that are no text inside a string: what took the body apart does not look there
        raise Problem(400, "not-json", f"the body is not JSON: {error}") from error


def nested(value: Any) -> dict[str, Any] | None:
    """The members of a member, not yet parsed; None where it is no object."""
    if not isinstance(value, msgspec.Raw):
        return value if isinstance(value, dict) else None
    try:
        return _members(value)
    except msgspec.ValidationError:
        return None


def items(value: Any, kind: type[BaseModel], where: list[str | int], most: int) -> Items | None:
    """The items of a list, each validated alone; None where it is no list. Problem 422 for more than `most`."""
    try:
        found = _items(value) if isinstance(value, msgspec.Raw) else value
    except msgspec.ValidationError:
        return None
    if not isinstance(found, list):
        return None
    if len(found) > most:
        why = f"{len(found):,} are more than the {most:,} of one request: send several"
        raise refuse_fields("too-large", [field_error(where, why)])
    good: dict[int, Any] = {}
    wrong: dict[int, list[dict[str, Any]]] = {}
    count = 0
    for row, item in enumerate(found):
        try:
            good[row] = validated(item, kind)
        except ValidationError as error:
            count += error.error_count()
            if len(wrong) < LISTED:
                wrong[row] = errors_of(error, [*where, row])
    return Items(len(found), good, wrong, count)


def validated(value: Any, kind: type[M]) -> M:
    """One item, or pydantic's ValidationError."""
    if isinstance(value, msgspec.Raw):
        return kind.model_validate_json(bytes(value))
    return kind.model_validate(value)


def errors_of(error: ValidationError, where: list[str | int]) -> list[dict[str, Any]]:
    """A field error for each thing that is wrong with what stands at `where`; one for all, where they are very many."""
    if (count := error.error_count()) > MANY:
        return [field_error(where, f"{count:,} things are wrong with it: is it what was meant?")]
    told = error.errors(include_url=False, include_context=False, include_input=False)
    return [field_error([*where, *one["loc"]], one["msg"]) for one in told]


def listed(
    found: Mapping[str, Any], name: str, kind: type[BaseModel], where: list[str | int], most: int, faults: Faults
) -> Any:
    """A member that should be a list of `kind`, as its model takes it; what is wrong goes to `faults`."""
    checked = items(found[name], kind, where, most)
    if checked is None:
        return plain(found[name])
    faults.add([error for told in checked.wrong.values() for error in told], checked.count)
    return list(checked.good.values()) or [kind.model_construct()] * bool(checked.count)


def message(model: type[M], values: Mapping[str, Any], faults: Faults) -> M:
    """The whole message of members as Python values and lists of validated items; Problem 422 with all faults."""
    try:
        made = model.model_validate({name: plain(value) for name, value in values.items()})
    except ValidationError as error:
        faults.add(errors_of(error, []), error.error_count())
    faults.refuse("invalid-request")
    return made
