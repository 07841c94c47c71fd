"""A symbol's newest rows in a range, from memory; `live_tables` has what lies before it."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import msgspec
import numpy as np

from quant.panel import Instants, moment
from serving.live import LiveService
from serving.live_horizon import LiveHorizon
from serving.problems import Problem, field_error, nearest, refuse_fields


@dataclass(frozen=True)
class Window:
    """start <= bar < end, the newest `limit` of them; None is open."""

    start: datetime | None
    end: datetime | None
    limit: int

    def within(self, time: Instants) -> slice:
        """The places of the increasing `time` that lie in the range, the newest `limit` of them."""
        first = 0 if self.start is None else int(np.searchsorted(time, naive(self.start)))
        last = len(time) if self.end is None else int(np.searchsorted(time, naive(self.end)))
        return slice(max(first, last - self.limit), max(last, first))


@dataclass(frozen=True)
class Page:
    """What is asked for; no columns are all."""

    symbol: str
    window: Window
    columns: tuple[str, ...]

    def before(self, since: np.datetime64 | None) -> "Page":
        """The part of it that lies before an instant."""
        ends = [end for end in (self.window.end, None if since is None else moment(since)) if end is not None]
        return replace(self, window=replace(self.window, end=min(ends, default=None)))


@dataclass(frozen=True)
class Rows:
    """Rows of one symbol, oldest first. values: by column; whole: nothing older than these is in the range and limit.

    more: whether there are older rows in the range. since: where the memory begins that they are from.
    """

    time: Instants
    values: dict[str, np.ndarray]
    known: Instants | None
    whole: bool
    more: bool
    since: np.datetime64 | None = None
    gap: tuple[np.datetime64, np.datetime64] | None = None  # between these there are bars, and no rows of them

    @property
    def size(self) -> int:
        """Bytes, about."""
        return sum(held.nbytes for held in (self.time, *self.values.values())) + 1000

    def before(self, newer: "Rows", window: Window) -> "Rows":
        """These rows and, after them, newer ones, cut to the limit."""
        time = np.concatenate([self.time, newer.time])
        cut = slice(max(0, len(time) - window.limit), None)
        values = {name: np.concatenate([self.values[name], held])[cut] for name, held in newer.values.items()}
        known = None if newer.known is None or self.known is None else np.concatenate([self.known, newer.known])[cut]
        return Rows(time[cut], values, known, True, len(time) > window.limit, gap=self.gap)

    def to_dict(self) -> dict[str, Any]:
        """As JSON values; `next` where there may be older rows."""
        stamps = _texts(self.time)
        return {
            "timestamp": stamps,
            # Each by itself, so that the event loop goes on between them; NaN is encoded as null.
            "columns": {name: msgspec.Raw(msgspec.json.encode(held.tolist())) for name, held in self.values.items()},
            "known_at": None if self.known is None else _texts(self.known),
            "next": stamps[0] if self.more and stamps else None,
            "gap": None
            if self.gap is None
            else dict(zip(("after", "before"), _texts(np.array(self.gap)), strict=True)),
        }


@dataclass(frozen=True)
class Source:
    """Rows in memory, and the version they have: equal versions have equal rows.

    past: the version of the rows before them, which are in the tables; since: where the memory begins.
    """

    version: Hashable
    past: Hashable
    since: np.datetime64 | None
    read: Callable[[], Rows]


def bars_in_memory(live: LiveService, held: LiveHorizon, page: Page) -> Source:
    """A symbol's bars."""
    bars = held.bars
    names = chosen_of(page.columns, bars.names)

    def read() -> Rows:
        time, values, known = bars.of(page.symbol)
        chosen = [bars.names.index(name) for name in names]
        cut = page.window.within(time)
        found = {name: values[number, cut] for name, number in zip(names, chosen, strict=True)}
        return _rows(time, cut, found, known[cut].view("datetime64[us]"), _first(bars.time), page)

    changes = int(bars.changes[bars.place[page.symbol]])
    return Source((bars.serial, changes), (held.version, bars.passed), _first(bars.time), read)


def features_in_memory(live: LiveService, held: LiveHorizon, page: Page) -> Source:
    """A symbol's features of the model that serves; Problem 503 while none does."""
    predictor = live.current.ready.get(held.name)
    if predictor is None:
        raise Problem(503, "no-live-state", f"no model of {held.name} computes features: train one", horizon=held.name)
    history = live.current.world.state_of(predictor).features
    names = chosen_of(page.columns, history.names)
    if page.symbol not in history.place:
        why = f"{page.symbol!r} is not a symbol of the model that serves {held.name}"
        raise Problem(404, "unknown-symbol", why, horizon=held.name)

    def read() -> Rows:
        time, values = history.of(page.symbol)
        cut = page.window.within(time)
        found = {name: values[cut, history.names.index(name)].astype(np.float64) for name in names}
        return _rows(time, cut, found, None, history.since, page)

    return Source(history.version, (predictor.bundle.id, held.features_version), history.since, read)


def _rows(
    time: Instants,
    cut: slice,
    values: dict[str, np.ndarray],
    known: Instants | None,
    since: np.datetime64 | None,
    page: Page,
) -> Rows:
    window = page.window
    reached = window.start is not None and since is not None and bool(naive(window.start) >= since)
    full = cut.stop - cut.start >= window.limit
    first = 0 if window.start is None else int(np.searchsorted(time, naive(window.start)))
    more = cut.start > first or (full and not reached)
    return Rows(time[cut], values, known, full or reached, more, since)


def _first(time: Instants) -> np.datetime64 | None:
    return time[0] if len(time) else None


def chosen_of(asked: Sequence[str], known: Sequence[str]) -> list[str]:
    """The columns asked for, all where none are; Problem 422 with the nearest for one that there is not."""
    errors = []
    for name in asked:
        if name not in known:
            near = nearest(name, known)
            hint = f"did you mean {near!r}?" if near else f"there are {', '.join(known[:20])}"
            errors.append(field_error(["query", "columns"], f"no column {name!r}; {hint}", near))
    if errors:
        raise refuse_fields("unknown-column", errors)
    return list(asked or known)


def naive(moment: datetime) -> np.datetime64:
    """An instant as arrays have it, in UTC."""
    return np.datetime64(moment.astimezone(UTC).replace(tzinfo=None), "us")


def _texts(time: Instants) -> list[str]:
    """RFC 3339, half a millisecond for 500 of them sooner than through datetimes."""
    return np.datetime_as_string(time.astype("datetime64[us]"), timezone="UTC").tolist()
