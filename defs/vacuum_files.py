"""Files of a store that are neither tables nor bundles: which are older than a policy keeps, and deleting them."""

import shutil
from collections.abc import Collection, Iterator
from datetime import UTC, datetime
from pathlib import Path


def written(path: Path) -> datetime:
    """When a file, or the newest thing in a folder, was written."""
    return datetime.fromtimestamp(max(one.stat().st_mtime for one in (path, *path.rglob("*"))), UTC)


def bytes_of(path: Path) -> int:
    """Bytes of a file, or of all in a folder."""
    return sum(one.stat().st_size for one in (path, *path.rglob("*")) if one.is_file())


def remove(path: Path) -> None:
    """Delete a file or a folder, unless it is gone already."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def reports(root: Path, horizon: str, before: datetime, named: Collection[str]) -> Iterator[Path]:
    """Report files that were written before, but those whose name has one of these in it (a kept bundle's id)."""
    for file in _files(root / "reports" / horizon):
        if written(file) < before and not any(part in file.name for part in named):
            yield file


def run_logs(root: Path, before: datetime) -> Iterator[Path]:
    """What steps of runs printed, and what Dagster kept for them, where nothing was added since."""
    for place in (root / "dagster" / "logs", root / "dagster" / "storage"):
        for path in sorted(place.iterdir()) if place.is_dir() else ():
            if written(path) < before:
                yield path


def long_logs(root: Path, names: Collection[str], mib: int) -> Iterator[Path]:
    """Logs of running processes that are longer than that."""
    yield from (root / name for name in names if (root / name).is_file() and (root / name).stat().st_size > mib << 20)


def cut(log: Path, mib: int) -> None:
    """Keep the last `mib` MiB of a log, from a line's beginning; its writers append and need not reopen it."""
    with log.open("r+b") as stream:
        stream.seek(-(mib << 20), 2)
        stream.readline()
        tail = stream.read()
        stream.truncate(0)
        stream.seek(0)
        stream.write(tail)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file()) if folder.is_dir() else []
