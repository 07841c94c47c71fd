"""Another horizon's values at the bars of this one, for at("1h", x): the newest that had closed and were known.

The bar of a slot sees the other grid's slots that had ended when its own did, and of those the values known by its
`known_at`, both with equality. A bar still open is never seen, even where a part of it is in the table. The newest
value with a bar counts, among the last `NEWEST` slots that had ended: an older one is missing. So a value depends on
`NEWEST - 1` slots of the other grid and the look-back of x before the newest one that had ended, and on nothing else.
No value is known later than the bar that sees it, so it never delays one.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from functools import cached_property

import numpy as np
import polars as pl

from quant.attributes import Attribute
from quant.expression import Names, parse
from quant.graph import Node, ordered
from quant.grid import CalendarSpec, Grid
from quant.inputs import bar_panel
from quant.known import NEVER, known_panel, of_values
from quant.panel import Floats, Instants, Panel, instants
from quant.program import Program, scope_of
from quant.sets import Entry

NEWEST = 8  # slots of the other grid, the newest that had ended among them, in which a value may lie


@dataclass(frozen=True)
class Other:
    """Another horizon as at(…) reads it: its grid, columns (of bars, calendar, derived), features, attributes."""

    calendar: CalendarSpec
    interval: str
    columns: tuple[str, ...]
    features: Mapping[str, str | Entry]
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    derived: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def grid(self) -> Grid:
        return Grid(self.calendar, self.interval)

    def of_symbols(self, symbols: Iterable[str]) -> "Other":
        """The same as a bundle carries it: features as texts, attributes of these symbols."""
        texts = {name: entry.text if isinstance(entry, Entry) else entry for name, entry in self.features.items()}
        symbols = list(symbols)
        return replace(
            self, features=texts, attributes={name: held.only(symbols) for name, held in self.attributes.items()}
        )

    @cached_property
    def names(self) -> Names:
        """What names stand for there. Features of that horizon may read a further one: x may not name those."""
        names = scope_of((*self.columns, *self.attributes), self.derived)
        for name, entry in self.features.items():
            text, file = (entry.text, entry.file) if isinstance(entry, Entry) else (entry, "")
            names[name] = parse(text, file=file, entry=name, names=names, others=None)
        return names


def reach(nodes: Iterable[Node]) -> dict[str, int]:
    """For each other horizon that values read: slots of its grid before the newest that had ended."""
    found: dict[str, int] = {}
    for node in ordered(nodes):
        if node.other is not None:
            horizon, value = node.other
            found[horizon] = max(found.get(horizon, 0), value.lookback + NEWEST - 1)
    return dict(sorted(found.items()))


def told(value: Node) -> str:
    """The look-back of a value as people read it, per horizon: `60`, or `60, 1h 20` where it reads 1h too."""
    return ", ".join([str(value.lookback), *(f"{horizon} {slots}" for horizon, slots in reach([value]).items())])


def needed(program: Program, grid: Grid, ends: Instants) -> Instants:
    """The slots of the other grid that a program's values at bars ending at `ends` depend on, in order.

    program: that of the other horizon. ends: datetime64[us] [T], increasing.
    """
    if not len(ends):
        return ends
    back = program.lookback + NEWEST - 1
    first: date = (ends[0] - np.timedelta64(1, "D")).item().date()
    # The newest slot that had ended may be the last one before the session that `first` counts from.
    slots = grid.slots(grid.back(first, back + 1), ends[-1].item().date() + timedelta(days=1))
    newest = _ended(grid, slots, ends)
    return slots[max(0, newest[0] - back) : newest[-1] + 1]


def joined(
    program: Program,
    other: Other,
    bars: pl.DataFrame,
    ends: Instants,
    known: np.ndarray,
    symbols: Sequence[str],
) -> dict[str, Floats]:
    """Columns float32 [T, S] by name: a program's values of the other horizon, as the bars of this one see them.

    program: that of the other horizon. bars: rows of its bars table, any more than `needed` and any other symbols are
    left aside. ends, known: when this horizon's bars end, datetime64[us] [T], and were known, int64 [T, S], NEVER where
    there is none. A slot without a bar and a symbol without a value have NaN.
    """
    slots = needed(program, other.grid, ends)
    if not len(slots):
        return {name: np.full(known.shape, np.nan, np.float32) for name in program.names}
    within = pl.Series(np.isin(instants(bars["timestamp"]), slots), dtype=pl.Boolean)
    bars = bars.filter(within, pl.col("symbol").is_in(list(symbols)))
    panel = bar_panel(bars, other.grid, slots, symbols, program.inputs, other.attributes)
    arrived = known_panel(bars, slots, symbols)
    values = program.run(panel)
    newest = _ended(other.grid, slots, ends)
    seen: dict[tuple[object, ...], np.ndarray] = {}
    columns = {}
    for name, value in program.outputs.items():
        read = (value.lookback, value.symbols)
        if read not in seen:
            seen[read] = _seen(of_values(value, arrived, symbols), arrived > NEVER, newest, known)
        columns[name] = _picked(values[name], seen[read])
    return columns


def with_others(
    panel: Panel,
    program: Program,
    others: Mapping[str, Other],
    grid: Grid,
    bars: pl.DataFrame,
    bars_of: Callable[[str, Instants], pl.DataFrame],
) -> Panel:
    """The panel with the columns that a program reads of other horizons.

    grid, bars: this horizon's, the rows of the panel's slots. bars_of: gives the bars of a horizon at `needed` slots.
    """
    ends = grid.ends(panel.time)
    for horizon, part in program.others.items():
        other = others[horizon]
        theirs = bars_of(horizon, needed(part, other.grid, ends))
        known = known_panel(bars, panel.time, panel.symbols)
        columns = joined(part, other, theirs, ends, known, panel.symbols)
        panel = panel.joined(Panel(panel.time, panel.symbols, columns))
    return panel


def _ended(grid: Grid, slots: Instants, ends: Instants) -> np.ndarray:
    """The place in `slots` of the newest one that had ended at each of `ends`, -1 where none had: int [T]."""
    return np.searchsorted(grid.ends(slots), ends, side="right") - 1


def _seen(value_known: np.ndarray, present: np.ndarray, newest: np.ndarray, known: np.ndarray) -> np.ndarray:
    """The slot of the value that each bar sees, int [T, S], negative where it sees none."""
    found = np.full(known.shape, -1)
    for back in range(NEWEST):
        slot = newest - back
        reached = np.maximum(slot, 0)
        fits = present[reached] & (value_known[reached] <= known)
        found = np.where((found < 0) & fits, slot[:, None], found)
    return found


def _picked(values: Floats, seen: np.ndarray) -> Floats:
    picked = np.take_along_axis(values, np.maximum(seen, 0), axis=0)
    return np.where(seen < 0, np.float32(np.nan), picked)
