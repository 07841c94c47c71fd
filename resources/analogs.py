"""The past states that are most like one: found as of a time, far enough apart, with what followed them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
import polars as pl

from quant.attributes import Attribute
from quant.followed import FOLLOWED, followed, reach
from quant.grid import Grid
from quant.labels import Label
from quant.panel import instants, moment
from quant.states import KEYS, MARKET, apart
from resources.lake import Lake
from resources.vectors import Vectors, market_of

MOST = 100  # analogs of one question
COVERED = 0.5  # of a state's numbers: one that lacks more looks like any other, for missing numbers are the usual ones
ANALOGS = {
    **{name: kind for name, kind in KEYS.items() if name != "symbol"},
    "distance": pl.Float64,
    **{name: kind for name, kind in FOLLOWED.items() if name != "symbol"},
    "members": pl.UInt32,
}


@dataclass(frozen=True)
class Terms:
    """What states and outcomes of a horizon mean. apart: bars between two analogs, at least."""

    horizon: str
    grid: Grid
    label: Label
    apart: int
    attributes: Mapping[str, Attribute] = field(default_factory=dict)

    @property
    def least(self) -> int:
        """Bars between two analogs: so many that no outcome shares a bar with another's, or with what is to come."""
        return max(self.apart, self.label.lookahead + 1)


@dataclass(frozen=True)
class Analogs:
    """The answer: the state asked about, and a row of ANALOGS for each state like it, nearest first."""

    terms: Terms
    symbol: str
    at: datetime
    state: Mapping[str, Any]  # timestamp, known_at, coverage
    rows: pl.DataFrame

    def to_dict(self) -> dict[str, Any]:
        """As the command line and the service tell it; instants stay datetimes, an outcome not known yet is None."""
        outcome = self.rows["outcome"].drop_nulls()
        return {
            "horizon": self.terms.horizon,
            "symbol": self.symbol,
            "at": self.at,
            "state": dict(self.state),
            "label": self.terms.label.text,
            "apart": self.terms.least,
            "analogs": self.rows.to_dicts(),
            "followed": {
                "known": len(outcome),
                "mean": outcome.mean(),
                "median": outcome.median(),
                "share_above_zero": None if outcome.is_empty() else float((outcome > 0).mean()),  # type: ignore[arg-type]
            },
        }


def analogs(
    store: Vectors, lake: Lake, terms: Terms, *, at: datetime, symbol: str | None = None, k: int = 10
) -> Analogs:
    """The `k` past states nearest to the newest one known at `at`, of a symbol or (None) of the market.

    Nothing that was known later than `at` is seen: neither a state nor what followed one. Candidates lie at least
    `terms.least` bars before the state and apart from each other, and have at least half of their numbers; the nearest
    is taken first. The market's outcome is the mean over the members that had a state and whose own outcome was known.
    """
    if not 1 <= k <= MOST:
        raise ValueError(f"k is {k}: 1 to {MOST} analogs can be asked for")
    if at.tzinfo is None:
        raise ValueError(f"{at} has no time zone: pass an aware datetime")
    table, name = (market_of(terms.horizon), MARKET) if symbol is None else (terms.horizon, symbol)
    state = store.newest(table, name, at)
    key = state.keys.row(0, named=True)
    rows = _nearest(store, table, name, terms, state.vectors[0].tolist(), key["timestamp"], at, k)
    outcomes = _outcomes(store, lake, terms, symbol, rows["timestamp"].to_list(), at)
    told = rows.join(outcomes, on="timestamp", how="left", maintain_order="left")
    return Analogs(
        terms,
        name,
        at,
        {part: key[part] for part in ("timestamp", "known_at", "coverage")},
        told.select(pl.col(column).cast(kind) for column, kind in ANALOGS.items()),
    )


def _nearest(
    store: Vectors,
    table: str,
    symbol: str,
    terms: Terms,
    vector: list[float],
    timestamp: datetime,
    at: datetime,
    k: int,
) -> pl.DataFrame:
    """The states to tell of. Each one taken shadows at most 2 (least - 1) others, so the search for them ends."""
    end = _before(terms, timestamp)
    enough = k * (2 * terms.least - 1)
    limit = min(enough, 8 * k)
    while True:
        found = store.search(table, vector, before=at, limit=limit, symbol=symbol, end=end, coverage=COVERED)
        numbers = terms.grid.numbers(instants(found["timestamp"])).tolist()
        taken = apart(numbers, terms.least, k)
        if len(taken) == k or found.height < limit or limit == enough:
            return found[taken]
        limit = min(enough, 4 * limit)


def _before(terms: Terms, timestamp: datetime) -> datetime:
    """Where candidates end: they start before the bar that is `least - 1` bars before the state's own."""
    slot = instants(pl.Series([timestamp]))
    [day] = terms.grid.session_dates(slot).tolist()
    slots = terms.grid.slots(terms.grid.back(day, terms.least), day)
    place = int(np.searchsorted(slots, slot[0])) - terms.least + 1
    return moment(slots[max(place, 0)])


def _outcomes(
    store: Vectors, lake: Lake, terms: Terms, symbol: str | None, timestamps: list[datetime], at: datetime
) -> pl.DataFrame:
    """(timestamp, outcome, outcome_known_at, members) of each bar; outcome is null unless it was known at `at`."""
    states = store.symbols(terms.horizon, timestamps)
    if symbol is not None:
        states = states.filter(symbol=symbol)
    found = []
    for timestamp in timestamps:
        symbols = states.filter(timestamp=timestamp)["symbol"].to_list()
        [slot] = instants(pl.Series([timestamp]))
        slots = reach(terms.grid, terms.label, slot)
        bars = lake.scan(f"bars/{terms.horizon}", moment(slots[0])).filter(pl.col("timestamp") <= moment(slots[-1]))
        if not terms.label.crosses:
            bars = bars.filter(pl.col("symbol").is_in(symbols))
        rows = followed(bars.collect(), terms.grid, terms.label, terms.attributes, slot, symbols, at)
        found.append(
            {
                "timestamp": timestamp,
                "outcome": rows["outcome"].mean(),
                "outcome_known_at": rows["outcome_known_at"].max(),
                "members": rows["outcome"].count() if symbol is None else None,
            }
        )
    schema = {name: ANALOGS[name] for name in ("timestamp", "outcome", "outcome_known_at", "members")}
    return pl.DataFrame(found, schema=schema)


def utc(moment: datetime) -> datetime:
    """An instant in UTC; one without a zone is taken as UTC."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
