"""Preprocessing learns from training rows alone, and treats a row alike wherever it comes from."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import StandardScaler

from quant.preprocess import Preprocess, Steps, learned, rank_ic

TRAIN = np.arange(0, 300)
ALL = Steps(coverage=0.3, best=4, winsorize=0.05, impute=True, standardize=True)


def table(rows: int = 500, columns: int = 6) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    chance = np.random.default_rng(0)
    X = (chance.standard_t(3, (rows, columns)) * [1, 5, 0.1, 1, 1, 1] + 2).astype(np.float32)
    X[chance.random(X.shape) < 0.1] = np.nan
    X[:, 4] = np.where(chance.random(rows) < 0.9, np.nan, X[:, 4])
    y = np.nan_to_num(X[:, 1]) * 0.1 - np.nan_to_num(X[:, 2]) * 5 + chance.normal(size=rows)
    return X, y, np.repeat(np.arange(rows // 5), 5)


def test_rows_outside_training_change_nothing_that_is_learned() -> None:
    X, y, section = table()
    before = learned(X, y, section, TRAIN, ALL)
    X[300:], y[300:] = 1e6, -1e6
    assert learned(X, y, section, TRAIN, ALL).to_dict() == before.to_dict()


def test_a_scaler_fitted_on_everything_is_another_one() -> None:
    X, y, section = table()
    X[300:] *= 3
    everything = learned(X, y, section, np.arange(500), ALL)
    assert everything.to_dict() != learned(X, y, section, TRAIN, ALL).to_dict()


def test_imputing_and_scaling_are_scikit_learns() -> None:
    X, y, section = table()
    found = learned(X, y, section, TRAIN, Steps(impute=True)).apply(X)
    np.testing.assert_allclose(found, SimpleImputer(strategy="median").fit(X[TRAIN]).transform(X), rtol=1e-6)
    found = learned(X, y, section, TRAIN, Steps(standardize=True)).apply(X)
    np.testing.assert_allclose(found, StandardScaler().fit(X[TRAIN].astype(float)).transform(X), rtol=1e-4, atol=1e-5)


def test_winsorized_values_lie_between_the_quantiles_of_training_and_missing_ones_stay_missing() -> None:
    X, y, section = table()
    found = learned(X, y, section, TRAIN, Steps(winsorize=0.1)).apply(X)
    low, high = np.nanquantile(X[TRAIN].astype(float), [0.1, 0.9], axis=0)
    np.testing.assert_allclose(found, np.clip(X, low.astype(np.float32), high.astype(np.float32)))
    assert (np.isnan(found) == np.isnan(X)).all()


def test_the_factors_kept_are_covered_and_correlate_most() -> None:
    X, y, section = table()
    made = learned(X, y, section, TRAIN, Steps(coverage=0.3, best=2))
    assert np.flatnonzero(made.kept).tolist() == [1, 2]
    assert np.isnan(made.apply(X)[:, [0, 3, 4, 5]]).all()
    np.testing.assert_array_equal(made.apply(X)[:, [1, 2]], X[:, [1, 2]])
    assert np.flatnonzero(learned(X, y, section, TRAIN, Steps(coverage=0.3)).kept).tolist() == [0, 1, 2, 3, 5]


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=60))
def test_the_rank_ic_is_the_mean_of_scipys(rows: list[tuple[int, int, int]]) -> None:
    section, x, y = (np.array(column) for column in zip(*rows, strict=True))
    found = []
    for of in sorted(set(section.tolist())):
        a, b = x[section == of], y[section == of]
        if len(set(a)) > 1 and len(set(b)) > 1:
            found.append(spearmanr(a, b).statistic)
    expected = np.mean(found) if found else 0.0
    assert rank_ic(x.astype(np.float32), y.astype(float), section) == pytest.approx(expected, abs=1e-12)


def test_what_a_bundle_keeps_of_it_does_the_same_to_the_bit_and_to_single_rows() -> None:
    X, y, section = table()
    X[:, 3] = np.nan  # a factor without any value
    for steps in (ALL, Steps(winsorize=0.01), Steps(standardize=True), Steps(impute=True), Steps(best=1)):
        made = learned(X, y, section, TRAIN, steps)
        read = Preprocess.from_dict(json.loads(json.dumps(made.to_dict(), allow_nan=False)))
        whole = made.apply(X)
        assert read.apply(X).tobytes() == whole.tobytes()
        assert read.apply(X[7:8]).tobytes() == whole[7:8].tobytes()
        assert whole.dtype == np.float32


def test_without_steps_the_rows_are_left_as_they_are() -> None:
    X, y, section = table()
    assert learned(X, y, section, TRAIN, Steps()).apply(X) is X
    assert not Steps().any
