"""The state of one recipe over live bars: where it stands, how it goes on, and the features of its newest slots."""

import threading
from collections.abc import Mapping
from itertools import count

import numpy as np
import numpy.typing as npt
import polars as pl

from quant.live_recipe import LiveRecipe, LiveRows
from quant.panel import Instants
from quant.recipe import Recipe
from serving.live_bars import LiveBars

PIECE = 64  # slots at once: their values stay in the cache, which takes a third of the time of all at once


_versions = count()


class LiveState:
    """Goes on from slot to slot of a horizon's bars; one thread at a time. `stale` may be set by any thread.

    bars: the horizon's own; others: those of the horizons that the recipe reads; keep: slots of features to hold.
    """

    def __init__(self, recipe: Recipe, bars: LiveBars, others: Mapping[str, LiveBars], keep: int) -> None:
        self.recipe = recipe
        self.features = FeatureHistory(recipe, keep)
        self.position: np.datetime64 | None = None  # the newest slot it has seen
        self.stale = False  # a bar before that slot has changed since
        self._bars, self._others = bars, others
        self._reach = recipe.lookback + keep
        self._live = LiveRecipe(recipe)
        self._unkept: list[tuple[LiveRows, int]] = []

    def advance(self, to: np.datetime64) -> list[LiveRows]:
        """Go on to a slot in memory: what its slots gave, a few at a time; nothing where it stands there already.

        Starts again `lookback + keep` slots before where a bar of the past has changed, or it lags by more than that.
        """
        if self.stale or self._lags(to):
            self.stale = False  # before the bars are read: a change from now on makes it stale again
            self._live = LiveRecipe(self.recipe)
            self.position = None
        slots = self._bars.time[self._bars.time <= to][-self._reach - 1 :]
        if self.position is not None:
            slots = slots[slots > self.position]
        found: list[LiveRows] = []
        skip = self.recipe.lookback if self.position is None else 0
        if self.position is None:
            self.features.forget()
            self._unkept.clear()
        for start in range(0, len(slots), PIECE):
            self.remember()
            piece = slots[start : start + PIECE]
            rows = self._live.advance(self._bars.dense(piece, self.recipe.symbols), self._elsewhere)
            self.position = piece[-1]
            self._unkept.append((rows, max(0, skip - start)))
            if start + PIECE > skip:
                found.append(rows)
        return found

    def remember(self) -> None:
        """Put the features of the last piece into the history: nobody's signals wait for it."""
        for rows, skip in self._unkept:
            self.features.put(rows, skip)
        self._unkept.clear()

    def refresh(self) -> None:
        """Make the state anew where a bar before its position has changed."""
        if self.stale and self.position is not None:
            self.advance(self.position)
            self.remember()

    def _lags(self, to: np.datetime64) -> bool:
        if self.position is None:
            return True
        time = self._bars.time
        if self.position < time[0]:
            return True
        return int(np.searchsorted(time, to) - np.searchsorted(time, self.position)) > self._reach

    def _elsewhere(self, horizon: str, slots: Instants) -> pl.DataFrame:
        return self._others[horizon].frame(slots, self.recipe.symbols)


class FeatureHistory:
    """Features of the newest slots, dense. Safe for several threads."""

    def __init__(self, recipe: Recipe, keep: int) -> None:
        self.names = tuple(recipe.features)
        self.keep = keep
        self.place = {symbol: column for column, symbol in enumerate(recipe.symbols)}
        shape = (2 * keep, len(recipe.symbols), len(self.names))
        self._values = np.empty(shape, np.float32)  # the newest `keep` to 2 `keep` slots
        self._rows = np.zeros(shape[:2], bool)
        self._time: Instants = np.empty(0, "datetime64[us]")
        self._lock = threading.Lock()
        self.version = next(_versions)  # another after each change, and in no other history of this process

    def forget(self) -> None:
        """Hold nothing."""
        with self._lock:
            self._time = self._time[:0]
            self.version = next(_versions)

    def put(self, rows: LiveRows, skip: int) -> None:
        """Take the features of slots that follow, less the first `skip`."""
        skip = max(skip, len(rows.slots) - self.keep)
        slots = rows.slots[skip:]
        if not len(slots):
            return
        values = np.stack([rows.features[name][skip:] for name in self.names], axis=-1)
        with self._lock:
            had = len(self._time)
            if had + len(slots) > len(self._rows):
                left = max(0, self.keep - len(slots))
                for held in (self._values, self._rows):
                    held[:left] = held[had - left : had].copy()
                self._time, had = self._time[had - left :], left
            self._values[had : had + len(slots)] = values
            self._rows[had : had + len(slots)] = rows.rows[skip:]
            self._time = np.concatenate([self._time, slots])
            self.version = next(_versions)

    @property
    def since(self) -> np.datetime64 | None:
        """The first slot held."""
        return self._time[0] if len(self._time) else None

    def of(self, symbol: str) -> tuple[Instants, npt.NDArray[np.float32]]:
        """The slots at which a symbol has features, and these, float32 [T, F]."""
        with self._lock:
            column, slots = self.place[symbol], len(self._time)
            there = self._rows[:slots, column]
            return self._time[there], self._values[:slots, column][there]
