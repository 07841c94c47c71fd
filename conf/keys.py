"""Questions about the keys of the schema: which exist, which shape the graph, which is meant."""

from collections.abc import Iterator, Sequence
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from conf.errors import nearest
from conf.origin import Key, dotted
from conf.schema import STRUCTURAL, Horizon


def is_structural(path: Key) -> bool:
    """Whether the key, or one it lies under, is marked structural; False for a key that does not exist."""
    models: list[type[BaseModel]] = [Horizon]
    for name in path:
        if any(key == name and STRUCTURAL in field.metadata for key, field in _fields(models)):
            return True
        models = _inside(models, name)
    return False


def siblings(path: Key, kind: str | None = None) -> list[str]:
    """The keys that may stand where the last one of `path` stands; `kind` picks one of several schemas."""
    models = _around(path)
    if kind:
        models = [model for model in models if kind in get_args(model.model_fields["kind"].annotation)]
    return [key for key, _ in _fields(models)]


def kinds(path: Key) -> list[str]:
    """The kinds of those schemas that do have the key."""
    models = [model for model in _around(path) if path[-1] in dict(_fields([model]))]
    return [kind for model in models for kind in get_args(model.model_fields["kind"].annotation)]


def meant(path: Key, kind: str | None = None) -> str | None:
    """The full key that a misspelt one most likely means: a sibling, or the same name elsewhere."""
    *parents, name = path
    chosen = [] if parents else ["horizon"]  # a word of the command line, which no config has
    close = nearest(str(name), [*siblings(path, kind), *chosen])
    if close:
        return dotted([*parents, close])
    named = {key.split(".")[-1]: key for key in _paths([Horizon])}
    elsewhere = nearest(str(name), named)
    return named[elsewhere] if elsewhere else None


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models(inner)


def _around(path: Key) -> list[type[BaseModel]]:
    models: list[type[BaseModel]] = [Horizon]
    for name in path[:-1]:
        models = _inside(models, name)
    return models


def _inside(models: Sequence[type[BaseModel]], name: str | int) -> list[type[BaseModel]]:
    return [model for key, field in _fields(models) if key == name for model in _models(field.annotation)]


def _fields(models: Sequence[type[BaseModel]]) -> list[tuple[str, FieldInfo]]:
    return [(field.alias or name, field) for model in models for name, field in model.model_fields.items()]


def _paths(models: Sequence[type[BaseModel]]) -> Iterator[str]:
    for key, field in _fields(models):
        yield key
        yield from (f"{key}.{inner}" for inner in _paths(list(_models(field.annotation))))
