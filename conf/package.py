"""The `# @package` line of a config file: under which key Hydra puts what the file says."""

import re
from pathlib import Path

from conf.errors import ConfigError
from conf.origin import place

SETS = ("features", "factors")


def written_package(file: Path) -> str:
    """The package that the file's first line names ("" for the top level), else that of its group."""
    found = re.match(r"#\s*@package\s+(\S+)", _first_line(file))
    if not found:
        return file.parent.name
    return "" if found[1] == "_global_" else found[1]


def check_package(file: Path, package: str) -> None:
    """ConfigError when a group's file puts its keys under `package`, and that is not where they belong."""
    group, choice = file.parent.name, file.stem
    expected = "" if group == "horizon" else f"{group}.{choice}" if group in SETS else group
    if package == expected:
        return
    needed = group == "horizon" or group in SETS
    fix = f"Make `# @package {expected or '_global_'}` its first line" if needed else "Remove that line"
    first = _first_line(file)
    problem = f"its keys would go under `{package or 'the top level'}`, because its first line is `{first}`"
    raise ConfigError(place(file, 1), problem, fix=fix)


def _first_line(file: Path) -> str:
    with file.open(encoding="utf-8") as stream:
        return stream.readline().strip()
