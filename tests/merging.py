"""Hydra merges the same files under the same words once: two fifths of what hundreds of runs in one process took."""

import hashlib
import os
from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from conf.merge import Merged

Merge = Callable[..., Merged]


def remembered(merge: Merge) -> Merge:
    """`conf.merge.merge`, which keeps what it made of the bytes of files; a mistake is found anew each time."""
    kept: dict[Any, Merged] = {}

    def merged(name: str, typed: Sequence[Any], directory: Path, *, asked: bool = True) -> Merged:
        words = tuple(word.input_line for word in typed)
        environment = frozenset(item for item in os.environ.items() if item[0].startswith("TENOR_"))  # files read these
        key = (name, words, directory, asked, _bytes(directory), environment)
        if key not in kept:
            kept[key] = merge(name, typed, directory, asked=asked)
        return deepcopy(kept[key])

    return merged


def _bytes(directory: Path) -> str:
    found = hashlib.sha256()
    for file in sorted(directory.rglob("*.yaml")):
        found.update(f"{file}\n".encode() + file.read_bytes())
    return found.hexdigest()
