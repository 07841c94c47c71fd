"""What was published stays so: sections are on the disk before a stream hears of them, and come back as they were.

published/<horizon>/<UTC day>.<instance>.<number>.jsonl     a section, or which of them late bars restated
"""

import asyncio
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from resources.journal import EPOCH, JournalError, Writer, files, micros, records
from serving.live_section import SectionSignals
from serving.logs import log
from serving.record import Scored


class _Section(msgspec.Struct, tag="section"):
    slot: int
    closed_at: int
    bundle: str
    number: int
    coverage: float
    complete: bool
    request: str
    symbols: list[str]
    values: list[float | None]
    shares: list[float]
    novelty: list[float] | None = None  # None: not measured
    abstained: list[bool] | None = None


class _Restated(msgspec.Struct, tag="restated"):
    slots: list[int]
    at: int


_decode = msgspec.json.Decoder(_Section | _Restated).decode


@dataclass(frozen=True)
class History:
    """The newest published sections, oldest first, and when bars of some changed afterwards."""

    sections: Sequence[SectionSignals]
    restated: dict[np.datetime64, datetime]


class Published:
    """What this process publishes; on the event loop."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._writers: dict[str, Writer] = {}
        self._marks: dict[str, Future[None]] = {}

    async def keep(self, sections: Sequence[SectionSignals]) -> None:
        """Write sections through to the disk. JournalError where it refuses."""
        writes = [self._append(one.horizon, one.closed_at, _record(one)) for one in sections]
        await asyncio.gather(*map(asyncio.wrap_future, writes))

    def restated(self, horizon: str, slots: Sequence[np.datetime64], at: datetime) -> None:
        """Begin to write that bars of these published sections changed at `at`."""
        self._marks[horizon] = self._append(horizon, at, _Restated([_int(slot) for slot in slots], micros(at)))

    async def marked(self, horizon: str) -> None:
        """Until every `restated` is on the disk; what the disk refuses is in the log."""
        if mark := self._marks.pop(horizon, None):
            try:
                await asyncio.wrap_future(mark)
            except JournalError:
                log.exception("a restart will not know which sections were restated", extra=_of(horizon))

    def close(self) -> None:
        """Write what was asked for and stop. Blocking."""
        for writer in self._writers.values():
            writer.close()

    def _append(self, horizon: str, at: datetime, record: _Section | _Restated) -> Future[None]:
        if horizon not in self._writers:
            self._writers[horizon] = Writer(_folder(self._root, horizon))
        return self._writers[horizon].append(at, msgspec.json.encode(record))


def history(root: Path, horizon: str, keep: int) -> History:
    """The newest `keep` sections that any instance published. JournalError names a line that is damaged.

    Of a section that two instances published, the first.
    """
    found: dict[int, _Section] = {}
    marks: list[_Restated] = []
    oldest: date | None = None
    for day, file in reversed(files(_folder(root, horizon))):
        if len(found) >= keep and day != oldest:
            break
        oldest = day
        for record in map(_decode, records(file)):
            if isinstance(record, _Restated):
                marks.append(record)
            elif record.slot not in found or record.closed_at < found[record.slot].closed_at:
                found[record.slot] = record
    restated = {_slot(slot): _moment(mark.at) for mark in sorted(marks, key=lambda one: one.at) for slot in mark.slots}
    return History([_section(horizon, found[slot]) for slot in sorted(found)[-keep:]], restated)


def horizons(root: Path) -> list[str]:
    """The horizons of which anything was published."""
    return sorted(folder.name for folder in (root / "published").glob("*") if folder.is_dir())


def everything(root: Path, horizon: str) -> list[SectionSignals]:
    """All that is still on the disk, of every instance. JournalError names a line that is damaged."""
    there = [record for _, file in files(_folder(root, horizon)) for record in map(_decode, records(file))]
    return [_section(horizon, record) for record in there if isinstance(record, _Section)]


def prune(root: Path, horizon: str, keep: int) -> None:
    """Delete the files before the days of the newest `keep` sections, once the prediction log has what is in them."""
    there = files(_folder(root, horizon))
    found: set[int] = set()
    oldest: date | None = None
    for day, file in reversed(there):
        if len(found) >= keep and day != oldest:
            break
        oldest = day
        found |= {record.slot for record in map(_decode, records(file)) if isinstance(record, _Section)}
    for day, file in there:
        if oldest is not None and day < oldest:
            file.unlink(missing_ok=True)


def _folder(root: Path, horizon: str) -> Path:
    return root / "published" / horizon


def _record(section: SectionSignals) -> _Section:
    return _Section(
        slot=_int(section.slot),
        closed_at=micros(section.closed_at),
        bundle=section.bundle,
        number=section.number,
        coverage=section.coverage,
        complete=section.complete,
        request=section.scored.request_id,
        symbols=list(section.symbols),
        values=section.scored.values.tolist(),  # NaN is encoded as null
        shares=section.shares.tolist(),
        novelty=_listed(section.scored.novelty),
        abstained=_listed(section.scored.abstained),
    )


def _section(horizon: str, record: _Section) -> SectionSignals:
    return SectionSignals(
        horizon=horizon,
        slot=_slot(record.slot),
        closed_at=_moment(record.closed_at),
        bundle=record.bundle,
        number=record.number,
        coverage=record.coverage,
        complete=record.complete,
        symbols=record.symbols,
        scored=Scored(
            np.array(record.values, np.float64),
            record.request,
            None if record.novelty is None else np.array(record.novelty, np.float32),
            None if record.abstained is None else np.array(record.abstained, bool),
        ),
        shares=np.array(record.shares, np.float64),
    )


def _listed(values: np.ndarray | None) -> list[Any] | None:
    return None if values is None else values.tolist()


def _int(slot: np.datetime64) -> int:
    return int(slot.astype("datetime64[us]").astype(np.int64))


def _slot(micros: int) -> np.datetime64:
    return np.datetime64(micros, "us")


def _moment(micros: int) -> datetime:
    return EPOCH + timedelta(microseconds=micros)


def _of(horizon: str) -> dict[str, dict[str, str]]:
    return {"fields": {"horizon": horizon}}
