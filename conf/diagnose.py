"""Why Hydra could not merge a horizon's files: its failures told as one ConfigError."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml
from hydra.core.override_parser.types import Override

from conf.errors import ConfigError, nearest
from conf.files import check_choice, groups
from conf.keys import meant
from conf.origin import COMMAND_LINE, place
from conf.package import check_package, written_package


def diagnose(error: BaseException, name: str, typed: Sequence[Override], directory: Path) -> ConfigError:
    """The ConfigError that says what stopped Hydra from composing horizon `name`."""
    for cause in _causes(error):
        if isinstance(cause, yaml.MarkedYAMLError):
            return _not_yaml(cause, directory)
    its_file = directory / "horizon" / f"{name}.yaml"
    try:
        check_package(its_file, written_package(its_file))
        for file in (directory / "config.yaml", its_file, *sorted(directory.glob("*/*.yaml"))):
            _check_defaults(file, directory)
    except ConfigError as found:
        return found
    reason = str(error).strip().splitlines()[0].rstrip(".")
    blamed = [override for override in typed if override.key_or_group in reason]
    if not blamed:
        return ConfigError(place(its_file), reason)
    override = max(blamed, key=lambda override: len(override.key_or_group))
    close = meant(override.key_or_group.split(".")) if override.is_delete() else None
    return ConfigError(COMMAND_LINE, f"{override.input_line} cannot be done: {reason}", nearest=close)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error:
        yield error
        error = error.__cause__ or error.__context__


def _not_yaml(error: yaml.MarkedYAMLError, directory: Path) -> ConfigError:
    mark = error.problem_mark or error.context_mark
    file = Path(mark.name) if mark and Path(mark.name).is_file() else directory
    where = place(file, mark.line + 1 if mark else None)
    fix = "Check indentation, brackets and quotes near that line"
    return ConfigError(where, f"not valid YAML: {error.problem}", fix=fix)


def _check_defaults(file: Path, directory: Path) -> None:
    """ConfigError for the first group or choice in a file's defaults list that does not exist."""
    known = groups(directory)
    for line, group, choice in _defaults(file):
        where = place(file, line)
        if group not in known:
            fix = f"The groups are {', '.join(known)}"
            raise ConfigError(where, f"{group} is not a group", nearest=nearest(group, known), fix=fix)
        check_choice(directory, group, choice, where)


def _defaults(file: Path) -> Iterator[tuple[int, str, str]]:
    """(line, group, choice) of each choice in a file's defaults list."""
    with file.open(encoding="utf-8") as stream:
        root = yaml.compose(stream, Loader=yaml.SafeLoader)
    entries = [value for key, value in root.value if key.value == "defaults"] if root else []
    for entry in entries[0].value if entries else []:
        if isinstance(entry, yaml.ScalarNode) and entry.value != "_self_":
            yield entry.start_mark.line + 1, file.parent.name, entry.value
        if isinstance(entry, yaml.MappingNode):
            key, value = entry.value[0]
            group = key.value.split()[-1].strip("/")
            for choice in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                yield key.start_mark.line + 1, group, choice.value
