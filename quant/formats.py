"""Formats of what is kept on the disk: a name and a number, as in tenor-bundle-1; a newer Tenor's number is higher."""

import re

_FORMAT = re.compile(r"([a-z-]+)-(\d+)")


def newer(found: object, ours: str) -> bool:
    """Whether a format has our name and a higher number."""
    theirs, mine = _parts(found), _parts(ours)
    return theirs is not None and mine is not None and theirs[0] == mine[0] and theirs[1] > mine[1]


def refusal(what: str, found: object, ours: str, older: str) -> str:
    """Why something in another format than ours is not read, and what to do; older: where it is no newer one."""
    if newer(found, ours):
        return f"{what} has the format {found} of a newer Tenor, and this one reads {ours}: update Tenor"
    return f"{what} has the format {found!r}, and this Tenor reads {ours}: {older}"


def _parts(format: object) -> tuple[str, int] | None:
    match = _FORMAT.fullmatch(format) if isinstance(format, str) else None
    return (match[1], int(match[2])) if match else None
