"""A seeded market whose truth is known, generated at the interval that is asked for."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cached_property, lru_cache

import numpy as np
import numpy.typing as npt
import polars as pl

from quant.adjust import ACTIONS
from quant.grid import CalendarSpec, Grid
from quant.panel import instants

Floats = npt.NDArray[np.float64]

PERSISTENCE = 0.9  # of the hidden state, from one bar to the next
SHOWN = 0.5  # how much of the state log(volume) shows, beside noise of 0.3
MARKET = 0.5  # correlation of the average symbol with the common factor
DAILY_VOLATILITY = 0.015
OVERNIGHT = 0.3  # of the day's volatility, between close and open
TURBULENT, CALM = 2.0, 0.8  # volatility in the two regimes
STAY = {"calm": 0.97, "turbulent": 0.9}  # chance that a session keeps the regime of the one before


@dataclass(frozen=True)
class _Market:
    """The whole path: slots [T]; every other array is [T, S] or as said."""

    slots: npt.NDArray[np.datetime64]
    session: npt.NDArray[np.int64]  # [T] index of each slot's session
    common: Floats  # [T] volatility of a bar, over all symbols: regime and time of day
    own: Floats  # [S] volatility of a symbol beside it
    state: Floats  # the hidden state, variance 1
    prices: dict[str, Floats]  # raw open, high, low, close
    volume: Floats
    present: npt.NDArray[np.bool_]
    actions: pl.DataFrame


class SyntheticSource:
    """Symbols S000, S001, ... over `sessions` sessions from `start`; with ends=False, those that there are by now.

    Each symbol has a hidden AR(1) state z of variance 1, visible in the volume of its own bar,

        log(volume_t) = base + 0.5 z_t + 0.3 noise

    and in the return from open to close of its next one,

        r_{t+1} = v_{t+1} (ic z_t + sqrt(1 - ic^2) (b f_{t+1} + sqrt(1 - b^2) e_{t+1}))

    with f the common factor, b the symbol's loading and v its volatility (regimes by session, a U over the
    day). So signal_ic is the correlation of z with the next bar's standardised return. A bar opens where the
    one before closed, a session with a jump. Bars go missing at gap_rate; the first `splits` symbols split
    once. A session's draws hang on seed, symbols and its place alone: more sessions change nothing of the
    earlier ones.
    """

    name = "synthetic"

    def __init__(
        self,
        grid: Grid,
        *,
        seed: int,
        start: date,
        sessions: int,
        symbols: int,
        signal_ic: float,
        gap_rate: float,
        splits: int,
        ends: bool = True,
    ) -> None:
        self._grid = grid
        self._start, self._sessions, self._ends = start, sessions, ends
        self._key = (seed, start, sessions, symbols, signal_ic, gap_rate, splits)
        self._ic = signal_ic
        self._names = [f"S{number:03d}" for number in range(symbols)]

    @property
    def end(self) -> date | None:
        """The last session, where it has one."""
        return _dates(self._grid, self._start, self._sessions)[-1].item() if self._ends else None

    def span(self) -> tuple[date, date]:
        """First and last session by now."""
        first, last = self._grid.session_dates(self._market.slots[[0, -1]]).tolist()
        return first, last

    def symbols(self) -> list[str]:
        """S000, S001, ..."""
        return list(self._names)

    def bars(self, start: datetime, end: datetime, symbols: Sequence[str] | None) -> Iterator[pl.DataFrame]:
        """One frame of the bars that are not missing, sorted by (timestamp, symbol)."""
        market = self._market
        cut = self._cut(start, end)
        values = {name: price[cut].ravel() for name, price in market.prices.items()}
        frame = self._long(cut, {**values, "volume": market.volume[cut].ravel()})
        frame = frame.with_columns(source=pl.lit(self.name)).filter(pl.Series(market.present[cut].ravel()))
        yield frame if symbols is None else frame.filter(pl.col("symbol").is_in(list(symbols)))

    def actions(self) -> pl.DataFrame:
        """The splits."""
        return self._market.actions

    def truth(self, start: datetime, end: datetime) -> pl.DataFrame:
        """(symbol, timestamp, signal) with signal the hidden state, for every slot, missing bars too."""
        cut = self._cut(start, end)
        return self._long(cut, {"signal": self._market.state[cut].ravel()})

    def implied_ic(self, bars: int) -> float:
        """The correlation of the state at t with log(close at t + bars / open at t + 1) over t and symbols.

        Only windows inside one session count (on a daily grid, all), as jumps between sessions are not in the
        model. Exact for this path of volatility: with m its common part and p the persistence, the
        covariance is ic sum_j m_j p^(j-1), the variance sum_j m_j^2 + 2 ic^2 sum_{i<j} m_i m_j p^(j-i).
        """
        market = self._market
        ahead = np.lib.stride_tricks.sliding_window_view(market.common[1:], bars)
        if not self._grid.daily:
            ahead = ahead[market.session[: len(ahead)] == market.session[bars:]]
        decay = PERSISTENCE ** np.abs(np.subtract.outer(np.arange(bars), np.arange(bars)))
        covariance = self._ic * (ahead * decay[0]).sum(axis=1).mean() * market.own.mean()
        correlated = self._ic**2 * decay + (1 - self._ic**2) * np.eye(bars)
        variance = np.einsum("ti,ij,tj->t", ahead, correlated, ahead).mean() * (market.own**2).mean()
        return float(covariance / np.sqrt(variance))

    @cached_property
    def _market(self) -> _Market:
        return _market(self._grid.calendar, self._grid.interval, *self._key)

    def _cut(self, start: datetime, end: datetime) -> slice:
        edges = np.array([moment.astimezone(UTC).replace(tzinfo=None) for moment in (start, end)], "datetime64[us]")
        first, last = np.searchsorted(self._market.slots, edges)
        return slice(int(first), int(last))

    def _long(self, cut: slice, columns: dict[str, Floats]) -> pl.DataFrame:
        slots = self._market.slots[cut]
        stamps = pl.Series(np.repeat(slots, len(self._names)), dtype=pl.Datetime("us")).dt.replace_time_zone("UTC")
        names = pl.Series(self._names * len(slots), dtype=pl.String)
        return pl.DataFrame({"symbol": names, "timestamp": stamps, **columns})


def sessions_by(grid: Grid, start: date, now: datetime) -> int:
    """Sessions from `start` to that of the newest bar that has ended by now; at least one."""
    newest = grid.last_ended(now)
    last = start if newest is None else grid.session_dates(instants(pl.Series([newest])))[0].item()
    return max(1, len(grid.dates(start, last)))


def _dates(grid: Grid, start: date, sessions: int) -> npt.NDArray[np.datetime64]:
    return grid.dates(start, start + timedelta(days=3 * sessions + 30))[:sessions]


@lru_cache(maxsize=4)
def _market(
    calendar: CalendarSpec,
    interval: str,
    seed: int,
    start: date,
    sessions: int,
    symbols: int,
    ic: float,
    gap_rate: float,
    splits: int,
) -> _Market:
    grid = Grid(calendar, interval)
    dates = _dates(grid, start, sessions)
    slots = grid.slots(dates[0].item(), dates[-1].item())
    session = np.searchsorted(dates, grid.session_dates(slots))
    first = np.flatnonzero(np.diff(session, prepend=-1))
    draws = [np.random.default_rng([seed, symbols, index]) for index in range(len(dates))]
    count = np.diff(first, append=len(slots))

    def normal(*shape: int) -> Floats:
        """Normal draws [T, ...], each session's from its own generator."""
        return np.concatenate([draw.standard_normal((n, *shape)) for draw, n in zip(draws, count, strict=True)])

    once = np.random.default_rng([seed, symbols])
    base = once.uniform(50, 200, symbols)
    own = once.uniform(0.8, 1.2, symbols)
    loading = once.uniform(MARKET - 0.2, MARKET + 0.2, symbols)
    turnover = once.uniform(9, 12, symbols)

    common = _regimes(draws)[session] * _day_shape(session, first, count)
    common *= DAILY_VOLATILITY / np.sqrt(count.max())
    state = _state(normal(symbols))
    before = np.concatenate([np.zeros((1, symbols)), state[:-1]])
    noise = loading * normal()[:, None] + np.sqrt(1 - loading**2) * normal(symbols)
    volatility = common[:, None] * own
    moves = volatility * (ic * before + np.sqrt(1 - ic**2) * noise)
    jumps = np.zeros_like(moves)
    if not grid.daily:
        jumps[first[1:]] = OVERNIGHT * DAILY_VOLATILITY * normal(symbols)[first[1:]]
    close = np.log(base) + np.cumsum(moves + jumps, axis=0)
    open_ = close - moves
    wicks = 0.5 * volatility * np.abs(normal(2, symbols)).transpose(1, 0, 2)
    high, low = np.maximum(open_, close) + wicks[0], np.minimum(open_, close) - wicks[1]
    volume = np.exp(turnover + SHOWN * state + 0.3 * normal(symbols))
    present = np.concatenate([draw.random((n, symbols)) for draw, n in zip(draws, count, strict=True)]) >= gap_rate

    actions = _splits(dates, splits, symbols, once)
    ratio = np.ones((len(slots), symbols))
    for name, day, split, _ in actions.iter_rows():
        ratio[session >= np.searchsorted(dates, np.datetime64(day, "D")), int(name[1:])] = split
    logs = {"open": open_, "high": high, "low": low, "close": close}
    prices = {name: np.round(np.exp(log) / ratio, 4) for name, log in logs.items()}
    return _Market(slots, session, common, own, state, prices, np.ceil(volume * ratio), present, actions)


