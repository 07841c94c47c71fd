"""Pushed bars: checked by the rules of the bars step, so that a refusal names its row, and made rows of its table."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from quant.adjust import no_actions
from quant.arrivals import stepped
from quant.bars import KEY, PRICES
from quant.grid import Grid
from quant.jumps import PAST, judge
from quant.panel import Instants, instants
from quant.validate import REASONS, validate
from serving.bar_rules import broken
from serving.live_bars import RECENT, LiveBars
from serving.live_messages import PushedBar
from serving.problems import LISTED, field_error, nearest

EARLY = timedelta(seconds=2)  # that a sender's clock may be ahead of ours


@dataclass(frozen=True)
class Rules:
    """What the bars of a horizon must be, and how they are adjusted.

    needed: extra columns that expressions read; known: all there are. actions: splits and dividends that the source
    declares.
    """

    grid: Grid
    needed: tuple[str, ...]
    known: tuple[str, ...]
    max_jump: float | None
    actions: pl.DataFrame


@dataclass(frozen=True)
class Pushed:
    """columns: the rows that are good, for the journal, with those told jumps. frame: rows of the bars table, without
    them. refused: a field error for each of the others."""

    columns: dict[str, list[Any]]
    frame: pl.DataFrame
    refused: list[dict[str, Any]] = field(default_factory=list)


def check(sent: Mapping[int, PushedBar], rules: Rules, bars: LiveBars, jumps: "Jumps", now: datetime) -> Pushed:
    """Split what was sent at `now`, by its row, into good rows and refused ones."""
    refused = _misnamed(sent, rules, bars)
    rows = np.array([row for row in sent if row not in refused], np.intp)
    names = [sent[row].symbol for row in rows]
    stamps = np.array([sent[row].timestamp.replace(tzinfo=None) for row in rows], "datetime64[us]")
    values = np.array([_values(sent[row], bars) for row in rows], np.float64).reshape(len(rows), len(_names(bars)))
    fine = _fine(stamps, values, rules.grid)
    bad, well = np.flatnonzero(~fine), np.flatnonzero(fine)
    told = _reasons(rows[bad].tolist(), [names[at] for at in bad], stamps[bad], values[bad], rules.grid)
    told |= _repeated(rows[well].tolist(), [names[at] for at in well], stamps[well], values[well])
    for row, reason in told.items():
        refused[row] = broken(["bars", row], reason, vars(sent[row]))
    ended = rules.grid.contains(stamps)
    ended[ended] = rules.grid.ends(stamps[ended]) <= np.datetime64((now + EARLY).replace(tzinfo=None), "us")
    for at in np.flatnonzero(~ended):
        detail = f"the bar has not ended at {now:%Y-%m-%d %H:%M:%S} UTC: push it when it has closed"
        row = int(rows[at])
        refused.setdefault(row, field_error(["bars", row, "timestamp"], detail))
    good = np.array([at for at, row in enumerate(rows) if row not in refused], np.intp)
    symbols = [names[at] for at in good]
    columns = np.array([bars.place[symbol] for symbol in symbols], np.intp)
    frame = _frame(symbols, stamps[good], values[good], columns, bars, rules.grid, now)
    frame = _adjusted(frame, columns, rules, bars)
    journal: dict[str, list[Any]] = {"symbol": symbols, "timestamp": stamps[good].astype(np.int64).tolist()}
    for number, name in enumerate(_names(bars)):
        held = values[good, number]
        journal[name] = [None if value != value else value for value in held.tolist()]
    if rules.max_jump is not None and len(good):
        jumped = jumps.among(frame, columns, rules.max_jump)
        for at in np.flatnonzero(jumped):
            row = int(rows[good[at]])
            refused[row] = field_error(["bars", row, "close"], f"kept apart: {REASONS['jump']}")
        frame = frame.filter(~pl.Series(jumped, dtype=pl.Boolean))
        journal["jump"] = jumped.astype(int).tolist()
    return Pushed(journal, frame, [refused[row] for row in sorted(refused)])


class Jumps:
    """The bars of a horizon that were on another price scale, and by them and the good ones whether the next is."""

    def __init__(self, bars: LiveBars, told: pl.DataFrame) -> None:
        self._bars = bars
        self._told = told.select(*KEY, "close")

    def among(self, frame: pl.DataFrame, columns: npt.NDArray[np.intp], most: float) -> npt.NDArray[np.bool_]:
        """Which rows of the bars table (unique keys) are jumps; remembers them.

        Declared splits are in the bars' own volume factors.
        """
        scale = 1.0 / frame["volume_factor"].to_numpy()
        opened, close = frame["open"].to_numpy() * scale, frame["close"].to_numpy() * scale
        slots = instants(frame["timestamp"])
        if not self._told["symbol"].is_in(frame["symbol"].implode()).any() and slots.min() == slots.max():
            low, high = self._scaled_spread(slots[0])
            with np.errstate(over="ignore"):  # infinite, and so on the side of the limit where it belongs
                calm = np.maximum(opened, close) <= most * low[columns]
                calm &= np.minimum(opened, close) * most >= high[columns]
            if calm.all():
                return ~calm
        scaled = frame.select(*KEY, "known_at", open=pl.Series(opened), close=pl.Series(close))
        judged = judge(scaled, self._past(frame), no_actions(), self._bars.grid, most)
        told = frame.join(judged.jumps.select(KEY), on=KEY, how="semi").select(
            *KEY, close=pl.col("close") / pl.col("volume_factor")
        )
        self._told = pl.concat([self._told.join(frame, on=KEY, how="anti"), told])
        found = frame.select(*KEY, _row=pl.int_range(pl.len())).join(judged.jumps, on=KEY, how="semi")["_row"]
        jumped = np.zeros(frame.height, bool)
        jumped[found.to_numpy()] = True
        return jumped

    def _scaled_spread(self, slot: np.datetime64) -> tuple[np.ndarray, np.ndarray]:
        low, high = self._bars.spread("close", slot)
        least, most = self._bars.spread("volume_factor", slot)
        # Bounds of the ratio: wider than it where a split lies in the window, and then `judge` decides.
        return low / np.where(most > 0, most, 1.0), high / np.where(np.isfinite(least), least, 1.0)

    def _past(self, frame: pl.DataFrame) -> pl.DataFrame:
        time, slots = self._bars.time, instants(frame["timestamp"])
        first, last = np.searchsorted(time, [slots.min(), slots.max()]).tolist()
        held = self._bars.frame(time[max(0, first - RECENT) : last + 1], frame["symbol"].unique().sort().to_list())
        good = held.select(*KEY, close=pl.col("close") / pl.col("volume_factor"), jump=pl.lit(False))
        told = self._told.filter(pl.col("symbol").is_in(frame["symbol"].implode())).with_columns(jump=pl.lit(True))
        return pl.concat([good.join(told, on=KEY, how="anti"), told]).cast(PAST).sort(KEY)


def _names(bars: LiveBars) -> list[str]:
    return [name for name in bars.names if not name.endswith("_factor")]


def _values(bar: PushedBar, bars: LiveBars) -> list[float]:
    found = [bar.open, bar.high, bar.low, bar.close, bar.volume, *(bar.extras.get(name) for name in bars.extras)]
    return [np.nan if value is None else value for value in found]


def _misnamed(sent: Mapping[int, PushedBar], rules: Rules, bars: LiveBars) -> dict[int, dict[str, Any]]:
    """By row: a symbol or a column that is not known, or a column that is needed and absent."""
    found: dict[int, dict[str, Any]] = {}

    def wrong(row: int, name: str, detail: str, meant: str, names: Collection[str]) -> None:
        # What is not listed anyhow is not worth the time that the nearest name takes.
        near = nearest(meant, names) if len(found) < LISTED else None
        found[row] = field_error(["bars", row, name], detail, near)

    for row, bar in sent.items():
        if bar.symbol not in bars.place:
            wrong(row, "symbol", f"{bar.symbol!r} is not a symbol of this horizon", bar.symbol, bars.symbols)
            continue
        if unknown := bar.extras.keys() - set(rules.known):
            name = min(unknown)
            known = [*PRICES, "volume", *rules.known]
            wrong(row, name, f"the bars of this horizon have no column {name!r}", name, known)
        elif absent := [name for name in rules.needed if name not in bar.extras]:
            detail = f"the expressions read column {absent[0]!r}: send it, null where it has no value"
            wrong(row, absent[0], detail, absent[0], bar.extras)
    return found


def _fine(stamps: Instants, values: np.ndarray, grid: Grid) -> npt.NDArray[np.bool_]:
    """Rows that `validate` would call good if no other came with them: its rules at once, as it takes 12 ms."""
    prices, volume = values[:, :4], values[:, 4]
    fine = np.isfinite(prices).all(axis=1) & (prices > 0).all(axis=1)
    fine &= ~(volume < 0) & ~np.isinf(volume)
    fine &= (prices[:, 1] >= prices.max(axis=1, initial=-np.inf)) & (prices[:, 2] <= prices.min(axis=1, initial=np.inf))
    return fine & grid.contains(stamps)


def _repeated(rows: Sequence[int], symbols: Sequence[str], stamps: Instants, values: np.ndarray) -> dict[int, str]:
    """By row, why one is left aside whose key comes again later."""
    keys = list(zip(symbols, stamps.astype(np.int64).tolist(), strict=True))
    if len(set(keys)) == len(keys):
        return {}
    last: dict[tuple[str, int], int] = {}
    found = {}
    for at in reversed(range(len(rows))):
        kept = last.setdefault(keys[at], at)
        if kept != at:
            equal = np.array_equal(values[at], values[kept], equal_nan=True)
            found[rows[at]] = "duplicate" if equal else "duplicate_key"
    return found


def _reasons(rows: Sequence[int], symbols: Sequence[str], stamps: Instants, values: np.ndarray, grid: Grid) -> dict:
    """By row, why the bars step would refuse it."""
    if not rows:
        return {}
    frame = pl.DataFrame(
        {
            "symbol": pl.Series(symbols, dtype=pl.String),
            "timestamp": pl.Series(stamps).dt.replace_time_zone("UTC"),
            **{name: pl.Series(values[:, number]).fill_nan(None) for number, name in enumerate((*PRICES, "volume"))},
            "source": "pushed",
            "_sent": pl.Series(rows, dtype=pl.Float64),  # an extra column passes through: which row it was
        }
    )
    rejected = validate(frame, grid).rejected
    return {int(row): reason for row, reason in rejected.select("_sent", "reason").iter_rows()}


def _frame(
    symbols: list[str],
    stamps: Instants,
    values: np.ndarray,
    columns: npt.NDArray[np.intp],
    bars: LiveBars,
    grid: Grid,
    now: datetime,
) -> pl.DataFrame:
    """Rows of the bars table: known when they arrived, and not before they ended; factors are carried on."""
    known = np.maximum(np.datetime64(now.replace(tzinfo=None), "us"), grid.ends(stamps))
    return pl.DataFrame(
        {
            "symbol": pl.Series(symbols, dtype=pl.String),
            "timestamp": pl.Series(stamps).dt.replace_time_zone("UTC"),
            **{name: pl.Series(values[:, number]) for number, name in enumerate(_names(bars))},
            **{name: pl.Series(held) for name, held in bars.factors(columns, stamps).items()},
            "known_at": pl.Series(known).dt.replace_time_zone("UTC"),
        }
    )


def _adjusted(frame: pl.DataFrame, columns: npt.NDArray[np.intp], rules: Rules, bars: LiveBars) -> pl.DataFrame:
    """The rows in their order, with the splits and dividends between them and their symbols' bars before."""
    if rules.actions.is_empty() or frame.is_empty():
        return frame
    slots = instants(frame["timestamp"])
    newest = bars.newest_of(columns)
    follows = ~np.isnat(newest) & (newest < slots)
    if not follows.any():
        return frame
    order = pl.int_range(pl.len()).alias("_order")
    held = frame.with_columns(order)
    new = held.filter(pl.Series(follows, dtype=pl.Boolean))
    before = bars.frame(np.unique(newest[follows]), new["symbol"].unique().sort().to_list())
    before = before.sort("timestamp").group_by("symbol").last()
    # Of the bars before, each symbol's own newest: other symbols' slots hold older ones of it, which sort before.
    return (
        pl.concat([held.filter(~pl.Series(follows)), stepped(new, before, rules.actions, rules.grid)])
        .sort("_order")
        .drop("_order")
    )
