"""A small market, bundles trained on it by LightGBM, and a real service on a real port."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from datetime import date
from pathlib import Path

import httpx
import numpy as np
import polars as pl
import pytest
import uvicorn

from conf.strict import Strict
from quant.bundle import Bundle
from quant.bundle_build import build
from quant.folds import holdout
from quant.grid import CalendarSpec
from quant.inputs import names
from quant.novelty import fit as fit_novelty
from quant.recipe import NO_BARS, Recipe
from quant.train import fit
from resources.inference import Inference
from resources.registry import Registry
from serving.app import create_app
from serving.keys import KeyRing
from serving.lane import with_lane
from serving.options import read
from serving.sockets import Sockets

SYMBOLS = ("AAA", "BBB", "CCC", "DDD")
FEATURES = {
    "momentum": "close / lag(close, 6) - 1",
    "trend": "close / mean(close, 12) - 1",
    "volume_ratio": "volume / mean(volume, 12)",
}
FACTORS = {"momentum": "momentum", "trend_rank": "rank(trend)", "volume_ratio": "volume_ratio"}


def recipe(factors: dict[str, str] = FACTORS, extras: tuple[str, ...] = ()) -> Recipe:
    """Four symbols, 5-minute bars of XNYS."""
    return Recipe(
        calendar=CalendarSpec("XNYS"),
        interval="5m",
        symbols=SYMBOLS,
        columns=names(extras),
        features=FEATURES,
        factors=factors,
    )


def random_bars(made: Recipe, seed: int = 7) -> pl.DataFrame:
    """Eight sessions of a random walk around a half day, with gaps that never become flat bars."""
    chance = np.random.default_rng(seed)
    slots = made.grid.slots(date(2023, 11, 20), date(2023, 11, 30))
    ends = made.grid.ends(slots)
    frames = []
    for number, symbol in enumerate(made.symbols):
        close = (50 + 25 * number) * np.exp(np.cumsum(chance.normal(0, 2e-3, len(slots))))
        opened = np.concatenate([close[:1], close[:-1]])
        frame = pl.DataFrame(
            {
                "symbol": symbol,
                "timestamp": pl.Series(slots).dt.replace_time_zone("UTC"),
                "open": opened,
                "high": np.maximum(opened, close) * 1.0005,
                "low": np.minimum(opened, close) * 0.9995,
                "close": close,
                "volume": chance.integers(1_000, 9_000, len(slots)).astype(float),
                "known_at": pl.Series(ends).dt.replace_time_zone("UTC"),
                "source": "test",
                # A split in the middle: what is sent and what is stored must be adjusted alike.
                "price_factor": np.where(np.arange(len(slots)) < 200, 1.0, 2.0 if symbol == "BBB" else 1.0),
                "volume_factor": 1.0,
            }
        )
        frames.append(frame.filter(pl.Series(chance.random(len(slots)) > 0.03)))
    return pl.concat(frames).sort("timestamp", "symbol")


def train(
    made: Recipe,
    bars: pl.DataFrame,
    seed: int,
    others: Mapping[str, pl.DataFrame] = NO_BARS,
    abstain_above: float | None = None,
) -> Bundle:
    """A bundle whose label is the next bar's return plus noise of its own seed."""
    keys, X = made.rows(bars, others=others)
    y = np.nan_to_num(X[:, 0]) + np.random.default_rng(seed).normal(0, 1e-3, len(X))
    clock = keys["timestamp"].dt.epoch("us").to_numpy()
    split = holdout(clock, clock + 300_000_000, valid=0.2, test=0.2, embargo=0)
    trained = fit(
        X, y, split.train, split.valid, {"num_leaves": 7, "learning_rate": 0.2}, names=list(made.factors),
        seeds=[seed], rounds=30, early_stopping_rounds=30,
    )  # fmt: skip
    newest = bars["timestamp"].unique().sort()[-made.lookback - 8 :]
    return build(
        horizon="5m",
        recipe=made,
        trained=trained,
        config={"seed": seed, "validation": {"max_jump": 20.0}},
        label={"name": "forward_return", "text": "lead(close, 1) / close - 1", "lookahead": 1},
        digests={"content": "c", "config": f"seed {seed}", "source": "s", "lock": "l"},
        golden_bars=bars.filter(pl.col("timestamp").is_in(newest.implode())),
        golden_others=others,
        counts=split.counts,
        spans={},
        scores={"test": {"ic": 0.1}},
        statistics={},
        novelty=fit_novelty(
            X, list(made.factors), split.train, made.grid.numbers(clock.astype("datetime64[us]")),
            columns=list(made.factors), sample=200, neighbours=5, apart=made.lookback, seed=seed,
        ),
        abstain_above=abstain_above,
    )  # fmt: skip


@pytest.fixture(scope="session")
def bars() -> pl.DataFrame:
    return random_bars(recipe())


@pytest.fixture(scope="session")
def bundles(bars: pl.DataFrame) -> list[Bundle]:
    """Two bundles that predict differently from the same rows."""
    return [train(recipe(), bars, seed) for seed in (1, 2)]


@pytest.fixture(scope="session")
def train_bundle() -> Callable[..., Bundle]:
    """Train a bundle of other factors, which may read further columns of the bars."""

    def made(bars: pl.DataFrame, factors: dict[str, str], extras: tuple[str, ...]) -> Bundle:
        return train(recipe(factors, extras), bars, seed=3)

    return made


@pytest.fixture(scope="session")
def train_across() -> Callable[..., Bundle]:
    """Train a bundle of a recipe that reads the bars of other horizons."""

    def made(recipe: Recipe, bars: pl.DataFrame, others: Mapping[str, pl.DataFrame]) -> Bundle:
        return train(recipe, bars, seed=4, others=others)

    return made


@pytest.fixture
def registry(tmp_path: Path, bundles: list[Bundle]) -> Registry:
    """Both bundles written, the first promoted."""
    made = Registry(tmp_path)
    for bundle in bundles:
        made.write(bundle, {})
    made.promote("5m", bundles[0].id, "first")
    return made


@contextmanager
def running(
    root: Path,
    horizons: tuple[str, ...] = (),
    follow_seconds: float = 3600.0,
    keys: KeyRing | None = None,
    **changed: Strict,
) -> Iterator[str]:
    """A real uvicorn on a free port; follows the ledger only at its start unless told otherwise.

    changed: sections of the options that differ from conf/serving/local.yaml.
    """
    options = read().model_copy(update={"follow_seconds": follow_seconds, **changed})
    app = create_app(root, horizons, options=options, keys=keys)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, http=with_lane(app), ws=Sockets))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the service ended while it started"
            time.sleep(0.01)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(timeout=30)
        assert not thread.is_alive(), "the service did not stop"


Serve = Callable[..., AbstractContextManager[str]]


@pytest.fixture(scope="session")
def serve() -> Serve:
    """Start a service over a store root; the context's value is its address."""
    return running


@pytest.fixture
def url(registry: Registry, tmp_path: Path, serve: Serve) -> Iterator[str]:
    """The address of a service that serves the first bundle."""
    with serve(tmp_path) as address:
        with Inference(address) as inference:
            inference.wait_ready(30)
        yield address


@pytest.fixture
def client(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, timeout=30) as made:
        yield made


@pytest.fixture
def inference(url: str) -> Iterator[Inference]:
    with Inference(url) as made:
        yield made
