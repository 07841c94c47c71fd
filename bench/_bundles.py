"""Bundles for the service's benches: a random walk of eight symbols, twenty factors, 200 trees of 31 leaves."""

from datetime import date

import lightgbm as lgb
import numpy as np
import polars as pl

from quant.bundle import Bundle
from quant.bundle_build import build
from quant.grid import CalendarSpec
from quant.inputs import names
from quant.recipe import Recipe
from quant.train import Trained

TREES, LEAVES = 200, 31
WINDOWS = (3, 6, 12, 24, 48)


def recipe() -> Recipe:
    """Twenty factors of 5-minute bars of XNYS."""
    features = {}
    for n in WINDOWS:
        features[f"momentum_{n}"] = f"close / lag(close, {n}) - 1"
        features[f"trend_{n}"] = f"close / mean(close, {n}) - 1"
        features[f"range_{n}"] = f"mean(high - low, {n}) / close"
        features[f"volume_{n}"] = f"volume / mean(volume, {n})"
    return Recipe(
        calendar=CalendarSpec("XNYS"),
        interval="5m",
        symbols=tuple(f"S{number}" for number in range(8)),
        columns=names(),
        features=features,
        factors={name: name for name in features},
    )


def random_bars(made: Recipe) -> pl.DataFrame:
    """Ten sessions of bars."""
    chance = np.random.default_rng(7)
    slots = made.grid.slots(date(2023, 11, 15), date(2023, 11, 30))
    frames = []
    for symbol in made.symbols:
        close = 100 * np.exp(np.cumsum(chance.normal(0, 2e-3, len(slots))))
        opened = np.concatenate([close[:1], close[:-1]])
        columns = {
            "symbol": symbol,
            "timestamp": pl.Series(slots).dt.replace_time_zone("UTC"),
            "open": opened,
            "high": np.maximum(opened, close) * (1 + chance.uniform(0, 1e-3, len(slots))),
            "low": np.minimum(opened, close) * (1 - chance.uniform(0, 1e-3, len(slots))),
            "close": close,
            "volume": chance.integers(1_000, 9_000, len(slots)).astype(float),
            "known_at": pl.Series(made.grid.ends(slots)).dt.replace_time_zone("UTC"),
            "source": "bench",
            "price_factor": 1.0,
            "volume_factor": 1.0,
        }
        frames.append(pl.DataFrame(columns))
    return pl.concat(frames).sort("timestamp", "symbol")


def bundles(count: int) -> list[Bundle]:
    """Bundles of one recipe that predict differently from the same rows."""
    made = recipe()
    bars = random_bars(made)
    _, X = made.rows(bars)
    newest = bars["timestamp"].unique().sort()[-made.lookback - 8 :]
    golden = bars.filter(pl.col("timestamp").is_in(newest.implode()))
    return [_bundle(made, golden, _booster(X, seed, list(made.factors)), seed) for seed in range(count)]


def _booster(X: np.ndarray, seed: int, factors: list[str]) -> lgb.Booster:
    y = np.nan_to_num(X).sum(axis=1) + np.random.default_rng(seed).normal(0, 1, len(X))
    settings = {"num_leaves": LEAVES, "learning_rate": 0.05, "num_threads": 1, "verbosity": -1, "seed": seed}
    return lgb.train(settings, lgb.Dataset(X, y, feature_name=factors), num_boost_round=TREES)


def _bundle(made: Recipe, golden: pl.DataFrame, booster: lgb.Booster, seed: int) -> Bundle:
    gain = dict.fromkeys(made.factors, 0.0)
    trained = Trained(booster.model_to_string(), TREES, "regression", {}, gain, {seed: TREES})
    return build(
        horizon="5m",
        recipe=made,
        trained=trained,
        config={"seed": seed},
        label={"name": "sum", "text": "none", "lookahead": 1},
        digests={"content": "bench", "config": f"seed {seed}", "source": "bench", "lock": "bench"},
        golden_bars=golden,
        counts={},
        spans={},
        scores={},
        statistics={},
    )