def _regimes(draws: Sequence[np.random.Generator]) -> Floats:
    """Volatility of each session: a two-state chain, calm at first."""
    calm, levels = True, []
    for draw in draws:
        calm = calm if draw.random() < STAY["calm" if calm else "turbulent"] else not calm
        levels.append(CALM if calm else TURBULENT)
    return np.array(levels)


def _day_shape(session: npt.NDArray[np.int64], first: npt.NDArray[np.int64], count: npt.NDArray[np.int64]) -> Floats:
    """A U over each session: 1.4 at its ends, 0.8 in the middle, 1 where a session is one bar."""
    place = (np.arange(len(session)) - first[session] + 0.5) / count[session]
    return np.where(count[session] > 1, 0.8 + 0.6 * (2 * place - 1) ** 2, 1.0)


def _state(noise: Floats) -> Floats:
    """An AR(1) of variance 1 from its first row on."""
    state = noise.copy()
    fresh = np.sqrt(1 - PERSISTENCE**2)
    for t in range(1, len(state)):
        state[t] = PERSISTENCE * state[t - 1] + fresh * noise[t]
    return state


def _splits(dates: npt.NDArray[np.datetime64], splits: int, symbols: int, once: np.random.Generator) -> pl.DataFrame:
    """The first symbols split 2, 3 or 4 for 1 once, on the 4th to 6th session: more sessions do not move it."""
    drawn = [(number, once.integers(3, 6), float(once.integers(2, 5))) for number in range(min(splits, symbols))]
    rows = [(f"S{number:03d}", dates[at].item(), split, 0.0) for number, at, split in drawn if at < len(dates)]
    return pl.DataFrame(rows, schema=ACTIONS, orient="row")
