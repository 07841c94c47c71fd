"""One fit: deterministic, blind to the test rows, honest about what it cannot train on."""

from typing import Any

import numpy as np
import pytest

from quant import forest
from quant.ensemble import average
from quant.folds import Split, holdout
from quant.preprocess import Steps
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
    given = {"names": NAMES, "seeds": [1], "rounds": 60, "early_stopping_rounds": 10} | changes
    return fit(X, y, split.train, split.valid, params, **given)


def test_the_same_rows_and_seed_give_the_same_model_and_another_seed_another():
    first = train(*market())
    assert first == train(*market())
    assert first.text != train(*market(), seeds=[2]).text


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


def test_too_few_rows_are_refused_with_their_counts():
    X, y, _ = market()
    few = holdout(np.arange(150), np.arange(150), valid=0.4, test=0.4, embargo=0)
    with pytest.raises(ValueError, match="30 training rows and 60 valid rows are too few of 150"):
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


def test_several_seeds_make_one_model_whose_score_is_the_mean_of_theirs():
    X, y, split = market()
    alone = [train(X, y, split, seeds=[seed]) for seed in (1, 2, 3)]
    together = train(X, y, split, seeds=[1, 2, 3])
    assert together.text == average([one.text for one in alone])
    expected = np.mean([forest.compile(one.text).predict(X) for one in alone], axis=0)
    np.testing.assert_allclose(forest.compile(together.text).predict(X), expected, rtol=0, atol=1e-9)
    assert together.trees == {seed: one.best_iteration for seed, one in zip((1, 2, 3), alone, strict=True)}
    assert together.best_iteration == sum(together.trees.values())
    assert together.importance["momentum"] == pytest.approx(np.mean([one.importance["momentum"] for one in alone]))


def test_a_leaf_is_the_weighted_mean_of_its_rows():
    X, y, split = market()
    params = {"bagging_fraction": 1.0, "bagging_freq": 0, "feature_fraction": 1.0, "boost_from_average": False}
    params |= {"min_sum_hessian_in_leaf": 0.0, "min_data_in_leaf": 1, "num_leaves": 2}
    heavy = split.train[::2]
    weight = np.ones(len(y))
    weight[heavy] = 3
    found = train(X, y, split, params=params, weight=weight, rounds=1)
    left = X[split.train, 0] <= _threshold(found.text)
    for side in (left, ~left):
        expected = np.average(y[split.train][side], weights=weight[split.train][side]) * 0.1
        row = np.flatnonzero(side)[:1]
        assert forest.compile(found.text).predict(X[split.train[row]])[0] == pytest.approx(expected, rel=1e-5)


def _threshold(text: str) -> float:
    return float(next(line for line in text.split("\n") if line.startswith("threshold=")).split("=")[1].split(" ")[0])


def test_only_the_proportions_of_weights_matter():
    X, y, split = market()
    weight = np.random.default_rng(1).uniform(0.5, 2, len(y))
    assert train(X, y, split, weight=weight * 4).text == train(X, y, split, weight=weight).text
    assert train(X, y, split, weight=weight).text != train(X, y, split).text


def test_weights_that_weigh_nothing_are_refused():
    X, y, split = market()
    weight = np.ones(len(y))
    weight[split.train[0]] = 0
    with pytest.raises(ValueError, match="weights of train rows"):
        train(X, y, split, weight=weight)


@pytest.mark.parametrize("objective", ["lambdarank", "rank_xendcg"])
def test_a_ranking_model_orders_the_rows_of_each_section(objective):
    X, y, split = market()
    section = np.repeat(np.arange(len(y) // 10), 10)
    grade = np.floor(np.argsort(np.argsort(y.reshape(-1, 10), axis=1), axis=1).ravel() / 2).astype(float)
    made = train(X, grade, split, params={"objective": objective}, section=section)
    assert made.objective == objective
    assert list(made.curve["valid"]) == [f"ndcg@{2**30}"]
    predicted = forest.compile(made.text).predict(X[split.test])
    assert np.corrcoef(predicted, X[split.test, 0])[0, 1] > 0.8
    with pytest.raises(ValueError, match="give the section of each row"):
        train(X, grade, split, params={"objective": objective})
    with pytest.raises(ValueError, match="rows of one section are apart"):
        train(X, grade, split, params={"objective": objective}, section=section[::-1] % 7)


def test_a_binary_model_predicts_probabilities():
    X, y, split = market()
    made = train(X, (y > 0).astype(float), split, params={"objective": "binary"})
    predicted = forest.compile(made.text).predict(X[split.test])
    assert 0 < predicted.min() < 0.35 < 0.65 < predicted.max() < 1
    assert predicted.mean() == pytest.approx((y > 0).mean(), abs=0.05)


def test_preprocessing_is_learned_from_the_training_rows_and_part_of_the_model():
    X, y, split = market()
    steps = Steps(winsorize=0.05, best=2, standardize=True)
    made = train(X, y, split, steps=steps)
    X[split.valid[-1]], X[split.test] = 1e9, 1e9
    again = train(X, y, split, steps=steps)
    assert again.preprocess.to_dict() == made.preprocess.to_dict()
    assert np.flatnonzero(made.preprocess.kept).tolist()[0] == 0
    assert sum(gain > 0 for gain in made.importance.values()) <= 2
    infos = next(line for line in made.text.split("\n") if line.startswith("feature_infos="))
    seen = made.preprocess.apply(X[split.train])[:, 0]
    highest = float(infos.split("=")[1].split(" ")[0].strip("[]").split(":")[1])
    assert highest == pytest.approx(seen.max(), rel=1e-6)
