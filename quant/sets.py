"""Sets of expressions as YAML declares them, expanded into one flat list of entries."""

import ast
import difflib
import itertools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from quant.expression import ExpressionError, Source, syntax

_BOUNDS = ("low", "high", "nulls")
_KEYS = ("expr", "group", "description", *_BOUNDS)
_LARGEST = 3.4028234663852886e38  # of float32
_NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9_]*")
_PLACE = re.compile(r"{(\w+)}")

Declared = str | Mapping[str, Any]


@dataclass(frozen=True)
class Entry:
    """One expression: its name, text, group and description, the file that declares it, and what it may be.

    low, high: a row with a value outside is rejected. nulls: the largest share of rows that may lack the value.
    """

    name: str
    text: str
    group: str
    description: str = ""
    file: str = ""
    low: float | None = None
    high: float | None = None
    nulls: float | None = None


def expand(
    sets: Mapping[str, Mapping[str, Declared]],
    *,
    file_of: Callable[[str], str],
    names: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, Entry]:
    """Entries by name, in order; a family gives one for each combination of its parameters.

    An entry is its expression, or a mapping of `expr`, `group` (the set's name if absent), `description`, the bounds
    `low`, `high` and `nulls`, and parameters. A parameter is a list, or a key of `names` for a list of names.
    Raises ExpressionError.
    """
    entries: dict[str, Entry] = {}
    declared_by: dict[str, str] = {}
    for set_name, declared in sets.items():
        file = file_of(set_name)
        for pattern, value in declared.items():
            for entry in _family(pattern, value, set_name, file, names or {}):
                if entry.name in entries:
                    first, other = declared_by[entry.name], entries[entry.name].file
                    by = f", by {first}" if other == file or first != entry.name else ""
                    shown = _shown(entry.name, pattern)
                    raise ExpressionError(f"{file}: {shown} is also declared in {other}{by}: rename one")
                entries[entry.name], declared_by[entry.name] = entry, pattern
    return entries


def _family(pattern: str, value: Declared, set_name: str, file: str, names: Mapping[str, Sequence[str]]) -> list[Entry]:
    fields = {"expr": value} if isinstance(value, str) else dict(value)
    if not isinstance(fields.get("expr"), str):
        raise ExpressionError(f"{file}: {pattern} has no expr: write `{pattern}: {{expr: …}}`")
    bounds = _bounds(pattern, fields, file)
    places = _PLACE.findall(pattern)
    _check_keys(pattern, fields, places, file)
    choices = {key: _choices(pattern, key, fields[key], file, names) for key in fields if key not in _KEYS}
    for key in (*choices, *places):
        if key not in choices or key not in places:
            problem = "has no values" if key not in choices else "is not in the name, so names would repeat"
            raise ExpressionError(f"{file}: {pattern}: parameter {key} {problem}")
    made = []
    for combination in itertools.product(*choices.values()):
        bound = dict(zip(choices, combination, strict=True))
        name = _filled(pattern, {key: _written(item) for key, item in bound.items()})
        _check_name(name, pattern, file)
        text = _bind(Source(fields["expr"].strip(), file, pattern), bound) if bound else fields["expr"]
        description = _filled(fields.get("description", ""), bound)
        made.append(Entry(name, text, fields.get("group", set_name), description, file, **bounds))
    return made


def _check_keys(pattern: str, fields: Mapping[str, Any], places: Sequence[str], file: str) -> None:
    """ExpressionError for a key that is none, and no parameter either: a parameter is in the name, or is a list."""
    for key, value in fields.items():
        if key in _KEYS or key in places or isinstance(value, list | tuple):
            continue
        nearest = difflib.get_close_matches(str(key), _KEYS, n=1)
        hint = f"; did you mean {nearest[0]}?" if nearest else "."
        raise ExpressionError(
            f"{file}: {pattern}: {key} is no key of an entry{hint} The keys are {', '.join(_KEYS)}, and a list of "
            f"values for each {{parameter}} in the entry's name"
        )


def _bounds(pattern: str, fields: Mapping[str, Any], file: str) -> dict[str, float]:
    """The bounds that an entry declares, checked."""
    given = {key: fields[key] for key in _BOUNDS if fields.get(key) is not None}
    for key, value in given.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= _LARGEST:
            raise ExpressionError(f"{file}: {pattern}: {key} is {value!r}, and must be a number of float32's range")
    made = {key: float(value) for key, value in given.items()}
    if made.get("low", -math.inf) > made.get("high", math.inf):
        raise ExpressionError(f"{file}: {pattern}: low {given['low']} is above high {given['high']}: no value fits")
    if not 0 <= made.get("nulls", 0) <= 1:
        raise ExpressionError(f"{file}: {pattern}: nulls is {given['nulls']}, and must be a share from 0 to 1")
    return made


def _choices(pattern: str, key: str, value: Any, file: str, names: Mapping[str, Sequence[str]]) -> list[Any]:
    if isinstance(value, str):
        if value not in names:
            known = ", ".join(names) or "none here"
            raise ExpressionError(
                f"{file}: {pattern}: parameter {key} is {value!r}: give a list, or a known list ({known})"
            )
        return list(names[value])
    if not isinstance(value, list | tuple) or not value:
        raise ExpressionError(f"{file}: {pattern}: parameter {key} is {value!r}, not a list of values")
    for item in value:
        if isinstance(item, bool) or not isinstance(item, int | float | str):
            raise ExpressionError(f"{file}: {pattern}: parameter {key} has {item!r}, not a number or a name")
    return list(value)


def _written(value: float | str) -> str:
    """A value as part of a name: 0.5 is 0_5, -1 is m1."""
    return str(value).replace("-", "m").replace(".", "_")


def _filled(pattern: str, values: Mapping[str, Any]) -> str:
    """A pattern with `{key}` replaced by its value; braces around anything else stay."""
    return _PLACE.sub(lambda match: str(values.get(match[1], match[0])), pattern)


def _check_name(name: str, pattern: str, file: str) -> None:
    if not _NAME.fullmatch(name):
        shown = _shown(name, pattern)
        raise ExpressionError(f"{file}: {shown} is not a name: use letters, digits and _, a letter first")


def _shown(name: str, pattern: str) -> str:
    return name if name == pattern else f"{name} (of {pattern})"


class _Binder(ast.NodeTransformer):
    """Puts values in the place of parameters: numbers, names of columns or entries, names of operators."""

    def __init__(self, bound: Mapping[str, Any]) -> None:
        self.bound = bound

    def visit_Call(self, node: ast.Call) -> ast.expr:
        operator = node.func
        match node:  # the symbol of of(…) and the horizon of at(…) are no names
            case ast.Call(func=ast.Name(id="of" | "at"), args=[ast.Name(id=parameter), *_]) if parameter in self.bound:
                node.args[0] = ast.Constant(str(self.bound[parameter]))
        self.generic_visit(node)
        if isinstance(node.func, ast.Constant):  # a number named like an operator does not replace it
            node.func = operator
        return node

    def visit_Name(self, node: ast.Name) -> ast.expr:
        if node.id not in self.bound:
            return node
        value = self.bound[node.id]
        return ast.Name(value, ast.Load()) if isinstance(value, str) else ast.Constant(value)


def _bind(source: Source, bound: Mapping[str, Any]) -> str:
    """The text with parameters replaced by their values."""
    return ast.unparse(_Binder(bound).visit(syntax(source)))
