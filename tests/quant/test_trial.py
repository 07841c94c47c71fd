"""A trial in a fold: the score of what `fit` would have trained, from bins made once."""

from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy.stats import pearsonr, spearmanr

from quant import trial as module
from quant.folds import Fold, walk_forward
from quant.forest import compile as compile_forest
from quant.portfolio import Terms, book
from quant.train import fit
from quant.trial import Fixed, Learnable, Trainer

SECTIONS, SYMBOLS, FACTORS = 150, 8, 5
PARAMS = {"objective": "regression", "num_leaves": 7, "min_data_in_leaf": 20, "max_bin": 63, "bagging_fraction": 0.7,
          "bagging_freq": 1, "feature_fraction": 0.6}  # fmt: skip


@pytest.fixture(scope="module")
def data() -> Learnable:
    rng = np.random.default_rng(5)
    rows = SECTIONS * SYMBOLS
    X = rng.standard_normal((rows, FACTORS)).astype(np.float32)
    X[rng.random(X.shape) < 0.05] = np.nan
    y = 0.4 * np.nan_to_num(X[:, 0]) + rng.standard_normal(rows)
    time = np.repeat(np.datetime64("2024-01-01", "us") + np.arange(SECTIONS) * np.timedelta64(1, "h"), SYMBOLS)
    symbols = [f"S{number}" for number in range(SYMBOLS)] * SECTIONS
    frame = pl.DataFrame({"time": time, "symbol": symbols, "outcome": y})
    return Learnable(tuple("abcde"), X, y, rng.uniform(0.5, 2, rows), time, frame)


@pytest.fixture(scope="module")
def folds(data: Learnable) -> list[Fold]:
    end = data.section + np.timedelta64(3, "h")
    return walk_forward(data.section, end, folds=3, share=0.5, embargo=3, valid=0.2)


def fixed(metric: Any = "rank_ic", **params: Any) -> Fixed:
    return Fixed({**PARAMS, **params}, 40, 5, 7, metric, Terms(holding=3, cost_bps=2.0))


def fitted(data: Learnable, fold: Fold, **params: Any) -> np.ndarray:
    """The fold's predictions by the function that trains the final model."""
    given = {**PARAMS, **params}
    rounds = given.pop("n_estimators", 40)
    trained = fit(data.X, data.target, fold.train, fold.valid, given, names=data.names, seeds=[7], rounds=rounds,
                  early_stopping_rounds=5, weight=data.weight, section=data.section)  # fmt: skip
    return compile_forest(trained.text).predict(data.X[fold.test])


@pytest.mark.parametrize(("metric", "correlation"), [("rank_ic", spearmanr), ("ic", pearsonr)])
def test_the_score_is_the_mean_over_sections_of_scipys_correlation_with_the_model_that_fit_trains(
    data: Learnable, folds: list[Fold], metric: Any, correlation: Any
) -> None:
    trainer = Trainer(data, folds, fixed(metric))
    searched = {"num_leaves": 5, "min_data_in_leaf": 40, "learning_rate": 0.2}
    for number, fold in enumerate(folds):
        found = trainer(searched, number)
        predicted = fitted(data, fold, **searched).reshape(-1, SYMBOLS)
        outcome = data.target[fold.test].reshape(-1, SYMBOLS)
        expected = [correlation(a, b).statistic for a, b in zip(predicted, outcome, strict=True)]
        assert found.score == pytest.approx(np.mean(expected), abs=1e-9)


def test_trials_one_after_the_other_score_as_each_alone_whatever_they_change(
    data: Learnable, folds: list[Fold]
) -> None:
    """Bins are shared: what one trial set must not be there for the next."""
    trials: list[dict[str, Any]] = [
        {"min_data_in_leaf": 100}, {"min_data_in_leaf": 5}, {"max_bin": 15}, {"max_bin": 63, "feature_fraction": 1.0},
        {"n_estimators": 3}, {"lambda_l2": 50.0, "extra_trees": True}, {},
    ]  # fmt: skip
    shared = Trainer(data, folds, fixed())
    together = [shared(params, fold) for params in trials for fold in (0, 2)]
    alone = [Trainer(data, folds, fixed())(params, fold) for params in trials for fold in (0, 2)]
    assert [found.score for found in together] == [found.score for found in alone]
    assert len({found.score for found in together}) == len(together), "each change changes the model"
    for a, b in zip(together, alone, strict=True):
        np.testing.assert_array_equal(a.returns, b.returns)


