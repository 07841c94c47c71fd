"""What followed a bar, as it could be known at a time: its label, once every bar that the label reads had arrived."""

from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl

from quant.attributes import Attribute
from quant.grid import Grid
from quant.inputs import bar_panel
from quant.known import NEVER, known_panel
from quant.labels import Label
from quant.panel import Instants

MOST_DAYS = 10_000  # beyond them the calendar has ended
FOLLOWED: dict[str, pl.DataType | type[pl.DataType]] = {
    "symbol": pl.String,
    "outcome": pl.Float64,
    "outcome_known_at": pl.Datetime("us", "UTC"),
}


def reach(grid: Grid, label: Label, slot: np.datetime64) -> Instants:
    """The slots that the label of this bar may read, its own among them; fewer where the calendar ends."""
    [day] = grid.session_dates(np.array([slot])).tolist()
    first, days = grid.back(day, label.lookback), 10
    while True:
        slots = grid.slots(first, day + timedelta(days=days))
        at = int(np.searchsorted(slots, slot))
        if len(slots) > at + label.lookahead or days > MOST_DAYS:
            break
        days *= 2
    return slots[max(0, at - label.lookback) : at + label.lookahead + 1]


def followed(
    bars: pl.DataFrame,
    grid: Grid,
    label: Label,
    attributes: Mapping[str, Attribute],
    slot: np.datetime64,
    symbols: Collection[str],
    at: datetime,
) -> pl.DataFrame:
    """FOLLOWED, a row per symbol: the outcome of the bar at `slot`, null unless it was known at `at`.

    bars: rows of the bars table at `reach`'s slots, of every symbol where the label crosses them. An outcome is known
    when the last bar that it reads is: one that arrived late, or was revised since, makes it so much later.
    """
    slots = reach(grid, label, slot)
    order = tuple(sorted({*bars["symbol"], *symbols}))
    panel = bar_panel(bars, grid, slots, order, label.inputs, attributes)
    own = int(np.searchsorted(slots, slot))
    labels = label.run(panel)
    value, ahead = labels.value[own], labels.ahead[own]
    arrived = known_panel(bars, slots, order)
    read = arrived[max(0, own - label.lookback) :]
    until = np.arange(len(read))[:, None] <= min(own, label.lookback) + ahead
    last = np.where(until, read, NEVER).max(axis=0)
    if label.crosses:
        last = np.full_like(last, last.max())
    known = np.isfinite(value) & (last <= np.datetime64(at.astimezone(UTC).replace(tzinfo=None), "us").astype(np.int64))
    places = [order.index(symbol) for symbol in symbols]
    return pl.DataFrame(
        {
            "symbol": list(symbols),
            "outcome": [float(value[place]) if known[place] else None for place in places],
            "outcome_known_at": pl.Series(
                [int(last[place]) if known[place] else None for place in places], dtype=pl.Int64
            )
            .cast(pl.Datetime("us"))
            .dt.replace_time_zone("UTC"),
        },
        schema=FOLLOWED,
    )
