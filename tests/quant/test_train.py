"""One fit: deterministic, blind to the test rows, honest about what it cannot train on."""

from typing import Any

import numpy as np
import pytest

from quant import forest
from quant.folds import Split, holdout
from quant.train import Trained, fit

NAMES = ("momentum", "noise", "empty", "rank")


def market(rows: int = 4000) -> tuple[np.ndarray, np.ndarray, Split]:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(rows, 4)).astype(np.float32)
    X[:, 2] = np.nan
    y = 0.5 * X[:, 0] + rng.normal(size=rows)
    time = np.repeat(np.arange(rows // 10), 10)
    return X, y, holdout(time, time + 3, valid=0.2, test=0.2, embargo=3)


def train(X: np.ndarray, y: np.ndarray, split: Split, **changes: Any) -> Trained:
    params = {"num_leaves": 7, "bagging_fraction": 0.7, "bagging_freq": 1, "feature_fraction": 0.7}
    params |= changes.pop("params", {})
    given = {"names": NAMES, "seed": 1, "rounds": 60, "early_stopping_rounds": 10} | changes
    return fit(X, y, split, params, **given)


def test_the_same_rows_and_seed_give_the_same_model_and_another_seed_another():
    first = train(*market())
    assert first == train(*market())
    assert first.text != train(*market(), seed=2).text


def test_the_number_of_threads_does_not_change_a_tree():
    one, two = (train(*market(), params={"num_threads": count}) for count in (1, 2))
    assert one.text.partition("\nparameters:")[0] == two.text.partition("\nparameters:")[0]


def test_the_test_rows_are_never_looked_at():
    X, y, split = market()
    before = train(X, y, split)
    X[split.test], y[split.test] = np.nan, np.nan
    assert train(X, y, split) == before


def test_bins_come_from_the_training_rows_alone():
    X, y, split = market()
    X[split.valid, 0] *= 1000
    infos = next(line for line in train(X, y, split).text.split("\n") if line.startswith("feature_infos="))
    highest = float(infos.split("=")[1].split(" ")[0].strip("[]").split(":")[1])
    assert highest == pytest.approx(X[split.train, 0].max())


def test_training_stops_early_and_the_text_holds_the_best_iteration_only():
    X, y, split = market()
    trained = train(X, y, split, rounds=500)
    valid = trained.curve["valid"]["l2"]
    assert trained.best_iteration == int(np.argmin(valid)) + 1 < len(valid) < 500
    assert len(forest.compile(trained.text).roots) == trained.best_iteration


def test_the_signal_carries_the_gain_and_an_empty_column_none():
    importance = train(*market()).importance
    assert list(importance) == list(NAMES)
    assert importance["momentum"] == max(importance.values())
    assert importance["empty"] == 0


def test_a_constant_label_gives_a_model_that_predicts_the_constant():
    X, y, split = market()
    trained = train(X, np.full_like(y, 0.25), split)
    np.testing.assert_allclose(forest.compile(trained.text).predict(X), 0.25, rtol=1e-6)


def test_factors_without_any_value_give_the_mean():
    X, y, split = market()
    trained = train(np.full_like(X, np.nan), y, split)
    np.testing.assert_allclose(forest.compile(trained.text).predict(X), y[split.train].mean(), rtol=1e-3)


def test_too_few_rows_are_refused_with_every_count():
    X, y, _ = market()
    few = holdout(np.arange(150), np.arange(150), valid=0.4, test=0.4, embargo=0)
    with pytest.raises(ValueError, match=r"30 training rows are too few.*'rows': 150"):
        train(X[:150], y[:150], few)


def test_a_label_that_is_not_finite_is_refused_with_its_part():
    X, y, split = market()
    y[split.valid[:2]] = np.nan
    with pytest.raises(ValueError, match=f"2 of {len(split.valid)} valid labels"):
        train(X, y, split)


def test_rows_of_another_type_or_shape_are_refused():
    X, y, split = market()
    with pytest.raises(ValueError, match="float64"):
        train(X.astype(np.float64), y, split)
    with pytest.raises(ValueError, match=r"\[4000, 3\].*\(4\)"):
        train(X[:, :3], y, split)
