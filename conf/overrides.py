"""Hydra's command-line grammar: what the words on the command line choose, set and shape."""

from collections.abc import Sequence
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override, OverrideType
from hydra.errors import HydraException

from conf.errors import ConfigError, shown
from conf.files import an_example, check_choice, groups, horizons
from conf.keys import is_structural
from conf.origin import COMMAND_LINE
from conf.package import SETS
from conf.schema import Horizon

_OF_ONE_HORIZON = ("interval", "bars", "partition", *SETS)


def parse(words: Sequence[str]) -> list[Override]:
    """The words in Hydra's grammar; ConfigError for one that is not."""
    parser = OverridesParser.create()
    parsed = []
    for word in words:
        try:
            parsed.append(parser.parse_override(word))
        except HydraException:
            fix = "Write key=value; a value with ( ) [ ] { } , : = in it goes in quotes, key='\"a (b)\"'"
            raise ConfigError(COMMAND_LINE, f"{_told(word)} cannot be read", fix=fix) from None
    return parsed


def _told(word: str) -> str:
    """A word as a message shows it, less what may be a password."""
    key = word.partition("=")[0]
    return f"{key}=..." if key.endswith("database_url") else shown(word)


def split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words as (structural, value): group choices and keys marked structural, and the rest."""
    structural: list[str] = []
    value: list[str] = []
    for override in parse(words):
        (structural if _shapes_the_graph(override) else value).append(str(override.input_line))
    return structural, value


def check_value_only(words: Sequence[str]) -> None:
    """ConfigError for the first word that shapes the graph: the settings of a run cannot."""
    structural, _ = split(words)
    if structural:
        fix = "Give it to `tenor run` or `tenor up`, or write it into the horizon's file and reload"
        problem = f"{_told(structural[0])} shapes the graph, which exists by now"
        raise ConfigError("run settings", problem, fix=fix)


def check_structural(words: Sequence[str]) -> None:
    """ConfigError for the first word that is a value: it would live for a run, and there is none."""
    _, value = split(words)
    if value:
        fix = "Give it to `tenor run` or to a run's settings in the UI, or write it into conf/"
        raise ConfigError(COMMAND_LINE, f"{_told(value[0])} lives for one run", fix=fix)


def _shapes_the_graph(override: Override) -> bool:
    path = override.key_or_group.split(".")
    top_level = [field.alias or name for name, field in Horizon.model_fields.items()]
    chooses = len(path) == 1 and path[0] in ("horizon", *top_level)
    return chooses or "/" in path[0] or is_structural(path)


def chosen(typed: Sequence[Override], directory: Path) -> list[str]:
    """The horizons that `horizon=5m,1h` names; empty when the word is not there."""
    words = [override for override in typed if override.key_or_group == "horizon"]
    if not words:
        return []
    if len(words) > 1:
        raise ConfigError(
            COMMAND_LINE, "horizon is given more than once", fix=f"Write horizon={an_example(directory, 2)}"
        )
    word, value = words[0], words[0].value()
    if word.type is not OverrideType.CHANGE or isinstance(value, list | dict):
        fix = f"Write {' or '.join(dict.fromkeys(f'horizon={an_example(directory, most)}' for most in (1, 2)))}"
        raise ConfigError(COMMAND_LINE, f"{_told(str(word.input_line))} cannot be done", fix=fix)
    if isinstance(value, Glob):
        names = value.filter(horizons(directory))
    elif word.is_choice_sweep():
        names = list(word.sweep_string_iterator())
    else:
        names = [word.get_value_string()]
    for index, name in enumerate(names):
        names[index] = name.strip("'\"")
        check_choice(directory, "horizon", names[index], COMMAND_LINE)
    return list(dict.fromkeys(names))


def check(typed: Sequence[Override], directory: Path) -> None:
    """ConfigError for a word that no horizon could take: a sweep, an unknown choice, a group taken away."""
    folders = groups(directory)
    for override in typed:
        word, key = str(override.input_line), override.key_or_group
        if key == "horizon":
            continue
        if override.is_sweep_override():
            fix = f"Only horizon takes several values; write {key}=[a,b] for a list, quotes for a comma"
            raise ConfigError(COMMAND_LINE, f"{_told(word)} is a sweep", fix=fix)
        if override.package or override.is_value_path or "/" in key or key.split(".")[0] in ("", "hydra"):
            fix = "Write key=value or group=choice"
            raise ConfigError(COMMAND_LINE, f"{_told(word)} cannot be done", fix=fix)
        if key in folders:
            _check_group(override, directory)


def _check_group(override: Override, directory: Path) -> None:
    word, group, value = str(override.input_line), override.key_or_group, override.value()
    if override.type is not OverrideType.CHANGE:
        fix = f"Every config has one {group}: write {group}=choice"
        raise ConfigError(COMMAND_LINE, f"{_told(word)} cannot be done", fix=fix)
    several = isinstance(value, list) and group in SETS
    if isinstance(value, dict) or (isinstance(value, list) and not several):
        fix = f"Write {group}=choice, and {group}.key=value for one key of it"
        raise ConfigError(COMMAND_LINE, f"{_told(word)} is not a choice", fix=fix)
    if value == []:
        raise ConfigError(COMMAND_LINE, f"{word} chooses nothing", fix=f"Name at least one set of {group}")
    for choice in value if isinstance(value, list) else [value]:
        check_choice(directory, group, str(choice), COMMAND_LINE)


def typed_keys(typed: Sequence[Override], directory: Path) -> list[list[str]]:
    """The keys that the words set by themselves, not through the file that a choice names."""
    files = ("horizon", *groups(directory))
    return [override.key_or_group.split(".") for override in typed if override.key_or_group not in files]


def words_for(name: str, typed: Sequence[Override], directory: Path, *, asked: bool) -> list[str]:
    """The words as Hydra takes them for one horizon.

    A key that the YAML leaves out may be set too: whether it exists is for the schema to say. What a horizon
    is by itself (interval, bars, partition, its sets) is not changed in one that is only here because another resamples
    or reads its bars, and no horizon resamples itself: so `horizon=1m,5m bars.from=1m` means what it says.
    """
    folders = groups(directory)
    words = [f"horizon='{name}'"]
    for override in typed:
        word, key = str(override.input_line), override.key_or_group
        its_own = key.split(".")[0] in _OF_ONE_HORIZON
        if key == "horizon" or (its_own and not asked) or (key == "bars.from" and override.value() == name):
            continue
        sets = override.type in (OverrideType.CHANGE, OverrideType.ADD, OverrideType.FORCE_ADD)
        if not sets or key in folders:
            words.append(word)
            continue
        if isinstance(override.value(), list):  # a list takes the place of a mapping, where Hydra would merge them
            words.append(f"++{key}=null")
        words.append("++" + word.lstrip("+"))
    return words
