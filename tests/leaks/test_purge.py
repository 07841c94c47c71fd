"""A fold without purge learns its test's outcomes where labels overlap: it finds signal in noise. Ours do not."""

from collections.abc import Sequence

import numpy as np
import polars as pl

from quant.folds import Rows, combinatorial, walk_forward
from quant.score import section_ic
from quant.stats import Mean, lags_for, mean_of
from quant.train import fit

SECTIONS, SYMBOLS, AHEAD, BLOCKS = 400, 10, 20, 20
PARAMS = {"num_leaves": 15, "min_data_in_leaf": 10, "learning_rate": 0.1}


def noise(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """X, y, time and label_end where no factor knows anything: slow factors, overlapping sums of random returns."""
    rng = np.random.default_rng(seed)
    returns = rng.normal(size=(SECTIONS + AHEAD, SYMBOLS))
    sums = np.cumsum(returns, axis=0)
    y = (sums[AHEAD:] - sums[:-AHEAD]).ravel()
    X = np.cumsum(rng.normal(size=(SECTIONS, SYMBOLS, 4)), axis=0).reshape(-1, 4).astype(np.float32)
    time = np.repeat(np.arange(SECTIONS), SYMBOLS)
    return X, y, time, time + AHEAD


def out_of_fold(seed: int, folds: Sequence[tuple[Rows, Rows]]) -> Mean:
    """Rank IC of what models of the first rows of each pair predict of the second."""
    X, y, time, _ = noise(seed)
    frames = []
    import lightgbm as lgb

    for train, test in folds:
        stop = train[-len(train) // 10 :]
        trained = fit(X, y, train, stop, PARAMS, names=list("abcd"), seeds=[0], rounds=15, early_stopping_rounds=15)
        prediction = lgb.Booster(model_str=trained.text).predict(X[test])
        frames.append(pl.DataFrame({"time": time[test], "outcome": y[test], "prediction": prediction}))
    ic = section_ic(pl.concat(frames), "spearman")["ic"].to_numpy()
    return mean_of(ic, lags_for(len(ic), AHEAD - 1))


def unpurged(tests: Sequence[Rows]) -> list[tuple[Rows, Rows]]:
    """The planted leak: whatever is not tested is learned from."""
    every = np.arange(SECTIONS * SYMBOLS)
    return [(np.setdiff1d(every, test), test) for test in tests]


def test_folds_without_purge_find_signal_in_noise_and_purged_ones_do_not() -> None:
    seed = 0
    _, _, time, label_end = noise(seed)
    folds = combinatorial(time, label_end, groups=BLOCKS, test_groups=1, embargo=AHEAD)
    clean = out_of_fold(seed, [(fold.train, fold.test) for fold in folds])
    leaky = out_of_fold(seed, unpurged([fold.test for fold in folds]))
    assert leaky.mean > 0.1
    assert leaky.t > 3
    assert abs(clean.mean) < 0.1
    assert clean.t < 2
    assert all(fold.counts["purged"] > 0 for fold in folds)


def test_walking_forward_without_purge_learns_outcomes_that_were_not_known() -> None:
    """With short blocks even the past alone leaks: its newest labels end inside the test."""
    seed = 3
    _, _, time, label_end = noise(seed)
    folds = walk_forward(time, label_end, folds=BLOCKS, share=0.8, embargo=0)
    past = [(np.flatnonzero(time < time[fold.test].min()), fold.test) for fold in folds]
    clean, leaky = out_of_fold(seed, [(fold.train, fold.test) for fold in folds]), out_of_fold(seed, past)
    assert leaky.mean > clean.mean + 0.05
    assert clean.t < 2
    for fold, (leaked, _) in zip(folds, past, strict=True):
        first = time[fold.test].min()
        assert label_end[fold.train].max() < first <= label_end[leaked].max()
