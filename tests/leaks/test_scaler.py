"""Preprocessing fitted on everything changes the score, and can flatter it; ours is fitted on training rows alone."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from assets.dataset import Dataset, folds, load, split
from assets.learning import learn, out_of_fold, predict
from quant.folds import Rows
from quant.preprocess import Steps, learned
from quant.score import section_ic
from quant.stats import lags_for, mean_of
from tests.assets.conftest import SMALL, Pipeline

ALL_STEPS = "{coverage: 0.1, best: 4, winsorize: 0.05, impute: true, standardize: true}"


def world(
    seed: int, factors: int, ic: float, sections: int = 300, symbols: int = 12
) -> tuple[np.ndarray, np.ndarray, np.ndarray, Rows, Rows]:
    """X whose scale changes after training, y of which the first factor knows a little, time; train and test rows."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(sections * symbols, factors))
    y = ic * X[:, 0] + rng.normal(size=len(X))
    time = np.repeat(np.arange(sections), symbols)
    train, test = np.flatnonzero(time < 200), np.flatnonzero(time >= 200)
    X[test] *= np.linspace(1, 40, factors)  # another regime, in which other factors are loud
    return X.astype(np.float32), y, time, train, test


def scored(seed: int, factors: int, ic: float, steps: Steps, *, everything: bool) -> tuple[float, float]:
    """Rank IC on the test rows, and its t, of a ridge regression on training rows after the steps.

    everything: the planted leak; the steps are learned from all rows, those of the test too.
    """
    X, y, time, train, test = world(seed, factors, ic)
    rows = np.arange(len(X)) if everything else train
    Z = np.nan_to_num(learned(X, y, time, rows, steps).apply(X).astype(np.float64))
    weights = np.linalg.solve(Z[train].T @ Z[train] + len(train) * np.eye(factors), Z[train].T @ y[train])
    frame = pl.DataFrame({"time": time[test], "outcome": y[test], "prediction": Z[test] @ weights})
    ics = section_ic(frame, "spearman")["ic"].to_numpy()
    found = mean_of(ics, lags_for(len(ics), 0))
    return found.mean, found.t


def test_a_scaler_fitted_on_everything_changes_the_score() -> None:
    """The test's scale tells it which factors will be loud, and it turns them down in time."""
    steps = Steps(standardize=True)
    gained = []
    for seed in range(5):
        clean, leaky = (scored(seed, 10, 0.3, steps, everything=everything)[0] for everything in (False, True))
        gained.append(leaky - clean)
    assert min(gained) > 0.03


def test_factors_chosen_on_everything_find_signal_in_noise() -> None:
    steps = Steps(best=3)
    clean = [scored(seed, 200, 0.0, steps, everything=False)[1] for seed in range(8)]
    leaky = [scored(seed, 200, 0.0, steps, everything=True)[1] for seed in range(8)]
    assert np.mean(leaky) > np.mean(clean) + 1
    assert abs(np.mean(clean)) < 1


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, configs: Path) -> Pipeline:
    made = Pipeline(tmp_path_factory.mktemp("scaler"), *SMALL, "tuning=none")
    made.run("bars", "features", "factors")
    return made


def spoiled(data: Dataset, rows: Rows) -> Dataset:
    """The dataset with other factors, labels and targets in some rows."""
    X, target = data.X.copy(), data.target.copy()
    X[rows] = X[rows] * 1000 + 7
    target[rows] = -5 * target[rows]
    return replace(data, X=X, target=target)


@pytest.mark.parametrize("steps", ["default", ALL_STEPS])
def test_the_default_path_learns_the_same_whatever_lies_in_the_rows_it_is_scored_on(
    made: Pipeline, tmp_path: Path, steps: str
) -> None:
    chosen = made if steps == "default" else Pipeline(tmp_path, *SMALL, "tuning=none", f"model.preprocess={steps}")
    plan = chosen.plan()
    data = load(plan, made.lake)
    parts = split(plan, data)
    model = plan.horizon.model
    clean = learn(model, data, parts.train, parts.valid)
    others = np.setdiff1d(np.arange(len(data.y)), np.concatenate([parts.train, parts.valid]))
    again = learn(model, spoiled(data, others), parts.train, parts.valid)
    assert again.text == clean.text
    assert again.preprocess.to_dict() == clean.preprocess.to_dict()
    assert (steps == "default") == (clean.preprocess.to_dict() == {})
    # And the rows it does learn from are not without effect.
    assert learn(model, spoiled(data, parts.train), parts.train, parts.valid).text != clean.text


def test_out_of_fold_predictions_do_not_change_with_what_was_not_known_yet(made: Pipeline) -> None:
    plan = made.plan()
    data = load(plan, made.lake)
    cuts = folds(plan, data)
    first = cuts[0]
    before = out_of_fold(plan, plan.horizon.model, data, [first]).select("prediction", "novelty")
    future = np.setdiff1d(np.arange(len(data.y)), np.concatenate([first.train, first.valid, first.test]))
    later = future[data.timestamp[future] > data.timestamp[first.test].max()]
    assert len(later) > 100
    after = out_of_fold(plan, plan.horizon.model, spoiled(data, later), [first])
    assert after.select("prediction", "novelty").equals(before)
    spoilt = out_of_fold(plan, plan.horizon.model, spoiled(data, first.train[::2]), [first])
    assert not spoilt["novelty"].equals(before["novelty"])
    held = split(plan, data).test
    trained = learn(plan.horizon.model, data, first.train, first.valid)
    assert len(predict(trained, data, held)) == len(held)
