"""Which other horizons a config's expressions read, with at("1h", x), and what of those horizons they may name."""

import ast
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from conf.errors import ConfigError, nearest
from conf.origin import Origins
from conf.package import SETS
from conf.schema import Elsewhere, Horizon


def read_by(horizon: Horizon, known: Sequence[str], origins: Origins) -> list[str]:
    """The horizons that its features and factors read, each once; ConfigError for one that cannot be read.

    An expression that is not Python is left to whoever compiles it, and to its message.
    """
    found: dict[str, None] = {}
    for group in SETS:
        for chosen_set, entries in getattr(horizon, group).items():
            for entry, declared in entries.items():
                for name, column in _named(declared):
                    if name == horizon.name or name not in known:
                        where = f"{origins.of([group, chosen_set, entry])}: {entry}, column {column + 1}"
                        raise _refusal(name, horizon.name, known, where)
                    found[name] = None
    return list(found)


def elsewhere(other: Horizon) -> Elsewhere:
    """What another horizon's expressions may read of this one."""
    return Elsewhere(
        interval=other.interval,
        calendar=other.calendar,
        extras=list(getattr(other.source, "extras", ())),
        derived=other.source.derived,
        attributes=other.universe.attributes,
        features=other.features,
    )


def _named(declared: Any) -> Iterator[tuple[str, int]]:
    """Horizons that an entry's expression names, and the place in it; parameters stand for values."""
    fields = {"expr": declared} if isinstance(declared, str) else declared
    text = fields.get("expr") if isinstance(fields, Mapping) else None
    if not isinstance(text, str):
        return
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return
    for call in ast.walk(tree):
        match call:
            case ast.Call(func=ast.Name(id="at"), args=[ast.Constant(value=str() as name), *_]):
                yield name, call.col_offset
            case ast.Call(func=ast.Name(id="at"), args=[ast.Name(id=parameter), *_]):
                values = fields.get(parameter)
                yield from ((str(name), call.col_offset) for name in (values if isinstance(values, list) else ()))


def _refusal(name: str, own: str, known: Sequence[str], where: str) -> ConfigError:
    if name == own:
        return ConfigError(where, f'at("{name}", …) is this horizon itself', fix="Name another one, or leave at(…) out")
    fix = f"Write one of {', '.join(other for other in known if other != own)}"
    return ConfigError(where, f"there is no horizon {name} for at(…)", nearest=nearest(name, known), fix=fix)
