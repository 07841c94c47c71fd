"""When a section closes: all awaited symbols have arrived, or its deadline is over. Nothing here computes a feature."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import numpy.typing as npt
import polars as pl

from quant.grid import Grid
from quant.panel import Instants, instants, moment
from serving.live_bars import LiveBars

NEVER = datetime.max.replace(tzinfo=UTC)

Members = Callable[[np.datetime64], npt.NDArray[np.bool_]]


@dataclass
class Opened:
    """A section that has bars and is not closed. broadcast: whether its signals go to the streams."""

    until: datetime
    broadcast: bool
    complete: bool = False  # nothing more is awaited


@dataclass(frozen=True)
class Closed:
    """A section that has just closed, and why."""

    slot: np.datetime64
    broadcast: bool
    complete: bool


@dataclass(frozen=True)
class Taken:
    """What came of some bars. late: those of sections that had closed; they restate."""

    new: int
    same: int
    revised: int
    late: int
    old: int  # before the memory: the bars step takes them from the journal


class Feed:
    """The sections of one horizon; lives on the event loop.

    members: which symbols (bool [S], in the bars' order) belong to the section of a slot. deadline: how long after
    its end a section waits; one whose first bar comes later than that waits as long from there. growing: bars are
    made of finer ones, so a bar that is there may still grow: only who makes them knows that nothing is awaited.
    on_restated: told of closed slots whose bars changed, and when.
    """

    def __init__(
        self, horizon: str, grid: Grid, bars: LiveBars, members: Members, deadline: timedelta, growing: bool
    ) -> None:
        self.horizon, self.grid, self.bars = horizon, grid, bars
        self.members = members
        self.closed: np.datetime64 | None = None  # the newest closed slot
        self.restated: dict[np.datetime64, datetime] = {}  # closed slots whose bars changed afterwards, and when
        self.on_restated: Callable[[Sequence[np.datetime64], datetime], None] = lambda slots, at: None
        self._deadline = deadline
        self._growing = growing
        self._open: dict[np.datetime64, Opened] = {}

    def put(self, frame: pl.DataFrame, now: datetime, *, broadcast: bool = True) -> Taken:
        """Take validated bars that were pushed; sections open with their first one."""
        change = self.bars.put(frame)
        new, revised = len(change.new), len(change.revised)
        slots = instants(frame["timestamp"])[np.concatenate([change.new, change.revised])]
        late = self.changed(slots, now, broadcast=broadcast)
        return Taken(new, frame.height - new - revised - change.old, revised, late, change.old)

    def changed(self, slots: Instants, now: datetime, *, broadcast: bool = True) -> int:
        """Say that bars of these slots came or changed: closed sections are restated, the others open.

        Returns how many came late.
        """
        late = np.zeros(len(slots), bool) if self.closed is None else slots <= self.closed
        if late.any():
            again = list(np.unique(slots[late]))
            self.restated.update(dict.fromkeys(again, now))
            self.on_restated(again, now)
        for slot in np.unique(slots[~late]):
            self.open(slot, now, broadcast=broadcast)
        for slot in [slot for slot in self.restated if slot < self.bars.time[0]]:
            del self.restated[slot]
        return int(late.sum())

    def begin(self, slots: Instants, now: datetime) -> None:
        """Begin with the bars of the disk: of what lies after the published sections, the newest is open."""
        self.read(slots if self.closed is None else slots[slots > self.closed], now, broadcast=False)

    def read(self, slots: Instants, now: datetime, *, broadcast: bool) -> None:
        """The same for bars that the tables brought: of the sections they open, only the newest closes with signals."""
        if self.closed is not None:
            self.changed(slots[slots <= self.closed], now)
            slots = slots[slots > self.closed]
        first_open = min(self._open, default=None)
        if len(passed := np.unique(slots)[:-1]) and (first_open is None or passed[0] < first_open):
            self.closed = passed[-1] if first_open is None else passed[passed < first_open][-1]
        for slot in np.unique(slots):
            self.open(slot, now, broadcast=broadcast)

    def open(self, slot: np.datetime64, now: datetime, *, broadcast: bool = True) -> None:
        """Open the section of a slot, where it is not; one with a pushed bar is broadcast."""
        if self.closed is None or slot > self.closed:
            self._open.setdefault(slot, Opened(self._until(slot, now), broadcast)).broadcast |= broadcast

    def ended(self, end: np.datetime64) -> None:
        """Say that the finer bars are there to this instant: sections that end until then await nothing more."""
        for slot, held in self._open.items():
            held.complete |= bool(self.grid.ends(np.array([slot]))[0] <= end)

    def due(self, now: datetime) -> list[Closed]:
        """Close what is due, oldest first.

        A section closes with a later one: the bars that it still waits for would have come by then.
        """
        ready = [slot for slot in self._open if self._complete(slot) or now >= self._open[slot].until]
        if not ready:
            return []
        newest = max(ready)
        slots = sorted(slot for slot in self._open if slot <= newest)
        found = [Closed(slot, self._open[slot].broadcast, self._complete(slot)) for slot in slots]
        for slot in slots:
            del self._open[slot]
        self.closed = newest
        return found

    def until(self) -> datetime | None:
        """The nearest deadline, None where no section is open."""
        return min((held.until for held in self._open.values()), default=None)

    def coverage(self, slot: np.datetime64) -> float:
        """Share of a section's members that have a bar."""
        members = self.members(slot)
        return float(self.bars.present(slot)[members].mean()) if members.any() else 0.0

    def _complete(self, slot: np.datetime64) -> bool:
        """Whether every member has a bar; one without any for long (delisted, halted) is not awaited."""
        if self._open[slot].complete or self._growing:
            return self._open[slot].complete
        members = self.members(slot)
        alive = members & self.bars.alive(slot)
        awaited = alive if alive.any() else members
        return bool(awaited.any()) and bool(self.bars.present(slot)[awaited].all())

    def _until(self, slot: np.datetime64, first: datetime) -> datetime:
        end = moment(self.grid.ends(np.array([slot]))[0])
        if self._growing and first > end + self._deadline:
            return NEVER  # bars that are replayed, or read after a pause: how much is to come, no clock says
        return (first if first > end + self._deadline else end) + self._deadline

    def continues(self, before: "Feed") -> None:
        """Go on where the feed of the same horizon stands that this one replaces."""
        if before.closed is not None and (self.closed is None or before.closed > self.closed):
            self.closed = before.closed
        self.restated = before.restated
        held = {**self._open, **before._open}
        self._open = {slot: one for slot, one in held.items() if self.closed is None or slot > self.closed}


def members_of(symbols: Mapping[str, int], spans: pl.DataFrame | None, among: tuple[str, ...], grid: Grid) -> Members:
    """The membership of `among` by session. symbols: their columns; spans: symbol, start, end, or None: always."""
    always = np.zeros(len(symbols), bool)
    always[[symbols[one] for one in among]] = True
    if spans is None:
        return lambda _: always
    rows = [(symbols[one], start, end) for one, start, end in spans.iter_rows() if one in symbols]

    def found(slot: np.datetime64) -> npt.NDArray[np.bool_]:
        day = grid.session_dates(np.array([slot]))[0].item()
        there = np.zeros(len(symbols), bool)
        there[[column for column, start, end in rows if start <= day and (end is None or day <= end)]] = True
        return there & always

    return found
