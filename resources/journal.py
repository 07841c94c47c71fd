"""Files of lines that are on the disk before anybody hears of them.

    <folder>/<UTC day>.<instance>.<number>.jsonl     lines of `<crc32> <JSON>`

Each process writes files of its own, so that two instances never share a writer, and never adds to a file of an
earlier life: what a crash cut off is always the end of a file. Many appends share one fsync (group commit).
"""

import os
import threading
import uuid
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from queue import SimpleQueue

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class JournalError(RuntimeError):
    """A journal that cannot be written or read; the message names the file."""


class Writer:
    """Appends to one folder. Thread-safe; appends keep the order they were asked for in."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._instance = uuid.uuid4().hex[:12]
        self._file: int | None = None
        self._name = ""
        self._day: date | None = None
        self._number = 0
        self._waiting: SimpleQueue[tuple[bytes, date, Future[None]] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._closed = False

    def append(self, at: datetime, body: bytes) -> "Future[None]":
        """Begin to write a record (JSON without a line break); done once it would survive a power cut.

        at: names the day of its file. The future raises JournalError where the disk refuses; then nothing of this
        append may be relied on.
        """
        if self._closed:
            raise JournalError(f"the journal {self._folder} is closed")
        line = b"%08x %s\n" % (zlib.crc32(body), body)
        if self._thread is None:
            self._thread = threading.Thread(target=self._write_all, name="journal", daemon=True)
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
            refusal = JournalError(f"{self._folder / self._name} cannot be written: {error}")
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


def files(folder: Path) -> list[tuple[date, Path]]:
    """The files of every instance with their days, in order."""
    return [(date.fromisoformat(file.name[:10]), file) for file in sorted(folder.glob("*.jsonl"))]


def records(file: Path) -> Iterator[bytes]:
    """The records of one file, each as it was appended; none where the file is gone.

    A line that a crash cut off was never relied on and is left out; JournalError names one that is damaged otherwise.
    """
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        return
    lines = data.split(b"\n")
    torn = lines.pop()  # nothing, where the file ends with a whole line
    for number, line in enumerate(lines, 1):
        body = line[9:]
        if line[:9] != b"%08x " % zlib.crc32(body):
            if number == len(lines) and not torn:
                continue  # a crash may also have left the last line's length without its content
            raise JournalError(f"{file}, line {number} is damaged: restore the file from a copy, or remove the line")
        yield body


def micros(moment: datetime) -> int:
    """Microseconds since 1970, exactly: a float of seconds holds a quarter of one."""
    return (moment - EPOCH) // timedelta(microseconds=1)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
