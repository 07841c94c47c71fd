"""Delta tables under one root: a write replaces whole partitions in one commit, or commits nothing.

Files are written first and become visible through the commit, so a crash leaves the version before readable
(and files that no version names). Memory holds one buffer, however many partitions a backfill has: the writer
of deltalake keeps every partition open and grew to 2.7 GB at 1,000 of them.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.fs as pafs
from deltalake import CommitProperties, DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError
from deltalake.transaction import create_table_with_add_actions

from quant.formats import refusal
from resources import formats
from resources.opening import opened
from resources.staging import PARTITION, Digest, LakeError, Staged, delta_schema, digests

# One writer per table: a commit that finds another one in its way fails. Delta's own retries would let two
# writers add the same rows to a partition that was empty when both began.
_STRICT = CommitProperties(max_commit_retries=0)

# Rows that are only added are in nobody's way: each writer tries the next version until it gets one.
_ADDING = CommitProperties(max_commit_retries=100)
# A table that is appended to all day has thousands of commits: a month of them would have to be listed every time.
_OFTEN = {"delta.logRetentionDuration": "interval 2 days"}
# The versions that bundles were made from must stay readable: the log goes by `tenor vacuum` alone, which knows them.
_SELDOM = formats.KEPT_LOG


@dataclass(frozen=True)
class Written:
    """What a write left behind: the table's version (None: no table), its rows, whether it committed.

    versions: a text for each partition of the write, equal where the rows are equal.
    """

    version: int | None
    rows: int
    changed: bool
    versions: Mapping[str, str] = field(default_factory=dict, compare=False)


class Lake:
    """Tables by name, such as "bars/5m", under a folder or an object-store URI."""

    def __init__(self, root: str | Path) -> None:
        self.root = str(root)
        self._pins: dict[str, int] = {}

    def pinned(self, versions: Mapping[str, int]) -> "Lake":
        """The same tables, of which these are read at these versions, whatever is written meanwhile."""
        made = Lake(self.root)
        made._pins = dict(versions)
        return made

    def exists(self, table: str) -> bool:
        """Whether the table has a version."""
        return self._open(table) is not None

    def version(self, table: str) -> int | None:
        """The newest version of a table, None where there is none."""
        found = self._open(table)
        return None if found is None else found.version()

    def version_at(self, table: str, at: datetime) -> int | None:
        """The newest version committed at `at` or before, None where the table began later."""
        found = self._open(table)
        commits = [] if found is None else found.history()
        until = at.timestamp() * 1000
        return max((commit["version"] for commit in commits if commit["timestamp"] <= until), default=None)

    def layout(self, table: str) -> dict[str, Any] | None:
        """The layout the table was made with, None where there is no table."""
        found = self._open(table)
        return None if found is None else formats.layout_of(found)

    def partitions(self, table: str) -> list[str]:
        """The partitions that hold rows, in order; none where there is no table."""
        found = self._open(table)
        return [] if found is None else _partitions(found)

    def scan(
        self,
        table: str,
        start: datetime | None = None,
        end: datetime | None = None,
        *,
        version: int | None = None,
    ) -> pl.LazyFrame:
        """Rows with start <= timestamp < end, in no order, with `partition`; reads only the files needed."""
        found = self._open(table, version)
        if found is None:
            raise LakeError(f"table {table} does not exist under {self.root}: materialize it first")
        rows = pl.scan_delta(found)
        if start is not None:
            rows = rows.filter(pl.col("timestamp") >= start)
        if end is not None:
            rows = rows.filter(pl.col("timestamp") < end)
        return rows

    def write(
        self,
        table: str,
        batches: Iterable[pl.DataFrame],
        partitions: Sequence[str],
        layout: Mapping[str, Any],
    ) -> Written:
        """Make `batches` the whole content of `partitions`, in one commit; equal content makes no commit.

        Every batch has the same columns, among them `partition` with one of the given keys. A partition
        without rows ends empty. layout: what the table is made of (source, interval, calendar, ...); it is
        stored with the table, and another one is refused, as are other columns unless all is rewritten.
        """
        current = self._open(table)
        if current is not None:
            self._same_layout(table, current, layout)
        staged = Staged(self._folder(table), table, frozenset(partitions))
        try:
            for batch in batches:
                staged.add(batch)
            staged.flush()
            changed = bool(staged.files) if current is None else self._differs(table, current, staged)
        except BaseException:
            staged.discard()
            raise
        if not changed:
            staged.discard()
            return Written(None if current is None else current.version(), staged.rows, False, staged.versions)
        # From here on the files may be part of a version, whatever interrupts: only a refusal deletes them.
        try:
            if current is None:
                self._create(table, staged, layout)
            else:
                self._replace(current, staged)
        except DeltaError as error:
            if self.version(table) == (None if current is None else current.version()):
                raise
            staged.discard()
            raise LakeError(
                f"another writer committed to table {table} while this one worked; nothing of this write is"
                " visible. A table has one writer: end the other run, then run this one again"
            ) from error
        return Written(self.version(table), staged.rows, True, staged.versions)

    def append(self, table: str, rows: pl.DataFrame, layout: Mapping[str, Any]) -> int:
        """Add rows (with a column `partition`) in one commit; its version. Any number of writers may do so at once.

        layout: as for `write`. After an error that leaves open whether the commit came through, the rows may be added
        twice by the next attempt: give them a key that readers can tell them by.
        """
        staged = Staged(self._folder(table), table, frozenset(rows[PARTITION].unique()))
        staged.add(rows)
        try:
            current = self._open(table) or self._begin(table, rows.schema, layout)
            self._same_layout(table, current, layout)
            have = pl.scan_delta(current).collect_schema()
            if staged.moved_from(have):
                raise LakeError(f"table {table} has the columns {_columns(have)} and new rows {_columns(rows.schema)}")
            staged.flush()
        except BaseException:
            staged.discard()
            raise
        current.create_write_transaction(
            [*staged.files],
            mode="append",
            schema=delta_schema(rows.schema),
            partition_by=[PARTITION],
            commit_properties=_ADDING,
        )
        return current.version()

    def compact(self, table: str, growing: str) -> int:
        """Put the files of each partition but the `growing` one together, and say how many there were.

        Rows stay the same, and versions of the last week stay readable; who appends meanwhile is not disturbed.
        """
        found = self._open(table)
        if found is None:
            return 0
        done = found.optimize.compact([(PARTITION, "!=", growing)])
        found.vacuum(dry_run=False)  # files that no version of the last week names
        return int(done["numFilesRemoved"])

    # -- one commit ------------------------------------------------------------------------------------------

    def _create(
        self, table: str, staged: Staged, layout: Mapping[str, Any], configuration: Mapping[str, str] = _SELDOM
    ) -> None:
        create_table_with_add_actions(
            self._uri(table),
            delta_schema(staged.schema),
            staged.files,
            mode="error",
            partition_by=[PARTITION],
            name=table,
            description=json.dumps(layout, sort_keys=True, default=str),
            configuration=configuration,
            commit_properties=_STRICT,
        )

    def _begin(self, table: str, schema: pl.Schema, layout: Mapping[str, Any]) -> DeltaTable:
        """The table without rows; another writer may have made it in the same moment."""
        try:
            self._create(table, Staged(self._folder(table), table, frozenset(), schema=schema), layout, _OFTEN)
        except DeltaError:
            if self.version(table) is None:
                raise
        found = self._open(table)
        assert found is not None
        return found

    def _replace(self, current: DeltaTable, staged: Staged) -> None:
        old = pl.scan_delta(current).collect_schema()
        moved = staged.moved_from(old)
        current.create_write_transaction(
            [*staged.files],
            mode="overwrite",
            schema=delta_schema(staged.schema if moved else old),
            partition_by=[PARTITION],
            # New columns are taken only by an overwrite of the whole table, which _differs made sure of.
            partition_filters=None if moved else [(PARTITION, "in", sorted(staged.keys))],
            commit_properties=_STRICT,
        )

    def _differs(self, table: str, current: DeltaTable, staged: Staged) -> bool:
        """Whether the staged rows are other than the stored ones; LakeError for columns that cannot be mixed."""
        stored = _partitions(current)
        replaced = [key for key in stored if key in staged.keys]
        old = pl.scan_delta(current).collect_schema()
        if not staged.moved_from(old):
            return staged.digests != self._digests(current, replaced)
        if replaced != stored:
            raise LakeError(
                f"table {table} has the columns {_columns(old)} and the new rows {_columns(staged.schema)}:"
                f" write all its {len(stored)} partitions together, or start anew with `tenor clean`, which deletes the"
                " whole store"
            )
        return True

    def _digests(self, current: DeltaTable, partitions: Sequence[str]) -> dict[str, Digest]:
        """The digests of what the partitions hold, a few of them in memory at a time."""
        found: dict[str, Digest] = {}
        rows = pl.scan_delta(current)
        for at in range(0, len(partitions), 8):
            digests(rows.filter(pl.col(PARTITION).is_in(partitions[at : at + 8])).collect(), found)
        return found

    def _same_layout(self, table: str, current: DeltaTable, layout: Mapping[str, Any]) -> None:
        have, want = formats.layout_of(current), json.loads(json.dumps(layout, default=str))
        if formats.pending(have) and have.get("format") != want.get("format"):
            horizon = table.rpartition("/")[2]
            raise LakeError(
                f"table {table} under {self.root} is of an older Tenor: `tenor migrate horizon={horizon}` brings it to"
                " today's format; its rows stay as they are"
            )
        differ = [key for key in sorted({*have, *want}) if have.get(key) != want.get(key)]
        if differ:
            said = "; ".join(f"{key} was {have.get(key)!r} and is {want.get(key)!r}" for key in differ)
            raise LakeError(
                f"table {table} under {self.root} was made from another layout: {said}. Its rows would mix:"
                " choose another store.root=, or start anew with `tenor clean`, which deletes the whole store"
            )

    # -- places ----------------------------------------------------------------------------------------------

    def _uri(self, table: str) -> str:
        return f"{self.root.rstrip('/')}/{table}"

    def _folder(self, table: str) -> pafs.FileSystem:
        uri = self._uri(table)
        filesystem, path = pafs.FileSystem.from_uri(uri if "://" in uri else str(Path(uri).absolute()))
        return pafs.SubTreeFileSystem(path, filesystem)

    def _open(self, table: str, version: int | None = None) -> DeltaTable | None:
        try:
            wanted = self._pins.get(table) if version is None else version
            found = opened(self.root, table) if wanted is None else DeltaTable(self._uri(table), version=wanted)
        except TableNotFoundError:
            return None
        layout = formats.layout_of(found)
        if ours := formats.from_newer(layout):
            raise LakeError(refusal(f"table {table} under {self.root}", layout["format"], ours, "run `tenor migrate`"))
        return found


def _partitions(table: DeltaTable) -> list[str]:
    return sorted({key[PARTITION] for key in table.partitions()})


def _columns(schema: pl.Schema | None) -> str:
    return ", ".join(f"{name} ({kind})" for name, kind in (schema or {}).items())
