"""From the YAML files and the words of a command line to validated horizons."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from conf.across import elsewhere, read_by
from conf.errors import ConfigError, nearest
from conf.explain import explain
from conf.files import home, horizons
from conf.merge import merge
from conf.origin import Origins
from conf.overrides import check, check_structural, check_value_only, chosen, parse, split
from conf.package import SETS
from conf.schema import Horizon

__all__ = [
    "ConfigError",
    "asked",
    "check_structural",
    "check_value_only",
    "compose",
    "horizons",
    "split",
    "to_yaml",
]


def compose(overrides: Sequence[str] = (), directory: Path | None = None) -> dict[str, Horizon]:
    """The horizons that `horizon=5m,1h` names, and those whose bars they resample or read; finest first.

    `overrides` are words in Hydra's grammar; all but `horizon` change each of these horizons. Without
    `horizon`, the one that config.yaml chooses. `directory` is a config folder: that of TENOR_CONF, else
    Tenor's own. Raises ConfigError, one message for the first mistake; files are read anew on each call.
    """
    directory = directory.resolve() if directory else home()
    typed = parse(overrides)
    check(typed, directory)
    wanted = chosen(typed, directory) or [_default_horizon(directory)]
    built: dict[str, Horizon] = {}
    origins: dict[str, Origins] = {}
    known = horizons(directory)
    read: dict[str, list[str]] = {}
    waiting = list(wanted)
    while waiting:
        name = waiting.pop(0)
        if name in built:
            continue
        data, origins[name] = merge(name, typed, directory, asked=name in wanted)
        built[name] = _validated(name, data, origins[name])
        read[name] = read_by(built[name], known, origins[name])
        waiting += [*_resampled_from(built[name], directory, origins[name]), *read[name]]
    for name, others in read.items():
        if others:
            built[name] = built[name].model_copy(update={"at": {other: elsewhere(built[other]) for other in others}})
    for horizon in built.values():
        if horizon.bars.from_ != "source":
            _check_resampling(horizon, built, origins[horizon.name].of(["bars", "from"]))
    return dict(sorted(built.items(), key=lambda item: (item[1].minutes, item[0])))


def asked(overrides: Sequence[str] = (), directory: Path | None = None) -> list[str]:
    """The horizons that the words ask for, without those that only come along to be resampled or read."""
    directory = directory.resolve() if directory else home()
    return chosen(parse(overrides), directory) or [_default_horizon(directory)]


def to_yaml(horizon: Horizon) -> str:
    """The resolved config as YAML, absent keys left out. Secrets are never part of a config."""
    data = horizon.model_dump(mode="json", by_alias=True, exclude_none=True)
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=110)


def _default_horizon(directory: Path) -> str:
    with (directory / "config.yaml").open(encoding="utf-8") as stream:
        entries = yaml.safe_load(stream)["defaults"]
    return next(entry["horizon"] for entry in entries if isinstance(entry, dict) and "horizon" in entry)


def _validated(name: str, data: Mapping[str, Any], origins: Origins) -> Horizon:
    if "name" in data:
        fix = "Remove it: the file's name is the horizon's"
        raise ConfigError(origins.of(["name"]), f"name ({data['name']}) is not a key", fix=fix)
    if "at" in data:
        fix = "Remove it: the horizons that expressions read with at(…) are composed from their own files"
        raise ConfigError(origins.of(["at"]), "at is not a key", fix=fix)
    try:
        horizon = Horizon.model_validate({"name": name, **data})
    except ValidationError as error:
        raise explain(error, data, origins) from None
    for group in SETS:
        _check_names(group, getattr(horizon, group), origins)
    return horizon


def _check_names(group: str, sets: Mapping[str, Mapping[str, Any]], origins: Origins) -> None:
    """ConfigError for a name in two sets: one would hide the other."""
    seen: dict[str, str] = {}
    for chosen_set, entries in sets.items():
        for name in entries:
            if name in seen:
                first = origins.of([group, seen[name], name])
                problem = f"{name} is already in the set {seen[name]}, at {first}"
                raise ConfigError(origins.of([group, chosen_set, name]), problem, fix="Rename one of them")
            seen[name] = chosen_set


def _resampled_from(horizon: Horizon, directory: Path, origins: Origins) -> list[str]:
    finer = horizon.bars.from_
    if finer == "source":
        return []
    known = ["source", *horizons(directory)]
    if finer not in known:
        problem = f"bars.from is {finer}; there is no such horizon"
        fix = f"Write one of {', '.join(known)}"
        raise ConfigError(origins.of(["bars", "from"]), problem, nearest=nearest(finer, known), fix=fix)
    return [finer]


def _check_resampling(horizon: Horizon, built: Mapping[str, Horizon], where: str) -> None:
    """ConfigError unless the chain of `bars.from` ends in a source and this link of it fits."""
    chain = [horizon.name]
    while (finer := built[chain[-1]].bars.from_) != "source":
        chain.append(finer)
        if chain.count(finer) > 1:
            fix = "Give one of them bars: {from: source}"
            raise ConfigError(where, f"bars.from goes round in a circle: {' <- '.join(chain)}", fix=fix)
    fine = built[horizon.bars.from_]
    problem = f"bars.from is {fine.name}, but {fine.interval} bars do not make up {horizon.interval} bars"
    if fine.minutes >= horizon.minutes:
        raise ConfigError(where, problem, fix="Name a horizon with shorter bars, or source")
    if horizon.interval != "1d" and horizon.minutes % fine.minutes:
        fix = f"Name a horizon whose bars divide {horizon.interval}, or source"
        raise ConfigError(where, problem, fix=fix)
    if fine.calendar != horizon.calendar:
        problem = f"bars.from is {fine.name}, but that keeps the calendar {fine.calendar.name}"
        raise ConfigError(where, problem, fix=f"Choose {horizon.calendar.name} for both, or bars.from=source")
