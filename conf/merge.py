"""One horizon's files and overrides, merged by Hydra into plain data."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from conf.diagnose import diagnose
from conf.errors import ConfigError
from conf.origin import Origins
from conf.overrides import typed_keys, words_for
from conf.package import check_package


class Merged(NamedTuple):
    """Plain data, and where each key of it was set."""

    data: dict[str, Any]
    origins: Origins


def merge(name: str, typed: Sequence[Override], directory: Path, *, asked: bool = True) -> Merged:
    """The merged config of horizon `name`; ConfigError for what Hydra cannot read or find.

    Hydra's loader is used without its global state, so that several threads may compose at once and a program
    that runs under Hydra itself is left alone. Files are read anew on each call.
    """
    words = words_for(name, typed, directory, asked=asked)
    loader = ConfigLoaderImpl(create_config_search_path(str(directory)))
    try:
        parts = _parts(loader, words, directory)
        config = loader.load_configuration("config", words, RunMode.RUN, from_shell=False)
    except ConfigError:
        raise
    except (HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError) as error:
        raise diagnose(error, name, typed, directory) from None
    config = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    origins = Origins(parts, typed_keys(typed, directory))
    try:
        unset = sorted(OmegaConf.missing_keys(config))
        data = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(origins.of(str(error.full_key).split(".")), f"{error.full_key}: {reason}") from None
    if unset:
        fix = f"Give it as {unset[0]}=... on the command line, or write it into the file"
        raise ConfigError(origins.of(unset[0].split(".")), f"{unset[0]} is required", fix=fix)
    assert isinstance(data, dict)
    return Merged({str(key): value for key, value in data.items()}, origins)


def _parts(loader: ConfigLoaderImpl, words: list[str], directory: Path) -> list[tuple[Path, list[str]]]:
    """The files in the order they are merged, each with the key its content goes under."""
    parts = []
    for part in loader.compute_defaults_list("config", words, RunMode.RUN).defaults:
        path, package = str(part.config_path), str(part.package or "")
        if path.split("/")[0] == "hydra":
            continue
        file = directory / f"{path}.yaml"
        if file.parent != directory:
            check_package(file, package)
        parts.append((file, package.split(".") if package else []))
    return parts
