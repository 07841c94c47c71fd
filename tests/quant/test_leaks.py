"""Leaks planted on purpose: without what guards against them, noise scores; with it, noise is noise."""

import numpy as np

from quant import forest
from quant.baselines import linear
from quant.folds import Fold, combinatorial, walk_forward
from quant.preprocess import Steps, learned
from quant.train import fit

PARAMS = {"num_leaves": 15, "min_data_in_leaf": 5, "learning_rate": 0.1}


def predicted(X: np.ndarray, y: np.ndarray, folds: list[Fold]) -> np.ndarray:
    """Out-of-fold predictions [N], NaN where no fold tests."""
    made = np.full(len(y), np.nan)
    given = {"names": [f"f{n}" for n in range(X.shape[1])], "seeds": [1], "rounds": 20, "early_stopping_rounds": 20}
    for fold in folds:
        trained = fit(X, y, fold.train, fold.valid, PARAMS, **given)
        made[fold.test] = forest.compile(trained.text).predict(X[fold.test])
    return made


def test_noise_predicts_overlapping_labels_unless_the_folds_are_purged() -> None:
    """The factors are random walks: they tell what time it is, and a neighbour's label is mostly one's own."""
    chance = np.random.default_rng(0)
    sections, symbols, ahead = 480, 4, 60
    noise = chance.normal(size=(sections + ahead, symbols))
    reach = np.cumsum(noise, axis=0)
    y = (reach[ahead:] - reach[:-ahead])[:sections].ravel()
    walks = np.cumsum(chance.normal(size=(sections, symbols, 3)), axis=0) + 1000 * np.arange(symbols)[:, None]
    X = walks.reshape(-1, 3).astype(np.float32)
    time = np.repeat(np.arange(sections), symbols)

    def score(label_end: np.ndarray, embargo: int) -> float:
        folds = combinatorial(time, label_end, groups=80, test_groups=1, embargo=embargo, valid=0.1)[4:74:14]
        tested = np.concatenate([fold.test for fold in folds])
        return float(np.corrcoef(predicted(X, y, folds)[tested], y[tested])[0, 1])

    leaking, purged = score(time, 0), score(time + ahead, ahead)
    assert leaking > 0.5
    assert purged < 0.2


def test_noise_predicts_when_factors_are_chosen_on_what_is_tested_and_not_when_chosen_inside_the_fold() -> None:
    chance = np.random.default_rng(1)
    sections, symbols, factors = 60, 10, 400
    X = chance.normal(size=(sections * symbols, factors)).astype(np.float32)
    y = chance.normal(size=len(X))
    time = np.repeat(np.arange(sections), symbols)
    steps = Steps(best=10)
    folds = walk_forward(time, time + 1, folds=3, share=0.6, embargo=1)
    tested = np.concatenate([fold.test for fold in folds])
    everything = np.arange(len(y))

    def score(*, hindsight: bool) -> float:
        made = []
        for fold in folds:
            chosen = learned(X, y, time, everything if hindsight else fold.train, steps).apply(X)
            made.append(linear(chosen, y, fold.train, fold.test))
        return float(np.corrcoef(np.concatenate(made), y[tested])[0, 1])

    error = len(tested) ** -0.5
    assert score(hindsight=True) > 3 * error
    assert abs(score(hindsight=False)) < 2 * error
