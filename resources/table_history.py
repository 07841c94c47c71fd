"""Old versions of the lake's tables: which files only they need, and how far back the log has to reach.

Nothing here commits: a step that is writing, or a service that reads, never notices.
"""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from urllib.parse import unquote

import polars as pl
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from resources.opening import there

LOG = "_delta_log"
_NAMED = re.compile(r'"(?:add|remove)":\{"path":"([^"]+)"')
_ENTRY = re.compile(r"(\d{20})\.(json|checkpoint\.parquet|crc)")


@dataclass(frozen=True)
class Expired:
    """What a table no longer needs. files: paths; lost: versions to keep that cannot be read any more."""

    files: tuple[Path, ...]
    lost: tuple[int, ...]

    @property
    def bytes(self) -> int:
        return sum(file.stat().st_size for file in self.files)


def tables(root: Path) -> list[str]:
    """Names of the tables below a lake's folder, such as bars/5m."""
    return sorted(str(log.parent.relative_to(root)) for log in root.rglob(LOG))


def expired(root: Path, table: str, *, days: int, keep: Collection[int], now: datetime) -> Expired:
    """What goes where the newest version, all that were it within `days`, and the versions of `keep` stay readable.

    Files that no version names (a crash left them) go once they are `days` old.
    """
    folder = root / table
    newest = there(str(root), table)
    readable = [version for version in keep if _readable(folder, version)]
    # Delta counts from the commit that took a file away, which is when its version stopped being the newest.
    gone = newest.vacuum(
        retention_hours=days * 24, dry_run=True, enforce_retention_duration=False, full=True, keep_versions=readable
    )
    floor = min([*readable, _newest_at(newest, now - timedelta(days=days))])
    files = [folder / name for name in gone]
    files += _log_before(folder / LOG, floor)
    return Expired(tuple(file for file in files if file.is_file()), tuple(sorted(set(keep) - set(readable))))


def orphans(root: Path, table: str, before: datetime) -> list[Path]:
    """Data files that no version whose commit is kept ever named, written before: a crash left them."""
    folder = root / table
    named: set[str] = set()
    for entry in (folder / LOG).iterdir():
        if entry.suffix == ".json":
            named.update(unquote(path) for path in _NAMED.findall(entry.read_text()))
        elif entry.name.endswith(".checkpoint.parquet"):
            held = pl.read_parquet(entry, columns=["add", "remove"])
            for action in ("add", "remove"):
                named.update(unquote(path) for path in held[action].struct.field("path").drop_nulls())
    files = (file for file in folder.rglob("*.parquet") if LOG not in file.parts)
    old = (file for file in files if file.stat().st_mtime < before.timestamp())
    return sorted(file for file in old if str(file.relative_to(folder)) not in named)


def _readable(folder: Path, version: int) -> bool:
    try:
        DeltaTable(folder, version=version)
    except DeltaError:
        return False
    return True


def _newest_at(table: DeltaTable, at: datetime) -> int:
    """The version that was the newest then; the oldest that is known where the table began later."""
    commits = {commit["version"]: commit["timestamp"] for commit in table.history() if "version" in commit}
    before = [version for version, stamp in commits.items() if stamp <= at.timestamp() * 1000]
    return max(before) if before else min(commits, default=table.version())


def _log_before(log: Path, floor: int) -> Iterator[Path]:
    """Entries of the log that no version from `floor` on is read from: those before the last checkpoint up to it."""
    entries = [(int(match[1]), match[2], file) for file in log.iterdir() if (match := _ENTRY.fullmatch(file.name))]
    checkpoints = [version for version, kind, _ in entries if kind == "checkpoint.parquet" and version <= floor]
    if not checkpoints:
        return
    for version, _, file in sorted(entries):
        # A checkpoint is the state after its own commit, whose time `history` still reads.
        if version < max(checkpoints):
            yield file


def days_before(root: Path, table: str, day: str) -> dict[str, int]:
    """Partitions of a table cut by UTC day that lie before `day`, with the bytes of their files."""
    found: dict[str, int] = {}
    files = pl.DataFrame(there(str(root), table).get_add_actions(flatten=True))
    for partition, size in files.select("partition.partition", "size_bytes").sort("partition.partition").iter_rows():
        if partition < day:
            found[partition] = found.get(partition, 0) + size
    return found


def forget(root: Path, table: str, day: str) -> None:
    """Take the rows of partitions before `day` out of the newest version; who appends meanwhile is not disturbed."""
    there(str(root), table).delete(f"partition < '{day}'")
