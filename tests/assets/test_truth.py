"""The truth that was put into the synthetic market is what the evaluator says of it, and what a model finds of it."""

from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from assets.learning import OUT_OF_FOLD
from quant.grid import CalendarSpec, Grid
from quant.score import section_ic, time_ic
from quant.stats import Mean, lags_for, mean_of
from resources.sources.synthetic import SyntheticSource
from tests.assets.conftest import Pipeline

FIVE = Grid(CalendarSpec("XNYS"), "5m")


def market(seed: int, sessions: int = 40, symbols: int = 8, ic: float = 0.05) -> SyntheticSource:
    return SyntheticSource(
        FIVE,
        seed=seed,
        start=date(2021, 1, 4),
        sessions=sessions,
        symbols=symbols,
        signal_ic=ic,
        gap_rate=0.0,
        splits=0,
    )


def true_rows(source: SyntheticSource, bars: int) -> pl.DataFrame:
    """(time, symbol, outcome, prediction): the hidden state, and the return from the next open to `bars` later.

    Windows inside a session only, as `implied_ic` says: jumps between sessions are not in the model.
    """
    first, last = source.span()
    window = FIVE.window(first, last)
    prices = pl.concat(source.bars(*window, None)).sort("symbol", "timestamp")
    ahead = (pl.col("close").shift(-bars) / pl.col("open").shift(-1)).over("symbol") - 1
    session = FIVE.session_dates(prices["timestamp"].dt.replace_time_zone(None).to_numpy().astype("datetime64[us]"))
    prices = prices.with_columns(session=pl.Series(session), outcome=ahead)
    inside = pl.col("session") == pl.col("session").shift(-bars).over("symbol")
    rows = prices.filter(inside).join(source.truth(*window), on=["symbol", "timestamp"])
    return rows.select(time="timestamp", symbol="symbol", outcome="outcome", prediction="signal")


def measured(series: pl.DataFrame, bars: int) -> Mean:
    return mean_of(series["ic"].to_numpy(), lags_for(series.height, bars - 1))


@pytest.mark.parametrize("bars", [1, 6])
def test_the_true_signal_scores_the_ic_that_was_put_in_within_two_standard_errors(bars: int) -> None:
    away = []
    for seed in range(12):
        source = market(seed)
        rows = true_rows(source, bars)
        # Over time, as `implied_ic` is: each symbol's rows are standardised over all of them.
        found = measured(time_ic(rows, "pearson"), bars)
        away.append((found.mean - source.implied_ic(bars)) / found.error)
    # One market in twenty lies outside by chance: more than two of twelve happen once in fifty.
    assert np.sum(np.abs(away) > 2) <= 2
    assert abs(np.mean(away)) < 2 / np.sqrt(len(away)) + 0.3


def test_within_sections_the_common_move_is_no_noise_and_the_true_signal_scores_higher_by_as_much() -> None:
    away = []
    for seed in range(12):
        source = market(seed)
        found = measured(section_ic(true_rows(source, 1), "pearson"), 1)
        own, loading, put = source._market.own, loadings(source), 0.05
        common = (1 - put**2) * (own * loading).mean() ** 2 / (own**2).mean()
        away.append((found.mean - put * own.mean() / np.sqrt((own**2).mean()) / np.sqrt(1 - common)) / found.error)
    assert np.sum(np.abs(away) > 2) <= 2


def loadings(source: SyntheticSource) -> np.ndarray:
    """As the source draws them: 0.3 to 0.7, mean 0.5."""
    seed, _, _, symbols, *_ = source._key
    once = np.random.default_rng([seed, symbols])
    once.uniform(50, 200, symbols)
    once.uniform(0.8, 1.2, symbols)
    return once.uniform(0.3, 0.7, symbols)


def test_a_market_without_a_signal_scores_none() -> None:
    found = [measured(section_ic(true_rows(market(seed, ic=0.0), 6), "spearman"), 6) for seed in range(12)]
    assert sum(abs(one.t) > 1.96 for one in found) <= 2


VOLUME = """# @package features.volume
level: log(volume)
usual: log(volume) - mean(log(volume), 240)
recent: mean(log(volume), 3) - mean(log(volume), 240)
before: lag(log(volume), 1) - mean(log(volume), 240)
"""


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_model_finds_most_of_the_truth_and_never_more_than_there_is(configs: Path, tmp_path: Path) -> None:
    (configs / "features" / "volume.yaml").write_text(VOLUME)
    made = Pipeline(
        tmp_path, "horizon=5m", "features=[volume]", "factors=[pass_through]", "tuning=none", "costs=free",
        "source.sessions=80", "source.symbols=20", "source.signal_ic=0.1", "source.gap_rate=0.0", "source.splits=0",
        "model.num_leaves=15", "model.n_estimators=150", "label.bars=1",
    )  # fmt: skip
    made.run("bars", "features", "factors", "model")
    [id] = made.registry.bundles("5m")
    oof = pl.read_parquet(made.registry.path("5m", id) / OUT_OF_FOLD).filter(pl.col("fold") >= 0)
    source = market(7, sessions=80, symbols=20, ic=0.1)
    first, last = source.span()
    truth = source.truth(*FIVE.window(first, last)).rename({"timestamp": "time"})
    rows = oof.join(truth, on=["time", "symbol"])
    assert rows.height == oof.height
    put_in = measured(section_ic(rows.drop("prediction").rename({"signal": "prediction"}), "pearson"), 1)
    found = measured(section_ic(rows, "pearson"), 1)
    assert 0.6 * put_in.mean <= found.mean <= put_in.mean + 2 * put_in.error
