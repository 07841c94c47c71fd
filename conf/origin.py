"""Where a key of a composed config was set: a line of a file, or the command line."""

from collections.abc import Sequence
from pathlib import Path

import yaml

COMMAND_LINE = "command line"

Key = Sequence[str | int]


def dotted(key: Key) -> str:
    """A key as the command line writes it: model.num_leaves."""
    return ".".join(str(part) for part in key)


def place(file: Path, line: int | None = None) -> str:
    """A file as a message names it: from the working folder where it lies inside, with its line."""
    here = Path.cwd()
    name = file.relative_to(here) if file.is_relative_to(here) else file
    return f"{name}:{line}" if line else str(name)


class Origins:
    """The files one config was composed of, in the order they were merged, and the keys that were typed.

    `parts`: each file with the key its content was put under; `typed`: the keys of the command line.
    """

    def __init__(self, parts: Sequence[tuple[Path, Key]], typed: Sequence[Key]) -> None:
        self._parts = parts
        self._typed = typed

    def of(self, key: Key) -> str:
        """Where the key was last set; for a key that is nowhere, where what it lies in was."""
        if any(_starts(key, typed) or _starts(typed, key) for typed in self._typed):
            return COMMAND_LINE
        for length in range(len(key), -1, -1):
            for file, under in reversed(self._parts):
                line = _line(file, key[len(under) : length]) if _starts(key[:length], under) else None
                if line is not None:
                    return place(file, line)
        raise AssertionError("some file lies at the top level")


def _starts(key: Key, beginning: Key) -> bool:
    return list(key[: len(beginning)]) == list(beginning)


def _line(file: Path, key: Key) -> int | None:
    """The line of a key in a YAML file; 0 for the file as a whole, None where the key is not in it."""
    with file.open(encoding="utf-8") as stream:
        node = yaml.compose(stream, Loader=yaml.SafeLoader)
    line = 0
    for name in key:
        if isinstance(node, yaml.MappingNode):
            found = [pair for pair in node.value if pair[0].value == str(name)]
        elif isinstance(node, yaml.SequenceNode) and isinstance(name, int) and name < len(node.value):
            found = [(node.value[name], node.value[name])]
        else:
            found = []
        if not found:
            return None
        line = found[-1][0].start_mark.line + 1
        node = found[-1][1]
    return line
