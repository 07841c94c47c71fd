"""Rows of a lake write on their way: hashed, buffered, then in files that no table version names yet."""

import json
import uuid
import zlib
from dataclasses import dataclass, field
from io import BytesIO

import numpy as np
import polars as pl
import pyarrow.fs as pafs
from deltalake import Schema
from deltalake.transaction import AddAction

PARTITION = "partition"
BUFFER_ROWS = 500_000


class LakeError(RuntimeError):
    """A table that cannot be written or read as asked: the message names the table and what to do."""


@dataclass
class Digest:
    """Equal for the same rows in any order: their number and two 64-bit hashes of each, added up."""

    rows: int = 0
    sums: tuple[int, ...] = (0, 0)

    def add(self, frame: pl.DataFrame) -> None:
        """Count rows in; columns are taken by name."""
        frame = frame.select(sorted(frame.columns))
        more = (frame.hash_rows(seed).to_numpy().sum(dtype=np.uint64) for seed in (1, 2))
        self.sums = tuple((old + int(new)) % 2**64 for old, new in zip(self.sums, more, strict=True))
        self.rows += frame.height

    def text(self, schema: pl.Schema) -> str:
        """The same as text, which other columns or types change too; no rows are the same whatever their columns."""
        if not self.rows:
            return "no rows"
        columns = zlib.crc32(repr(sorted((name, str(kind)) for name, kind in schema.items())).encode())
        return f"{self.rows}-{columns:08x}-{''.join(f'{part:016x}' for part in self.sums)}"


def digests(frame: pl.DataFrame, into: dict[str, Digest]) -> None:
    """Count the rows of a frame into the digests of their partitions."""
    for (key,), part in frame.partition_by(PARTITION, as_dict=True).items():
        into.setdefault(str(key), Digest()).add(part)


@dataclass
class Staged:
    """What one write has taken in so far; memory holds at most BUFFER_ROWS rows and one batch."""

    folder: pafs.FileSystem
    table: str
    keys: frozenset[str]
    files: list[AddAction] = field(default_factory=list)
    digests: dict[str, Digest] = field(default_factory=dict)  # of the partitions that have rows
    schema: pl.Schema | None = None
    _buffer: list[pl.DataFrame] = field(default_factory=list)
    _buffered: int = 0

    def add(self, batch: pl.DataFrame) -> None:
        """Take a batch in; LakeError where its columns or partitions are not this write's."""
        if PARTITION not in batch.columns:
            raise LakeError(f"a batch for table {self.table} has no column {PARTITION!r}")
        if self.schema is None:
            self.schema = batch.schema
        if batch.schema != self.schema:
            differ = sorted({str(column) for column in set(batch.schema.items()) ^ set(self.schema.items())})
            raise LakeError(f"batches for table {self.table} differ in columns, types or order: {differ}")
        foreign = set(batch[PARTITION].unique()) - self.keys
        if foreign:
            raise LakeError(f"a batch for table {self.table} has rows of {foreign}, which is not being written")
        digests(batch, self.digests)
        self._buffer.append(batch)
        self._buffered += batch.height
        if self._buffered >= BUFFER_ROWS:
            self.flush()

    @property
    def rows(self) -> int:
        return sum(digest.rows for digest in self.digests.values())

    @property
    def versions(self) -> dict[str, str]:
        """What each partition of the write holds, as a text that is equal for equal rows."""
        schema = self.schema or pl.Schema()
        return {key: self.digests.get(key, Digest()).text(schema) for key in sorted(self.keys)}

    def flush(self) -> None:
        """Write the buffer: one file per partition in it."""
        if self._buffered:
            cut = pl.concat(self._buffer).partition_by(PARTITION, as_dict=True, include_key=False)
            for (key,), rows in cut.items():
                self._write(str(key), rows)
        self._buffer, self._buffered = [], 0

    def moved_from(self, schema: pl.Schema) -> bool:
        """Whether the rows have other columns or types than these; no rows have no columns."""
        return self.schema is not None and dict(self.schema) != dict(schema)

    def discard(self) -> None:
        """Delete the files that were written."""
        for action in self.files:
            self.folder.delete_file(action.path)
        self.files = []

    def _write(self, key: str, rows: pl.DataFrame) -> None:
        path = f"{PARTITION}={key}/{uuid.uuid4()}.parquet"
        content = BytesIO()
        rows.write_parquet(content)
        self.folder.create_dir(f"{PARTITION}={key}")
        with self.folder.open_output_stream(path) as stream:
            stream.write(content.getbuffer())
        info = self.folder.get_file_info(path)
        self.files.append(
            AddAction(path, info.size, {PARTITION: key}, info.mtime_ns // 1_000_000, True, _statistics(rows))
        )


def delta_schema(schema: pl.Schema | None) -> Schema:
    """The Delta schema of a frame's columns."""
    return Schema.from_arrow(pl.DataFrame(schema=schema).to_arrow(compat_level=pl.CompatLevel.oldest()).schema)


def _statistics(rows: pl.DataFrame) -> str:
    """What Delta keeps per file: its rows and, so that scans can skip it, its span of timestamps."""
    bounds = {
        "minValues": rows.select(pl.col("^timestamp$").min()),
        "maxValues": rows.select(pl.col("^timestamp$").max()),
    }
    values = {
        name: {one.name: f"{one[0]:%Y-%m-%dT%H:%M:%S.%fZ}" for one in frame if one[0] is not None}
        for name, frame in bounds.items()
    }
    return json.dumps({"numRecords": rows.height, "nullCount": {}, **values})
