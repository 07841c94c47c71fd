"""The made-up market holds the truth that was put in, whatever part of it is asked for."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from scipy import stats

from quant.adjust import adjust
from quant.bars import SOURCE_COLUMNS, expression_columns
from quant.grid import CalendarSpec, Grid
from quant.validate import validate
from resources.sources import open_source
from resources.sources.synthetic import SyntheticSource

FIVE = Grid(CalendarSpec("XNYS"), "5m")


NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)


@dataclass
class Config:
    kind: str = "synthetic"
    seed: int = 7
    start: date = date(2021, 1, 4)
    sessions: int | None = 40
    symbols: int = 6
    signal_ic: float = 0.05
    gap_rate: float = 0.01
    splits: int = 1


def source(grid: Grid = FIVE, **changes: object) -> SyntheticSource:
    found = open_source(Config(**changes), grid, NOW)  # type: ignore[arg-type]
    assert isinstance(found, SyntheticSource)
    return found


def every_bar(market: SyntheticSource, grid: Grid = FIVE) -> pl.DataFrame:
    first, last = market.span()
    return pl.concat(market.bars(*grid.window(first, last), None))


def test_a_day_alone_is_the_same_day_inside_the_year() -> None:
    market = source()
    whole = every_bar(market)
    start, end = FIVE.window(date(2021, 2, 1), date(2021, 2, 1))
    alone = pl.concat(market.bars(start, end, None))
    assert alone.equals(whole.filter(pl.col("timestamp") >= start, pl.col("timestamp") < end))
    few = pl.concat(market.bars(start, end, ["S002"]))
    assert few.equals(alone.filter(pl.col("symbol") == "S002"))


def test_the_seed_decides_and_more_sessions_change_nothing_before_them() -> None:
    short = every_bar(source(splits=0))
    assert every_bar(source(splits=0)).equals(short)
    assert not every_bar(source(splits=0, seed=8)).equals(short)
    long = every_bar(source(splits=0, sessions=60))
    assert long.head(short.height).equals(short)


@pytest.mark.parametrize(
    "grid",
    [
        FIVE,
        Grid(CalendarSpec("XNYS"), "1m"),
        Grid(CalendarSpec("XNYS"), "1h"),
        Grid(CalendarSpec("XNYS"), "1d"),
        Grid(CalendarSpec("24/7"), "1h"),
        Grid(CalendarSpec("template", "America/New_York", "18:00", "17:00"), "1h"),
    ],
    ids=repr,
)
def test_at_every_interval_the_bars_are_good_and_on_the_grid(grid: Grid) -> None:
    frame = every_bar(source(grid, sessions=10), grid)
    assert dict(frame.schema) == dict(SOURCE_COLUMNS)
    checked = validate(frame, grid)
    assert checked.good.height == frame.height
    assert checked.good["timestamp"].n_unique() == len(grid.slots(*source(grid, sessions=10).span()))


def test_gaps_are_missing_bars_never_flat_ones() -> None:
    frame = every_bar(source(gap_rate=0.05))
    slots = len(FIVE.slots(*source().span())) * 6
    missing = 1 - frame.height / slots
    assert missing == pytest.approx(0.05, abs=3 * np.sqrt(0.05 * 0.95 / slots))
    assert frame.filter(pl.col("high") == pl.col("low")).is_empty()
    assert every_bar(source(gap_rate=0.0)).height == slots


def test_a_split_is_in_the_raw_prices_and_in_the_actions() -> None:
    market = source()
    actions = market.actions()
    (symbol, day, split, dividend) = actions.row(0)
    assert actions.height == 1
    assert dividend == 0
    good = validate(every_bar(market), FIVE).good
    bars = expression_columns(adjust(good, actions, FIVE)).filter(pl.col("symbol") == symbol)
    night = bars.filter(pl.col("timestamp").dt.date() >= day).head(1)["timestamp"][0]
    jump = bars.select(
        raw=(pl.col("raw_open") / pl.col("raw_close").shift(1)).log(),
        adjusted=(pl.col("open") / pl.col("close").shift(1)).log(),
        at="timestamp",
    ).filter(pl.col("at") == night)
    assert jump["raw"][0] == pytest.approx(-np.log(split), abs=0.05)
    assert abs(jump["adjusted"][0]) < 0.05


@pytest.mark.parametrize("bars", [1, 6])
def test_the_planted_signal_has_the_size_that_is_stated(bars: int) -> None:
    # Independent symbols' states, ten independent markets: their spread is the standard error.
    found, stated = [], []
    for seed in range(10):
        market = source(seed=seed, sessions=120, symbols=10, gap_rate=0.0, splits=0)
        first, last = market.span()
        window = FIVE.window(first, last)
        frame = pl.concat(market.bars(*window, None))
        wide = {
            name: frame.pivot("symbol", index="timestamp", values=name).drop("timestamp").to_numpy()
            for name in ("open", "close")
        }
        state = market.truth(*window)["signal"].to_numpy().reshape(-1, 10)
        session = FIVE.session_dates(FIVE.slots(first, last))
        ahead = np.log(wide["close"][bars:] / wide["open"][1 : len(session) - bars + 1])
        inside = session[:-bars] == session[bars:]
        found.append(np.corrcoef(state[:-bars][inside].ravel(), ahead[inside].ravel())[0, 1])
        stated.append(market.implied_ic(bars))
    error = np.std(found, ddof=1) / np.sqrt(len(found))
    assert abs(np.mean(found) - np.mean(stated)) < 2 * error
    assert error < 0.1 * np.mean(stated)


def test_without_a_signal_none_is_implied() -> None:
    assert source(signal_ic=0.0).implied_ic(3) == 0.0


def test_the_state_is_an_ar1_and_shows_in_the_volume() -> None:
    market = source(sessions=120, gap_rate=0.0, splits=0)
    first, last = market.span()
    window = FIVE.window(first, last)
    state = market.truth(*window)["signal"].to_numpy().reshape(-1, 6)
    volume = np.log(pl.concat(market.bars(*window, None))["volume"].to_numpy().reshape(-1, 6))
    for number in range(6):
        z = state[:, number]
        assert stats.pearsonr(z[1:], z[:-1]).statistic == pytest.approx(0.9, abs=0.02)
        assert np.std(z) == pytest.approx(1, abs=0.1)
        assert stats.pearsonr(volume[:, number], z).statistic == pytest.approx(0.5 / np.hypot(0.5, 0.3), abs=0.03)


def test_symbols_share_a_common_factor_and_volatility_comes_in_regimes() -> None:
    daily = Grid(CalendarSpec("XNYS"), "1d")
    frame = every_bar(source(daily, sessions=800, splits=0, gap_rate=0.0), daily)
    returns = frame.with_columns(r=(pl.col("close") / pl.col("open")).log())
    wide = returns.pivot("symbol", index="timestamp", values="r").drop("timestamp").to_numpy()
    together = np.corrcoef(wide.T)[np.triu_indices(6, 1)]
    assert 0.1 < together.mean() < 0.5
    assert stats.kurtosis(wide.ravel()) > 0.5  # a mixture of two volatilities has fat tails
    size = np.abs(wide).mean(axis=1)
    assert stats.pearsonr(size[1:], size[:-1]).statistic > 0.1


def test_two_years_of_twenty_symbols_are_made_whole() -> None:
    assert every_bar(source(sessions=500, symbols=20, seed=99)).height > 700_000


def test_nothing_outside_the_sessions_is_given() -> None:
    nothing = pl.concat(source().bars(datetime(2020, 1, 1, tzinfo=UTC), datetime(2020, 6, 1, tzinfo=UTC), None))
    assert nothing.is_empty()


def test_a_market_without_a_last_session_goes_on_to_the_newest_bar_that_ended() -> None:
    half_past_ten = datetime(2021, 2, 1, 15, 30, tzinfo=UTC)
    market = open_source(Config(sessions=None, splits=0), FIVE, half_past_ten)  # type: ignore[arg-type]
    assert (market.end, market.span()) == (None, (date(2021, 1, 4), date(2021, 2, 1)))
    before_the_open = half_past_ten - timedelta(hours=2)
    assert open_source(Config(sessions=None), FIVE, before_the_open).span()[1] == date(2021, 1, 29)  # type: ignore[arg-type]
    later = open_source(Config(sessions=None, splits=0), FIVE, half_past_ten + timedelta(days=9))  # type: ignore[arg-type]
    window = FIVE.window(date(2021, 1, 4), date(2021, 2, 1))
    assert pl.concat(later.bars(*window, None)).equals(pl.concat(market.bars(*window, None)))
    assert source().end == source().span()[1]
