"""Files that cannot be read: one damaged among hundreds is found, and named with what to do."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import polars as pl

from resources.sources.errors import SourceError

UNREADABLE = (pl.exceptions.PolarsError, OSError)
Scan = Callable[[list[str]], pl.LazyFrame]


@contextmanager
def reading(path: str, files: Sequence[str], scan: Scan) -> Iterator[None]:
    """What goes wrong with `files` is raised as a SourceError that names the one to blame.

    path: as the config has it. scan: what opens some of the files.
    """
    try:
        yield
    except UNREADABLE as error:
        file, why = _blamed(files, scan) or (path, _line(error))
        others = f", with the columns of the others, or move it out of {path}" if len(files) > 1 else ""
        raise SourceError(f"{file} cannot be read: {why}. Write it anew, whole and readable{others}") from None


def _blamed(files: Sequence[str], scan: Scan) -> tuple[str, str] | None:
    """The first file that cannot be read, or not beside the first one, and why."""

    def head(file: str) -> object:  # cheap: what was half written has none
        return scan([file]).collect_schema()

    def whole(file: str) -> object:
        return scan([files[0], file]).collect()

    for read in (head, whole):
        for file in files:
            try:
                read(file)
            except UNREADABLE as error:
                return file, _line(error)
    return None


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
