"""A symbol's rows before those in memory, from the tables of the pipeline: from as few of their files as hold them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import polars as pl

from quant.panel import instants
from resources.lake import Lake
from serving.live import LiveService
from serving.live_horizon import LiveHorizon
from serving.live_read import Page, Rows, Window, chosen_of, naive

MARGIN = timedelta(days=1)  # a session's bars lie no further from the date in its partition's key
FIRST = 3  # partitions that are read first; of one beyond the window, for the margin's sake, statistics say so


def bars_of_table(live: LiveService, held: LiveHorizon, page: Page) -> Rows:
    """What the bars table has before the page's end, and what was pushed and is not in it. Blocking."""
    end, newest, ahead = page.window.end, live.store.newest(held.name), None
    if end is not None and (newest is None or end > newest):  # a feed that runs ahead of the pipeline
        ahead = live.store.read(held.name, held.spec.grid, 0, held.finer).bars
    names = chosen_of(page.columns, held.bars.names)
    return _of_table(live.store.lake, f"bars/{held.name}", page, names, known=True, ahead=ahead)


def features_of_table(live: LiveService, held: LiveHorizon, page: Page) -> Rows:
    """What the features table has before the page's end, and the gap between it and the memory. Blocking."""
    features = live.current.world.state_of(live.current.ready[held.name]).features
    names = chosen_of(page.columns, features.names)
    rows = _of_table(live.store.lake, f"features/{held.name}", page, names, known=False)
    newest, since = live.store.newest(held.name, "features"), features.since
    if since is None:
        return rows
    # A feed that ran far ahead: the bars before the memory of features are in that of bars, which reaches further back.
    time, _, _ = held.bars.of(page.symbol)
    between = time[time < since] if newest is None else time[(time < since) & (time > naive(newest))]
    between = between[Window(page.window.start, page.window.end, len(between)).within(between)]
    if not len(between):
        return rows
    return replace(rows, gap=(between[0] if newest is None else naive(newest), since))


def _of_table(
    lake: Lake, table: str, page: Page, names: Sequence[str], *, known: bool, ahead: pl.DataFrame | None = None
) -> Rows:
    """A page of a table, and of `ahead`, whose rows stand in the place of those of the same time; one row more."""
    window = page.window

    def of(rows: pl.LazyFrame) -> pl.LazyFrame:
        there = rows.collect_schema().names()
        wanted = [pl.col(name) if name in there else pl.lit(None).alias(name) for name in names]
        kept = rows.filter(pl.col("symbol") == page.symbol).select(
            "timestamp", *(column.cast(pl.Float64) for column in wanted), *(["known_at"] if known else [])
        )
        kept = kept if window.start is None else kept.filter(pl.col("timestamp") >= window.start)
        return kept if window.end is None else kept.filter(pl.col("timestamp") < window.end)

    # One row more than is asked for tells whether there are older ones.
    parts = list(_newest(lake, table, window, of, window.limit + 1))
    if ahead is not None:
        inside = of(ahead.lazy()).collect()
        parts = [*(part.join(inside, on="timestamp", how="anti") for part in parts), inside]
    if not parts:
        empty = np.empty(0, "datetime64[us]")
        return Rows(empty, {name: np.empty(0) for name in names}, empty if known else None, True, False)
    frame = pl.concat(parts).sort("timestamp").tail(window.limit + 1)
    values = {name: frame[name].to_numpy() for name in names}
    return Rows(instants(frame["timestamp"]), values, instants(frame["known_at"]) if known else None, True, False)


def _newest(
    lake: Lake, table: str, window: Window, of: Callable[[pl.LazyFrame], pl.LazyFrame], count: int
) -> Iterator[pl.DataFrame]:
    """Rows of a table's newest partitions in the window until there are `count`: most questions are of a few days."""
    keys = _within(lake.partitions(table), window.start, window.end)
    rows = lake.scan(table) if keys else None
    size = FIRST
    while keys and count > 0 and rows is not None:
        keys, some = keys[:-size], keys[-size:]
        found = of(rows.filter(pl.col("partition").is_in(some))).collect()
        count -= found.height
        # As many as hold the rest if they are like these, and one; twice as many where these have nothing.
        size = min(4 * size, count * size // found.height + 1) if found.height else 2 * size
        yield found


def _within(keys: Sequence[str], start: datetime | None, end: datetime | None) -> list[str]:
    """The partitions, named by the first date in them, that may have bars of the window."""
    kept = [key for key in keys if end is None or key <= _day(end, MARGIN)]
    earlier = 0 if start is None else sum(key <= _day(start, -MARGIN) for key in kept)
    return kept[max(0, earlier - 1) :]


def _day(instant: datetime, margin: timedelta) -> str:
    try:
        return (instant + margin).date().isoformat()
    except OverflowError:  # the first and the last days that there are
        return instant.date().isoformat()
