"""The live recipe against the window that training and `predict_bars` use: the same rows, the same bits."""

from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest

from quant import live_recipe
from quant.across import Other
from quant.dense import DenseBars
from quant.grid import CalendarSpec, Grid
from quant.inputs import names
from quant.live_recipe import LiveRecipe
from quant.panel import instants
from quant.recipe import Recipe
from quant.resample import resample

XNYS = CalendarSpec("XNYS")
SYMBOLS = ("AAA", "BBB", "CCC", "DDD", "EEE")
RECIPE = Recipe(
    calendar=XNYS,
    interval="5m",
    symbols=SYMBOLS,
    columns=names(),
    features={
        "momentum": "close / lag(close, 3) - 1",
        "smooth": "ema(close, 4) / close",
        "busy": "volume / mean(volume, 6)",
        "hourly": 'at("1h", close / lag(close, 1) - 1)',
        "relative": 'close / of("BBB", close)',
        "early": "minute_of_session",
    },
    factors={
        "momentum": "momentum",
        "rank": "rank(smooth)",
        "smooth_rank": "mean(rank(busy), 5)",
        "lead": "zscore(relative)",
        "hourly": "hourly",
        "change": "log_returns(close)",
        "early": "early",
    },
    members=(("AAA", date(2023, 1, 2), None), ("BBB", date(2023, 1, 2), None), ("CCC", date(2023, 1, 2), None),
             ("DDD", date(2023, 1, 2), date(2023, 11, 21)), ("EEE", date(2023, 11, 22), None)),
    others={"1h": Other(XNYS, "1h", names(), {})},
    feature_bounds={"busy": (None, 2.2)},
    factor_bounds={"momentum": (-0.008, 0.008)},
)  # fmt: skip


def _bars(grid: Grid, seed: int = 3) -> pl.DataFrame:
    """Three sessions with gaps; a bar in ten came late."""
    chance = np.random.default_rng(seed)
    slots = grid.slots(date(2023, 11, 20), date(2023, 11, 22))
    frames = []
    for symbol in SYMBOLS:
        close = 50 * np.exp(np.cumsum(chance.normal(0, 2e-3, len(slots))))
        late = np.where(chance.random(len(slots)) < 0.1, np.timedelta64(7, "m"), np.timedelta64(0))
        frame = pl.DataFrame(
            {
                "symbol": symbol,
                "timestamp": pl.Series(slots).dt.replace_time_zone("UTC"),
                "open": close,
                "high": close * 1.001,
                "low": close * 0.999,
                "close": close,
                "volume": chance.integers(1_000, 9_000, len(slots)).astype(float),
                "known_at": pl.Series(grid.ends(slots) + late).dt.replace_time_zone("UTC"),
                "source": "test",
                "price_factor": np.where(np.arange(len(slots)) < 100, 1.0, 2.0),
                "volume_factor": 1.0,
            }
        )
        frames.append(frame.filter(pl.Series(chance.random(len(slots)) > 0.05)))
    return pl.concat(frames).sort("timestamp", "symbol")


def _advanced(made: Recipe, bars: pl.DataFrame, hourly: pl.DataFrame, piece: int) -> tuple[list, np.ndarray]:
    """Keys and rows of every slot after the look-back, the live recipe going on `piece` slots at a time."""
    live = LiveRecipe(made)
    slots = made.grid.slots(date(2023, 11, 20), date(2023, 11, 22))
    keys, rows = [], []
    for start in range(0, len(slots), piece):
        these = slots[start : start + piece]
        here = bars.filter(pl.Series(np.isin(instants(bars["timestamp"]), these)))
        told = live.advance(DenseBars.of(here, these, made.symbols), lambda _, wanted: hourly)
        for at in range(len(these)):
            if start + at >= made.lookback:
                of, X = told.matrix(at)
                keys += [(made.symbols[column], these[at].item()) for column in of.tolist()]
                rows.append(X)
    return keys, np.concatenate(rows)


@pytest.mark.parametrize("piece", [1, 7, 500])
def test_rows_of_the_live_recipe_have_the_bits_of_the_window(piece: int) -> None:
    bars = _bars(RECIPE.grid)
    hourly = resample(bars, RECIPE.grid, Grid(XNYS, "1h"))
    expected_keys, expected = RECIPE.rows(bars, others={"1h": hourly})
    assert expected.shape[0] > 300
    assert np.isnan(expected).mean() < 0.3
    assert len(expected) < bars.filter(pl.col("timestamp") >= expected_keys["timestamp"][0]).height - 20, "bounds bite"

    keys, found = _advanced(RECIPE, bars, hourly, piece)

    naive = expected_keys.with_columns(pl.col("timestamp").dt.replace_time_zone(None))
    assert keys == naive.rows()
    assert np.array_equal(found, expected, equal_nan=True)


def test_a_device_without_live_registers_computes_the_same_from_a_window(monkeypatch: pytest.MonkeyPatch) -> None:
    bars = _bars(RECIPE.grid)
    hourly = resample(bars, RECIPE.grid, Grid(XNYS, "1h"))
    _, expected = RECIPE.rows(bars, others={"1h": hourly})
    monkeypatch.setattr(live_recipe, "_Registers", live_recipe._Window)
    assert np.array_equal(_advanced(RECIPE, bars, hourly, 7)[1], expected, equal_nan=True)


def test_slots_without_any_bar_are_gone_through_as_missing() -> None:
    bars = _bars(RECIPE.grid)
    gone = bars["timestamp"].unique().sort()[90]
    bars = bars.filter(~pl.col("timestamp").is_between(gone, gone + timedelta(minutes=20)))
    hourly = resample(bars, RECIPE.grid, Grid(XNYS, "1h"))
    _, expected = RECIPE.rows(bars, others={"1h": hourly})
    assert np.array_equal(_advanced(RECIPE, bars, hourly, 3)[1], expected, equal_nan=True)
