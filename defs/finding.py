"""What `tenor doctor` finds: one line each, and what to do where something is not as it should be."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

State = Literal["ok", "note", "wrong"]  # note: nothing is broken, and somebody may want to know


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. what: "area: thing"; fix: what to do, where `state` is not ok."""

    state: State
    what: str
    told: str
    fix: str | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


Check = Callable[[], Iterable[Finding]]


def ok(what: str, told: str) -> Finding:
    return Finding("ok", what, told)


def note(what: str, told: str, fix: str) -> Finding:
    return Finding("note", what, told, fix)


def wrong(what: str, told: str, fix: str) -> Finding:
    return Finding("wrong", what, told, fix)


def looked(what: str, check: Check) -> Iterator[Finding]:
    """The findings of a check; one that cannot be made is a finding too, and the next one is still made."""
    try:
        yield from check()
    except Exception as error:  # whatever is broken must not keep the rest from being looked at
        said = " ".join(str(error).split()) or "no message"
        yield wrong(
            what, f"{type(error).__name__}: {said}", "repair what the message names, then run `tenor doctor` again"
        )
