"""One horizon, live: its bars and sections, and the states of the recipes that go on with them."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import numpy as np
import polars as pl

from quant.across import Other, needed
from quant.bundle import Bundle
from quant.grid import Grid
from quant.inputs import CALENDAR, names
from quant.panel import Instants
from quant.recipe import Recipe
from quant.resample import resample
from serving.live_bars import LiveBars
from serving.live_feed import Feed, members_of
from serving.live_load import Store, symbols_of
from serving.live_published import history
from serving.live_push import Jumps, Rules
from serving.live_section import SectionSignals
from serving.live_state import LiveState

MARGIN = 1.25  # more slots of another horizon than are needed now: around holidays more are


@dataclass(frozen=True)
class Spec:
    """What a horizon's live state must hold, for its own model and for those that read it: at least these symbols and
    extra columns, and `keep` slots. needed: extra columns that each pushed bar must name."""

    grid: Grid
    symbols: tuple[str, ...]
    extras: tuple[str, ...]
    keep: int
    needed: tuple[str, ...] = ()
    max_jump: float | None = None

    def covers(self, other: "Spec") -> bool:
        """Whether what holds this holds the other too."""
        return (
            set(self.symbols) >= set(other.symbols)
            and set(self.extras) >= set(other.extras)
            and self.keep >= other.keep
            and (self.grid.calendar, self.grid.interval) == (other.grid.calendar, other.grid.interval)
        )

    def with_(self, other: "Spec") -> "Spec":
        """One that covers both; what this says of needed columns and jumps holds."""
        return Spec(
            self.grid,
            tuple(sorted({*self.symbols, *other.symbols})),
            tuple(dict.fromkeys((*self.extras, *other.extras))),
            max(self.keep, other.keep),
            self.needed,
            self.max_jump,
        )


@dataclass
class LiveHorizon:
    """Its parts are as large as `spec` says; where a model needs more, all is made anew."""

    name: str
    spec: Spec
    finer: str | None
    version: int | None  # of the bars table that was read
    features_version: int | None  # of the features table, which nobody here reads but for answers about the past
    bars: LiveBars
    feed: Feed
    rules: Rules
    jumps: Jumps
    sections: deque[SectionSignals]
    states: dict[str, LiveState] = field(default_factory=dict)  # by the recipe's key

    def fits(self, bars: pl.DataFrame) -> bool:
        """Whether rows of the bars table have no other symbols and columns than this."""
        more = {column for column in bars.columns if column not in _STANDARD}
        return symbols_of(bars) <= self.bars.place.keys() and more <= set(self.bars.extras)

    def remade(self, fine: LiveBars, slots: Instants) -> pl.DataFrame:
        """Bars of this resampled horizon's slots, of the finer one's bars."""
        grid = self.spec.grid
        inside = np.isin(grid.floor(fine.time), slots)
        rows = fine.frame(fine.time[inside])
        return rows if rows.is_empty() else resample(rows, fine.grid, grid)


def opened(store: Store, name: str, spec: Spec, keep: int, deadline: timedelta) -> LiveHorizon:
    """Read a horizon from the disk. Blocking; on the live thread."""
    layout = store.layout(name)
    finer = None if layout is None or layout["bars"] == "source" else str(layout["bars"])
    version = store.version(name)
    stored = store.read(name, spec.grid, spec.keep, finer)
    given = [column for column in stored.bars.columns if column not in _STANDARD]
    extras = tuple(dict.fromkeys((*spec.extras, *given)))
    symbols = tuple(sorted({*spec.symbols, *symbols_of(stored.bars)}))
    bars = LiveBars(spec.grid, symbols, extras, spec.keep)
    bars.put(stored.bars)
    growing = finer is not None and store.grid(finer) is not None
    feed = Feed(name, spec.grid, bars, members_of(bars.place, None, symbols, spec.grid), deadline, growing)
    told = history(store.root, name, keep)
    if told.sections:
        feed.closed, feed.restated = told.sections[-1].slot, told.restated
    rules = Rules(spec.grid, spec.needed, extras, spec.max_jump, stored.actions)
    held = Spec(spec.grid, symbols, extras, spec.keep, spec.needed, spec.max_jump)
    sections = deque(told.sections, keep)
    jumps, features = Jumps(bars, stored.jumps), store.version(name, "features")
    return LiveHorizon(name, held, finer, version, features, bars, feed, rules, jumps, sections)


def spec_of(bundle: Bundle, keep: int) -> Spec:
    """What a bundle needs of its own horizon."""
    recipe = bundle.recipe
    config: Mapping[str, Any] = bundle.manifest["config"] or {}
    extras = tuple(name for name in recipe.columns if name not in names())
    return Spec(
        recipe.grid,
        tuple(sorted(recipe.symbols)),
        extras,
        recipe.lookback + keep,
        tuple(name for name in bundle.columns if name in extras),
        (config.get("validation") or {}).get("max_jump"),
    )


def others_of(recipe: Recipe, window: Instants, keep: int) -> dict[str, Spec]:
    """What a recipe needs of the other horizons that it reads, for a window of its own slots, at each slot to come."""
    found = {}
    for name in recipe.reads:
        other: Other = recipe.others[name]
        grid, slots = other.grid, 0
        for program in (recipe.feature_program, recipe.factor_program):
            if name in program.others and len(window):
                slots = max(slots, len(needed(program.others[name], grid, recipe.grid.ends(window))))
        extras = tuple(column for column in other.columns if column not in names() and column not in CALENDAR)
        found[name] = Spec(grid, tuple(sorted(recipe.symbols)), extras, int(slots * MARGIN) + keep)
    return found


_STANDARD = {
    "symbol", "timestamp", "known_at", "open", "high", "low", "close", "volume", "price_factor", "volume_factor"
}  # fmt: skip
