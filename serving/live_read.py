"""A symbol's newest rows in a range, from memory, and from the tables what lies before it."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import polars as pl

from quant.panel import Instants, instants, moment
from serving.live import LiveService
from serving.live_horizon import LiveHorizon
from serving.problems import Problem, nearest


@dataclass(frozen=True)
class Window:
    """start <= bar < end, the newest `limit` of them; None is open."""

    start: datetime | None
    end: datetime | None
    limit: int

    def within(self, time: Instants) -> slice:
        """The places of the increasing `time` that lie in the range, the newest `limit` of them."""
        first = 0 if self.start is None else int(np.searchsorted(time, _naive(self.start)))
        last = len(time) if self.end is None else int(np.searchsorted(time, _naive(self.end)))
        return slice(max(first, last - self.limit), max(last, first))


@dataclass(frozen=True)
class Page:
    """What is asked for; no columns are all."""

    symbol: str
    window: Window
    columns: tuple[str, ...]


@dataclass(frozen=True)
class Rows:
    """Rows of one symbol, oldest first. values: by column; whole: nothing older than these is in the range and limit.

    more: whether there are older rows in the range.
    """

    time: Instants
    values: dict[str, np.ndarray]
    known: Instants | None
    whole: bool
    more: bool

    def before(self, newer: "Rows", window: Window) -> "Rows":
        """These rows and, after them, newer ones, cut to the limit."""
        time = np.concatenate([self.time, newer.time])
        cut = slice(max(0, len(time) - window.limit), None)
        values = {name: np.concatenate([self.values[name], held])[cut] for name, held in newer.values.items()}
        known = None if newer.known is None or self.known is None else np.concatenate([self.known, newer.known])[cut]
        return Rows(time[cut], values, known, True, len(time) > window.limit)

    def to_dict(self) -> dict[str, Any]:
        """As JSON values; `next` where there may be older rows."""
        stamps = _texts(self.time)
        return {
            "timestamp": stamps,
            "columns": {name: held.tolist() for name, held in self.values.items()},  # NaN is encoded as null
            "known_at": None if self.known is None else _texts(self.known),
            "next": stamps[0] if self.more and stamps else None,
        }


@dataclass(frozen=True)
class Source:
    """Rows in memory, and the version they have: equal versions have equal rows."""

    version: Hashable
    read: Callable[[], Rows]


def bars_in_memory(live: LiveService, held: LiveHorizon, page: Page) -> Source:
    """A symbol's bars."""
    bars = held.bars
    names = _chosen(page.columns, bars.names)

    def read() -> Rows:
        time, values, known = bars.of(page.symbol)
        chosen = [bars.names.index(name) for name in names]
        cut = page.window.within(time)
        found = {name: values[number, cut] for name, number in zip(names, chosen, strict=True)}
        return _rows(
            time, cut, found, known[cut].view("datetime64[us]"), bars.time[0] if len(bars.time) else None, page
        )

    return Source((bars.serial, held.version, int(bars.changes[bars.place[page.symbol]])), read)


def features_in_memory(live: LiveService, held: LiveHorizon, page: Page) -> Source:
    """A symbol's features of the model that serves; Problem 503 while none does."""
    predictor = live.current.ready.get(held.name)
    if predictor is None:
        raise Problem(503, "no-live-state", f"no model of {held.name} computes features: train one", horizon=held.name)
    history = live.current.world.state_of(predictor).features
    names = _chosen(page.columns, history.names)
    if page.symbol not in history.place:
        why = f"{page.symbol!r} is not a symbol of the model that serves {held.name}"
        raise Problem(404, "unknown-symbol", why, horizon=held.name)

    def read() -> Rows:
        time, values = history.of(page.symbol)
        cut = page.window.within(time)
        found = {name: values[cut, history.names.index(name)].astype(np.float64) for name in names}
        return _rows(time, cut, found, None, history.since, page)

    return Source((held.version, history.version), read)


