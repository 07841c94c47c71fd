"""The newest bars of one horizon in memory, dense: a row per slot of the grid, a column per symbol."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import count

import numpy as np
import numpy.typing as npt
import polars as pl

from quant.bars import PRICES
from quant.dense import DenseBars
from quant.grid import Grid
from quant.jumps import REACH
from quant.known import NEVER
from quant.panel import Instants, instants

VALUES = (*PRICES, "volume", "price_factor", "volume_factor")
AHEAD = timedelta(days=8)  # slots made at once: over any weekend and holiday

RECENT = REACH  # slots in which a symbol that is traded at all has a bar; those that tell a jump

_serials = count()

Places = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Change:
    """What a put did. new, revised: the rows that changed something, by their places in the frame; the others were
    there with these values, or lie before the memory (old)."""

    new: Places
    revised: Places
    old: int

    @property
    def same(self) -> bool:
        return not len(self.new) and not len(self.revised)


class LiveBars:
    """Bars from some slot on; the memory moves on as bars come. Safe for several threads.

    keep: slots held before the newest bar, at least.
    """

    def __init__(self, grid: Grid, symbols: Sequence[str], more: Sequence[str], keep: int) -> None:
        self.grid, self.symbols, self.extras, self.keep = grid, tuple(symbols), tuple(more), keep
        self.place = {symbol: column for column, symbol in enumerate(self.symbols)}
        self.names = (*VALUES, *self.extras)
        self.time: Instants = np.empty(0, "datetime64[us]")
        self.serial = next(_serials)  # no other memory of this process has it
        self.changes = np.zeros(len(self.symbols), np.int64)  # per symbol, how often its bars have changed
        self.passed = 0  # how often bars came that lie before the memory
        self._values = np.empty((len(self.names), 0, len(self.symbols)))
        self._known = np.empty((0, len(self.symbols)), np.int64)
        self._newest = np.full(len(self.symbols), -1)  # each symbol's newest row, -1 where it has none
        self._lock = threading.Lock()

    # -- writing ---------------------------------------------------------------------------------------------

    def put(self, frame: pl.DataFrame) -> Change:
        """Take bars (rows of the bars table, validated, unique keys, of these symbols); a bar there is revised."""
        with self._lock:
            stamps = instants(frame["timestamp"])
            if not len(stamps):
                return Change(np.empty(0, np.intp), np.empty(0, np.intp), 0)
            self._reach(stamps)
            columns = np.array([self.place[symbol] for symbol in frame["symbol"].to_list()])
            rows = np.searchsorted(self.time, stamps)
            inside = stamps >= self.time[0]
            given = np.stack([_floats(frame, name) for name in self.names])
            there = np.zeros(len(stamps), bool)
            there[inside] = self._known[rows[inside], columns[inside]] != NEVER
            equal = there.copy()
            held = self._values[:, rows[there], columns[there]]
            asked = given[:, there]
            equal[there] = ((held == asked) | (np.isnan(held) & np.isnan(asked))).all(axis=0)
            new, revised = np.flatnonzero(inside & ~there), np.flatnonzero(there & ~equal)
            known = frame["known_at"].dt.epoch("us").to_numpy()
            for changed in (new, revised):
                self._values[:, rows[changed], columns[changed]] = given[:, changed]
                self._known[rows[changed], columns[changed]] = known[changed]
                np.maximum.at(self._newest, columns[changed], rows[changed])
                np.add.at(self.changes, columns[changed], 1)
            old = int((~inside).sum())
            self.passed += old > 0
            return Change(new, revised, old)

    def _reach(self, stamps: Instants) -> None:
        """Make room for the stamps: slots from `keep` before the newest bar to some days after it."""
        newest = stamps.max()
        if len(self.time) and newest <= self.time[-1]:
            return
        if len(self.time) and (had := self._newest.max()) >= 0:
            newest = max(newest, self.time[had])
        session = self.grid.session_dates(np.array([newest]))[0].item()
        slots = self.grid.slots(self.grid.back(session, self.keep), session + AHEAD)
        at = int(np.searchsorted(slots, newest))
        slots = slots[max(0, at - self.keep) :]
        values = np.full((len(self.names), len(slots), len(self.symbols)), np.nan)
        known = np.full((len(slots), len(self.symbols)), NEVER)
        shared, ours, theirs = np.intersect1d(slots, self.time, assume_unique=True, return_indices=True)
        if len(shared):
            values[:, ours], known[ours] = self._values[:, theirs], self._known[theirs]
        self.time, self._values, self._known = slots, values, known
        present = known != NEVER
        last = len(slots) - 1 - np.argmax(present[::-1], axis=0)
        self._newest = np.where(present.any(axis=0), last, -1) if len(slots) else self._newest

    # -- reading ---------------------------------------------------------------------------------------------

    @property
    def newest(self) -> np.datetime64 | None:
        """The newest slot with a bar."""
        with self._lock:
            row = int(self._newest.max(initial=-1))
            return None if row < 0 else self.time[row]

    def slots(self, after: np.datetime64, to: np.datetime64) -> Instants:
        """The slots in memory with after < slot <= to."""
        return self.time[(self.time > after) & (self.time <= to)]

    def present(self, slot: np.datetime64) -> npt.NDArray[np.bool_]:
        """Which symbols have a bar at a slot, bool [S]."""
        with self._lock:
            row = int(np.searchsorted(self.time, slot))
            if row == len(self.time) or self.time[row] != slot:
                return np.zeros(len(self.symbols), bool)
            return self._known[row] != NEVER

    def any_present(self) -> npt.NDArray[np.bool_]:
        """Which slots in memory have any bar, bool [T]."""
        with self._lock:
            return (self._known != NEVER).any(axis=1)

    def alive(self, slot: np.datetime64) -> npt.NDArray[np.bool_]:
        """Which symbols had a bar in the RECENT slots before a slot in memory, bool [S]."""
        with self._lock:
            row = int(np.searchsorted(self.time, slot))
            return (self._known[max(0, row - RECENT) : row] != NEVER).any(axis=0)

    def spread(self, name: str, slot: np.datetime64) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Each symbol's lowest and highest value in the RECENT slots before a slot, float64 [S]; inf, -inf: none."""
        with self._lock:
            row = int(np.searchsorted(self.time, slot))
            held = self._values[self.names.index(name), max(0, row - RECENT) : row]
            low = np.where(np.isnan(held), np.inf, held).min(axis=0, initial=np.inf)
            return low, np.where(np.isnan(held), -np.inf, held).max(axis=0, initial=-np.inf)

    def dense(self, slots: Instants, symbols: Sequence[str] | None = None) -> DenseBars:
        """The bars at some slots (increasing), those in memory; of all symbols, or of these that have a column."""
        with self._lock:
            inside = slots[np.isin(slots, self.time)]
            rows = np.searchsorted(self.time, inside)
            if symbols is None or tuple(symbols) == self.symbols:
                kept, columns = self.symbols, np.arange(len(self.symbols))
            else:
                kept = tuple(symbol for symbol in symbols if symbol in self.place)
                columns = np.array([self.place[symbol] for symbol in kept], np.intp)
            cells = np.ix_(rows, columns)
            values = {name: self._values[number][cells] for number, name in enumerate(self.names)}
            return DenseBars(inside, kept, values, self._known[cells])

    def frame(self, slots: Instants, symbols: Sequence[str] | None = None) -> pl.DataFrame:
        """The same as rows of the bars table, by (timestamp, symbol)."""
        return self.dense(slots, symbols).frame

    def of(self, symbol: str) -> tuple[Instants, npt.NDArray[np.float64], npt.NDArray[np.int64]]:
        """A symbol's slots with a bar, its values float64 [columns, T] and when each was known (µs)."""
        with self._lock:
            column = self.place[symbol]
            there = self._known[:, column] != NEVER
            return self.time[there], self._values[:, there, column], self._known[there, column]

    def newest_of(self, columns: Places) -> Instants:
        """The newest slot with a bar of these symbols, NaT where there is none."""
        with self._lock:
            rows = self._newest[columns]
            found = np.full(len(columns), np.datetime64("NaT", "us"))
            found[rows >= 0] = self.time[rows[rows >= 0]]
            return found

    def factors(self, columns: Places, stamps: Instants) -> dict[str, npt.NDArray[np.float64]]:
        """The adjustment factors that bars to come have, float64 [N]: those of their symbols' bars just before."""
        with self._lock:
            rows = self._newest[columns]
            if len(self.time):
                for one in np.flatnonzero((rows >= 0) & (self.time[np.maximum(rows, 0)] > stamps)):
                    before = self._known[: np.searchsorted(self.time, stamps[one]) + 1, columns[one]] != NEVER
                    rows[one] = np.flatnonzero(before)[-1] if before.any() else -1
            there = rows >= 0
            found = {name: np.ones(len(columns)) for name in ("price_factor", "volume_factor")}
            for name, values in found.items():
                values[there] = self._values[self.names.index(name), rows[there], columns[there]]
            return found


def _floats(frame: pl.DataFrame, name: str) -> npt.NDArray[np.float64]:
    if name not in frame.columns:
        return np.full(frame.height, 1.0 if name.endswith("_factor") else np.nan)
    return frame[name].cast(pl.Float64).to_numpy()
