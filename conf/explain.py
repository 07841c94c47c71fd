"""Pydantic's findings about a config, told as one ConfigError in the words of its files."""

import re
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from conf.errors import ConfigError, must_be, nearest, shown
from conf.fields import Wrong
from conf.keys import kinds, meant, siblings
from conf.origin import Key, Origins, dotted


def explain(error: ValidationError, raw: Mapping[str, Any], origins: Origins) -> ConfigError:
    """The ConfigError for the first finding; unknown keys before others, as they explain those."""
    finding = min(error.errors(), key=lambda finding: finding["type"] != "extra_forbidden")
    key = _key(finding, raw)
    if finding["type"] == "extra_forbidden":
        return _unknown(key, finding["input"], raw, origins)
    if finding["type"] == "missing":
        return _missing([*key, finding["loc"][-1]], raw, origins)
    if finding["type"] == "union_tag_not_found":
        return _missing([*key, "kind"], raw, origins)
    return _impossible(key, finding, origins)


def _key(finding: ErrorDetails, raw: Mapping[str, Any]) -> list[str | int]:
    """The finding's place as far as it exists in the YAML: not the names of the branches of a union."""
    key: list[str | int] = []
    inside: Any = raw
    loc = list(finding["loc"])
    for at, name in enumerate(loc):
        chosen = isinstance(inside, Mapping) and inside.get("kind") == name
        if chosen and at < len(loc) - 1 and len(key) == at:  # a branch that is called as one of its keys: cron
            continue
        if isinstance(name, int) or (isinstance(inside, Mapping) and name in inside):
            inside = inside[name]
            key.append(name)
    return key


def _unknown(key: Key, value: Any, raw: Mapping[str, Any], origins: Origins) -> ConfigError:
    where, name = origins.of(key), dotted(key)
    if key[-1] == "database_url":  # a password may be in it: its value is not repeated
        fix = "Set the environment variable TENOR_DATABASE_URL instead: secrets stay out of the config"
        return ConfigError(where, f"{name} is not a key", fix=fix)
    problem = f"{name} ({shown(value)}) is not a key"
    kind = _kind(key, raw)
    others = kinds(key) if kind else []
    if others:
        fix = f"It belongs to {key[0]}={f' and {key[0]}='.join(others)}: choose that, or remove the key"
        return ConfigError(where, f"{problem} of {key[0]} {kind}", fix=fix)
    fix = f"The keys here are {', '.join(siblings(key, kind))}" if len(key) > 1 else "Rename or remove it"
    return ConfigError(where, problem, nearest=meant(key, kind), fix=fix)


def _missing(key: Key, raw: Mapping[str, Any], origins: Origins) -> ConfigError:
    name, beside = dotted(key), raw
    for part in key[:-1]:
        beside = beside[str(part)]
    known = siblings(key, _kind(key, raw))
    written = nearest(str(key[-1]), [other for other in beside if other not in known])
    if written:
        wrong = [*key[:-1], written]
        problem = f"{dotted(wrong)} ({shown(beside[written])}) is not a key"
        return ConfigError(origins.of(wrong), problem, nearest=name, fix="Rename it")
    return ConfigError(origins.of(key), f"{name} is missing", fix=f"Add it there, or write {name}=value")


def _impossible(key: Key, finding: ErrorDetails, origins: Origins) -> ConfigError:
    context, value, close = finding.get("ctx", {}), finding["input"], None
    wrong = context.get("error")
    if isinstance(wrong, Wrong):
        must, close = str(wrong), wrong.nearest
        for part in (wrong.key,) if isinstance(wrong.key, str) else wrong.key:
            key, value = [*key, part], value.get(part)
    elif finding["type"] in ("literal_error", "union_tag_invalid"):
        if finding["type"] == "union_tag_invalid":
            key, value = [*key, "kind"], context["tag"]
        known = re.findall(r"'([^']*)'", context.get("expected") or context["expected_tags"])
        must, close = f"must be one of {', '.join(known)}", nearest(str(value), known)
    else:
        must = must_be(finding)
    return ConfigError(origins.of(key), f"{dotted(key)} is {shown(value)}; it {must}", nearest=close)


def _kind(key: Key, raw: Mapping[str, Any]) -> str | None:
    """Which of several schemas the mapping around the key follows; None where there is only one."""
    inside = raw.get(str(key[0]))
    if "kind" not in siblings([key[0], "kind"]) or not isinstance(inside, Mapping):
        return None
    return inside.get("kind")
