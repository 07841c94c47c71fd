"""The config folder: which groups and choices its files offer."""

import os
import re
from pathlib import Path

from conf.errors import ConfigError, nearest, shown
from conf.fields import UNITS
from conf.origin import place

REPOSITORY = Path(__file__).resolve().parent.parent  # where Tenor runs: its packages, dagster.yaml, workspace.yaml


def home() -> Path:
    """The folder that TENOR_CONF names, else the one of this file; ConfigError where there is no config."""
    named = os.environ.get("TENOR_CONF")
    folder = Path(named).expanduser().resolve() if named else Path(__file__).resolve().parent
    if not (folder / "config.yaml").is_file():
        fix = "Point TENOR_CONF at a copy of Tenor's conf folder, or unset it"
        raise ConfigError("TENOR_CONF", f"{folder} has no config.yaml", fix=fix)
    return folder


def groups(directory: Path) -> list[str]:
    """The names of the groups: the folders that hold YAML files."""
    return sorted({file.parent.name for file in directory.glob("*/*.yaml")})


def options(directory: Path, group: str) -> list[str]:
    """The choices of a group, by name; those that begin with an interval in its order."""

    def order(name: str) -> tuple[float, str]:
        interval = re.match(r"(\d+)([mhd])", name)
        return (int(interval[1]) * UNITS[interval[2]] if interval else float("inf"), name)

    return sorted((file.stem for file in (directory / group).glob("*.yaml")), key=order)


def horizons(directory: Path | None = None) -> list[str]:
    """The names of all horizons, shortest bars first as far as their names tell."""
    return options(directory or home(), "horizon")


def an_example(directory: Path | None = None, most: int = 1) -> str:
    """A horizon that exists, or `most` of them with commas, for a message that says what to write."""
    known = horizons(directory)
    at = known.index("5m") if "5m" in known else 0
    return ",".join(known[at : at + most])


def check_choice(directory: Path, group: str, choice: str, where: str) -> None:
    """ConfigError, with the nearest choice, unless the group has a file of that name."""
    known = options(directory, group)
    if choice in known:
        return
    file = directory / group / f"{choice}.yaml"
    other = file.with_suffix(".yml")
    fix = f"Choose one of {', '.join(known)}"
    if other.is_file():
        fix = f"Rename {place(other)} to {file.name}"
    elif re.fullmatch(r"[\w.-]+", choice):
        fix += f", or add {place(file)}"
    problem = f"{group} is {shown(choice)}, which {place(directory / group)} does not have"
    raise ConfigError(where, problem, nearest=nearest(choice, known), fix=fix)
