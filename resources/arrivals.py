"""Pushed bars as they arrived: a journal that is on the disk before the sender hears of it.

    arrivals/<horizon>/<UTC day>.<instance>.<number>.jsonl     lines of `<crc32> {"at": µs, "columns": {...}}`

Each process writes files of its own, so that two instances never share a writer, and never adds to a file of an
earlier life: what a crash cut off is always the end of a file. Many appends share one fsync (group commit). A Delta
commit would do as well and costs ten times as much (bench/stream.py), and two instances would refuse each other's.
"""

import os
import threading
import uuid
import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from queue import SimpleQueue

import msgspec
import polars as pl

from quant.bars import INSTANT, PRICES

COLUMNS = ("symbol", "timestamp", *PRICES, "volume", "jump")
Columns = Mapping[str, Sequence[str | int | float | None]]


class ArrivalsError(RuntimeError):
    """A journal that cannot be written or read; the message names the file."""


class _Record(msgspec.Struct):
    at: int
    columns: dict[str, list[str | int | float | None]]


class Journal:
    """What this process takes of one horizon's arrivals. Thread-safe; appends keep the order they were asked for in."""

    def __init__(self, root: Path, horizon: str) -> None:
        self._folder = Path(root) / "arrivals" / horizon
        self._instance = uuid.uuid4().hex[:12]
        self._file: int | None = None
        self._name = ""
        self._day: date | None = None
        self._number = 0
        self._waiting: SimpleQueue[tuple[bytes, date, Future[None]] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._closed = False

    def append(self, at: datetime, columns: Columns) -> "Future[None]":
        """Begin to write rows that arrived at `at`; done once they would survive a power cut.

        columns: equally long lists by name: symbol, timestamp (µs since 1970), and numbers, None where missing; jump: 1
        where the row was told one and refused. That is kept too, for what came later was judged by it.
        The future raises ArrivalsError where the disk refuses; then nothing of this append may be relied on.
        """
        if self._closed:
            raise ArrivalsError(f"the journal {self._folder} is closed")
        body = msgspec.json.encode({"at": int(at.timestamp() * 1e6), "columns": columns})
        line = b"%08x %s\n" % (zlib.crc32(body), body)
        if self._thread is None:
            self._thread = threading.Thread(target=self._write_all, name="arrivals", daemon=True)
            self._thread.start()
        done: Future[None] = Future()
        done.set_running_or_notify_cancel()  # a sender who leaves cannot take back what is being written
        self._waiting.put((line, at.astimezone(UTC).date(), done))
        return done

    def close(self) -> None:
        """Write what was asked for and stop."""
        self._closed = True
        if self._thread is not None:
            self._waiting.put(None)
            self._thread.join()

    def _write_all(self) -> None:
        going = True
        while going:
            group = [self._waiting.get()]
            while not self._waiting.empty():
                group.append(self._waiting.get())
            going = None not in group
            asked = [one for one in group if one is not None]
            for day in sorted({day for _, day, _ in asked}):
                self._commit(day, [(line, done) for line, of, done in asked if of == day])
        self._leave()

    def _commit(self, day: date, group: Sequence[tuple[bytes, "Future[None]"]]) -> None:
        """Write a group through to the disk, then tell its senders."""
        try:
            file = self._open(day)
            data = memoryview(b"".join(line for line, _ in group))
            while data:
                data = data[os.write(file, data) :]
            os.fdatasync(file)
        except OSError as error:
            self._leave()  # what the file ends with now is not known: the next group begins another
            refusal = ArrivalsError(f"{self._folder / self._name} cannot be written: {error}")
            refusal.__cause__ = error
            for _, done in group:
                done.set_exception(refusal)
            return
        for _, done in group:
            done.set_result(None)

    def _open(self, day: date) -> int:
        if self._file is None or day != self._day:
            self._leave()
            self._folder.mkdir(parents=True, exist_ok=True)
            self._name = f"{day}.{self._instance}.{self._number:04}.jsonl"
            self._number += 1
            self._file = os.open(self._folder / self._name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)
            self._day = day
            # The names of new folders and of the new file have to survive as well.
            for folder in (self._folder, self._folder.parent, self._folder.parent.parent):
                _sync(folder)
        return self._file

    def _leave(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


class Arrivals:
    """What was pushed, as the journals below a store's root have it."""

    def __init__(self, root: str | Path) -> None:
        self._root = Path(root) / "arrivals"

    def read(self, horizon: str, since: date | None = None) -> pl.DataFrame:
        """Rows of every instance in order of arrival: symbol, timestamp, known_at (the arrival), jump, Float64 columns.

        since: only what arrived on this UTC day or later. A line that a crash cut off was never acknowledged and is
        left out; ArrivalsError names a line that is damaged otherwise.
        """
        at: list[int] = []
        found: dict[str, list[str | int | float | None]] = {name: [] for name in COLUMNS}
        for record in _records(self._root / horizon, since):
            before, rows = len(at), len(record.columns["symbol"])
            at += [record.at] * rows
            for name in dict.fromkeys((*found, *record.columns)):
                held = found.setdefault(name, [None] * before)
                held += record.columns.get(name) or [None] * rows
        numbers = [name for name in found if name not in ("symbol", "timestamp")]
        frame = pl.DataFrame(
            {"known_at": at, **found},
            schema={"known_at": pl.Int64(), "symbol": pl.String(), "timestamp": pl.Int64()}
            | dict.fromkeys(numbers, pl.Float64()),
            strict=False,
        )
        frame = frame.with_columns(jump=pl.col("jump").fill_null(0) > 0)
        return frame.cast(dict.fromkeys(("timestamp", "known_at"), INSTANT)).sort("known_at", maintain_order=True)

    def newest(self, horizon: str) -> datetime | None:
        """The start of the newest bar that was pushed in the last week of arrivals, None where nothing was."""
        days = sorted(file.name[:10] for file in (self._root / horizon).glob("*.jsonl"))
        if not days:
            return None
        rows = self.read(horizon, date.fromisoformat(days[-1]) - timedelta(days=7)).filter(~pl.col("jump"))
        return rows.select(pl.col("timestamp").max()).item()


def _records(folder: Path, since: date | None) -> Iterator[_Record]:
    decoder = msgspec.json.Decoder(_Record)
    for file in sorted(folder.glob("*.jsonl")):
        if since is not None and file.name[:10] < str(since):
            continue
        data = file.read_bytes()
        lines = data.split(b"\n")
        torn = lines.pop()  # nothing, where the file ends with a whole line
        for number, line in enumerate(lines, 1):
            body = line[9:]
            if line[:9] != b"%08x " % zlib.crc32(body):
                if number == len(lines) and not torn:
                    continue  # a crash may also have left the last line's length without its content
                raise ArrivalsError(
                    f"{file}, line {number} is damaged: restore the file from a copy, or remove the line"
                )
            yield decoder.decode(body)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
