"""Reading a span of a horizon's tables as panels: the slots asked for, and the look-back before them."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime

import numpy as np
import polars as pl

from assets import names
from assets.plan import Plan
from quant.across import with_others
from quant.panel import Panel
from quant.program import Program
from resources.lake import Lake

# Float32 cells (slots x symbols x columns) of one chunk: 24 million are 96 MB, and a step holds a few such arrays.
CELLS = 24_000_000


@dataclass(frozen=True)
class Window:
    """Consecutive slots of the grid: those asked for are the last `asked`, the ones before them are look-back."""

    slots: np.ndarray
    asked: int

    @property
    def wanted(self) -> np.ndarray:
        return self.slots[len(self.slots) - self.asked :]

    @property
    def span(self) -> tuple[datetime, datetime]:
        return span(self.slots)


def span(slots: np.ndarray) -> tuple[datetime, datetime]:
    """First and last of some slots as aware datetimes, both included."""
    first, last = slots[[0, -1]].tolist()
    return first.replace(tzinfo=UTC), last.replace(tzinfo=UTC)


def window(plan: Plan, first: date, last: date, lookback: int) -> Window:
    """The sessions first .. last, with exactly `lookback` slots before them where the calendar has them."""
    wanted = plan.grid.slots(first, last)
    slots = plan.grid.slots(plan.grid.back(first, lookback), last) if lookback else wanted
    return Window(slots[max(0, len(slots) - len(wanted) - lookback) :], len(wanted))


def windows(plan: Plan, first: date, last: date, lookback: int, cells_per_slot: int) -> Iterator[Window]:
    """Chunks of whole sessions, sized so that a chunk's panels stay within CELLS."""
    sessions = plan.grid.dates(first, last).tolist()
    if not sessions:
        return
    per_session = max(1, len(plan.grid.slots(sessions[0], sessions[-1])) // len(sessions))
    fit = CELLS // (max(1, cells_per_slot) * per_session)
    # Warm-up is computed again for each chunk: a chunk shorter than its look-back would mostly warm up.
    size = max(1, fit, lookback // per_session)
    for at in range(0, len(sessions), size):
        run = sessions[at : at + size]
        yield window(plan, run[0], run[-1], lookback)


def read(lake: Lake, step: str, horizon: str, span: tuple[datetime, datetime]) -> pl.DataFrame:
    """Rows of a step's table whose bar starts lie in the span, both ends included."""
    start, end = span
    return lake.scan(names.table(step, horizon)).filter(pl.col("timestamp").is_between(start, end)).collect()


def with_elsewhere(plan: Plan, lake: Lake, program: Program, panel: Panel, bars: pl.DataFrame) -> Panel:
    """The panel with what a program reads of other horizons, from exactly the bars there that it depends on.

    bars: the rows of the panel's own slots, with `known_at` as their bars have it.
    """

    def bars_of(horizon: str, slots: np.ndarray) -> pl.DataFrame:
        if not len(slots):
            return lake.scan(names.table("bars", horizon)).head(0).collect()
        return read(lake, "bars", horizon, span(slots))

    return with_others(panel, program, plan.others, plan.grid, bars, bars_of)


def symbols_of(lake: Lake, horizon: str) -> tuple[str, ...]:
    """Every symbol that has a bar, in name order: the fixed order of a section."""
    column = lake.scan(names.table("bars", horizon)).select(pl.col("symbol").unique()).collect()
    return tuple(column["symbol"].sort())