def bars_of_table(live: LiveService, held: LiveHorizon, page: Page, newer: Rows) -> Rows:
    """What the bars table has before the memory, and what was pushed and is in neither. Blocking."""
    since, newest, ahead = held.bars.time[:1], live.store.newest(held.name), None
    if len(since) and (newest is None or moment(since[0]) > newest):  # a feed that runs ahead of the pipeline
        ahead = live.store.read(held.name, held.spec.grid, 0, held.finer).bars
    return _of_table(live, f"bars/{held.name}", page, newer, since, known=True, ahead=ahead)


def features_of_table(live: LiveService, held: LiveHorizon, page: Page, newer: Rows) -> Rows:
    """What the features table has before the memory. Blocking."""
    predictor = live.current.ready[held.name]
    since = live.current.world.state_of(predictor).features.since
    first = np.array([] if since is None else [since], "datetime64[us]")
    return _of_table(live, f"features/{held.name}", page, newer, first, known=False)


def _of_table(
    live: LiveService,
    table: str,
    page: Page,
    newer: Rows,
    since: Instants,
    *,
    known: bool,
    ahead: pl.DataFrame | None = None,
) -> Rows:
    """Rows before `since` of a table, and of `ahead`, which stand in the place of those of the same time."""
    names = list(newer.values)
    lake, window = live.store.lake, page.window
    end = min([one for one in (window.end, *(moment(stamp) for stamp in since)) if one is not None], default=None)

    def of(rows: pl.LazyFrame) -> pl.LazyFrame:
        there = rows.collect_schema().names()
        wanted = [name if name in there else pl.lit(None, pl.Float64()).alias(name) for name in names]
        wanted += ["known_at"] if known else []
        return rows.filter(pl.col("symbol") == page.symbol).select("timestamp", *wanted)

    parts = [of(lake.scan(table, window.start, end))] if lake.exists(table) else []
    if ahead is not None:
        inside = ahead.lazy()
        inside = inside if window.start is None else inside.filter(pl.col("timestamp") >= window.start)
        inside = of(inside if end is None else inside.filter(pl.col("timestamp") < end))
        parts = [*(part.join(inside, on="timestamp", how="anti") for part in parts), inside]
    if not parts:
        empty = np.empty(0, "datetime64[us]")
        return Rows(empty, {name: np.empty(0) for name in names}, empty if known else None, True, False)
    # One row more than is asked for tells whether there are older ones.
    rows = pl.concat(parts, how="vertical_relaxed").sort("timestamp")
    frame = rows.tail(window.limit - len(newer.time) + 1).collect()
    values = {name: frame[name].cast(pl.Float64).to_numpy() for name in names}
    return Rows(instants(frame["timestamp"]), values, instants(frame["known_at"]) if known else None, True, False)


def _rows(
    time: Instants,
    cut: slice,
    values: dict[str, np.ndarray],
    known: Instants | None,
    since: np.datetime64 | None,
    page: Page,
) -> Rows:
    window = page.window
    reached = window.start is not None and since is not None and bool(_naive(window.start) >= since)
    full = cut.stop - cut.start >= window.limit
    first = 0 if window.start is None else int(np.searchsorted(time, _naive(window.start)))
    more = cut.start > first or (full and not reached)
    return Rows(time[cut], values, known, full or reached, more)


def _chosen(asked: Sequence[str], known: Sequence[str]) -> list[str]:
    for name in asked:
        if name not in known:
            near = nearest(name, known)
            hint = f"did you mean {near!r}?" if near else f"there are {', '.join(known[:20])}"
            raise Problem(422, "unknown-column", f"columns: no column {name!r}; {hint}", nearest=near)
    return list(asked or known)


def _naive(moment: datetime) -> np.datetime64:
    return np.datetime64(moment.astimezone(UTC).replace(tzinfo=None), "us")


def _texts(time: Instants) -> list[str]:
    """RFC 3339, half a millisecond for 500 of them sooner than through datetimes."""
    return np.datetime_as_string(time.astype("datetime64[us]"), timezone="UTC").tolist()