def test_rows_are_binned_once_per_fold_and_anew_only_for_other_bins(
    data: Learnable, folds: list[Fold], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []
    really = module.bin_rows

    def counted(*given: Any, **named: Any) -> Any:
        made.append(given[4].get("max_bin"))
        return really(*given, **named)

    monkeypatch.setattr(module, "bin_rows", counted)
    trainer = Trainer(data, folds, fixed())
    for leaves in (5, 9, 13):
        for fold in range(3):
            trainer({"num_leaves": leaves, "min_data_in_leaf": 10 * leaves}, fold)
    assert made == [63, 63, 63]
    trainer({"max_bin": 31}, 1)
    trainer({"max_bin": 31, "num_leaves": 4}, 1)
    assert made == [63, 63, 63, 31]


def test_the_returns_are_those_of_the_book_on_the_test_rows_net_of_costs(data: Learnable, folds: list[Fold]) -> None:
    trainer = Trainer(data, folds, fixed())
    found = trainer({"num_leaves": 5}, 1)
    frame = data.rows[folds[1].test].with_columns(
        p=pl.Series(fitted(data, folds[1], num_leaves=5)), earned=pl.col("outcome")
    )
    expected = book(frame, "p", Terms(holding=3, cost_bps=2.0))
    np.testing.assert_allclose(found.returns, expected.net, atol=1e-6)
    np.testing.assert_array_equal(trainer.times()[1], expected.time)
    assert book(frame, "p", Terms(holding=3, cost_bps=0.0)).net.sum() > expected.net.sum()


def test_a_loss_weighs_rows_as_training_does(data: Learnable, folds: list[Fold]) -> None:
    found = Trainer(data, folds, fixed("loss"))({}, 0)
    test = folds[0].test
    error = fitted(data, folds[0]) - data.target[test]
    assert data.weight is not None
    assert found.score == pytest.approx(np.average(error**2, weights=data.weight[test]))


def test_a_model_that_tells_no_symbol_from_another_has_no_skill(data: Learnable, folds: list[Fold]) -> None:
    found = Trainer(data, folds, fixed())({"min_data_in_leaf": 100_000}, 0)
    assert found.score == 0.0
    np.testing.assert_array_equal(found.returns, 0)


def test_a_ranking_objective_is_searched_too(data: Learnable, folds: list[Fold]) -> None:
    graded = replace(data, target=np.tile(np.arange(SYMBOLS, dtype=float) % 4, SECTIONS), weight=None)
    found = Trainer(graded, folds, fixed(objective="lambdarank"))({"num_leaves": 5}, 0)
    assert np.isfinite(found.score)


def test_a_chance_below_a_half_is_a_short_position(data: Learnable, folds: list[Fold]) -> None:
    """One symbol, classes: the book goes with the prediction's side of a half, not with a sign that is always plus."""
    alone = data.rows["symbol"].to_numpy() == "S0"
    X, y = data.X[alone], data.rows["outcome"].to_numpy()[alone]
    sign = (y > 0).astype(float)
    one = Learnable(data.names, X, sign, None, data.section[alone], data.rows.filter(pl.Series(alone)))
    ends = one.section + np.timedelta64(3, "h")
    [fold] = walk_forward(one.section, ends, folds=1, share=0.4, embargo=3, valid=0.2)
    params = {**PARAMS, "objective": "binary", "min_data_in_leaf": 5, "bagging_fraction": 1.0}
    found = Trainer(one, [fold], replace(fixed(), params=params, terms=Terms(1, 0.0)))({}, 0)
    trained = fit(X, sign, fold.train, fold.valid, params, names=data.names, seeds=[7], rounds=40,
                  early_stopping_rounds=5, section=one.section)  # fmt: skip
    chance = compile_forest(trained.text).predict(X[fold.test])
    assert (chance < 0.5).any()
    assert (chance > 0.5).any()
    np.testing.assert_allclose(found.returns, (np.sign(chance - 0.5) * y[fold.test]).astype(np.float32), rtol=1e-6)
