"""Novelty against a search by hand in numpy and against scikit-learn; what it says of rows like and unlike training."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import kstest
from sklearn.neighbors import NearestNeighbors

from quant.nearest import GAP, mean_distances
from quant.novelty import LIMIT, Novelty, NoveltyError, fit

NAMES = ("a", "b", "c", "d", "e")
NONE = np.zeros(0, np.int64)
NUMBERS = st.floats(-4, 4, width=32) | st.just(float("nan"))


def distances(rows: np.ndarray, sample: np.ndarray, nearest: int) -> np.ndarray:
    found = np.empty(len(rows), np.float32)
    mean_distances(np.ascontiguousarray(rows), np.ascontiguousarray(sample.T), NONE, NONE, 0, 0, nearest, found)
    return found


def learned(X: np.ndarray, **changes: object) -> Novelty:
    given = {
        "columns": NAMES, "sample": 300, "neighbours": 5, "apart": 0, "seed": 1,
        "rows": np.arange(len(X)), "sections": np.arange(len(X)),
    }  # fmt: skip
    return fit(X, NAMES, **(given | changes))  # type: ignore[arg-type]


def market(rows: int = 3000, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal([0, 5, -3, 0, 100], [1, 2, 0.5, 1e-3, 30], (rows, 5)).astype(np.float32)


def test_distances_are_those_of_scikit_learn() -> None:
    random = np.random.default_rng(0)
    sample, rows = (random.normal(size=(count, 7)).astype(np.float32) for count in (500, 90))
    expected, _ = NearestNeighbors(n_neighbors=8, algorithm="brute").fit(sample).kneighbors(rows)
    np.testing.assert_allclose(distances(rows, sample, 8), expected.mean(axis=1), rtol=1e-5)


@settings(max_examples=60)
@given(arrays(np.float32, (3, 4), elements=NUMBERS), arrays(np.float32, (6, 4), elements=NUMBERS), st.integers(1, 6))
def test_a_number_that_one_of_two_rows_lacks_sets_them_apart(
    rows: np.ndarray, sample: np.ndarray, nearest: int
) -> None:
    squared = (rows[:, None].astype(float) - sample[None]) ** 2
    lacks = np.isnan(rows)[:, None].astype(int) + np.isnan(sample)[None]
    squared = np.where(lacks == 1, GAP, np.where(lacks == 2, 0, squared)).sum(axis=2)
    expected = np.sort(np.sqrt(squared), axis=1)[:, :nearest].mean(axis=1)
    np.testing.assert_allclose(distances(rows, sample, nearest), expected, rtol=1e-5, atol=1e-6)


def test_a_row_s_distance_does_not_depend_on_the_rows_beside_it() -> None:
    random = np.random.default_rng(0)
    sample, rows = (random.normal(size=(count, 64)).astype(np.float32) for count in (2048, 40))
    alone = np.concatenate([distances(row[None], sample, 10) for row in rows])
    assert alone.tobytes() == distances(rows, sample, 10).tobytes()


def test_a_row_is_compared_with_as_many_as_are_asked_for_and_none_near_in_time() -> None:
    random = np.random.default_rng(0)
    rows = random.normal(size=(50, 3)).astype(np.float32)
    when = np.arange(50)
    found = np.empty(50, np.float32)
    mean_distances(rows, np.ascontiguousarray(rows.T), when, when, 7, 30, 4, found)
    for n in range(50):
        others = rows[np.abs(when - n) >= 7][:30]
        expected = np.sort(np.linalg.norm(others - rows[n], axis=1))[:4].mean()
        assert found[n] == pytest.approx(expected, rel=1e-5)
    mean_distances(rows, np.ascontiguousarray(rows.T), when, when, 7, 40, 4, found)
    assert np.isnan(found).tolist() == [sum(abs(when - n) >= 7) < 40 for n in range(50)]
    mean_distances(rows, np.ascontiguousarray(rows.T), when, when, 48, 2, 4, found)
    assert np.isnan(found).all()  # at most two others are so far away


# To leave out a quarter of training on both sides, as short training does, must not let later rows look familiar.
@pytest.mark.parametrize("apart", [0, 30, 10_000])
@pytest.mark.parametrize("width", [2, 5, 40])
def test_rows_like_training_are_novel_to_every_degree_alike(apart: int, width: int) -> None:
    names = [f"f{number}" for number in range(width)]
    random = np.random.default_rng(9)
    train, later = (random.normal(size=(count, width)).astype(np.float32) for count in (6000, 4000))
    sections = np.arange(6000) // 20  # 300 of them, of 20 symbols
    given = {"columns": names, "rows": np.arange(6000), "sections": sections, "apart": apart, "seed": 1}
    found = fit(train, names, sample=1500, neighbours=10, **given).of(later, names)  # type: ignore[arg-type]
    assert ((found >= 0) & (found <= 1)).all()
    assert kstest(found, "uniform").statistic < 0.055  # 1.63 / sqrt(1500) at 1 %, and the sample's own error


def test_a_row_unlike_training_is_more_novel_than_all_of_it() -> None:
    measure = learned(market())
    far = market(5)
    far[:, 1] += 40
    assert (measure.of(far, NAMES) == 1).all()
    assert (measure.of(np.full((1, 5), np.nan, np.float32), NAMES) == 1).all()
    assert (measure.of(np.array([[np.inf, 5, -3, 0, 100]], np.float32), NAMES) == 1).all()


def test_a_pattern_of_missing_numbers_that_training_has_is_not_novel() -> None:
    X = market()
    X[::2, 2:] = np.nan
    measure = learned(X)
    row = market(200, seed=5)
    row[:, 2:] = np.nan
    usual = measure.of(row, NAMES).mean()
    assert usual < 0.6
    row[:, 1] = np.nan
    assert measure.of(row, NAMES).mean() > usual + 0.3


def test_units_do_not_matter() -> None:
    X, other = market(), market(100, seed=4)
    first = learned(X).of(other, NAMES)
    scale = np.array([1, 1000, 1e-3, 8, 2], np.float32)
    np.testing.assert_allclose(learned(X * scale).of(other * scale, NAMES), first, atol=0.01)


def test_columns_are_found_by_name_and_others_do_not_matter() -> None:
    X = market()
    measure = learned(X, columns=("d", "b"))
    other = market(50, seed=2)
    expected = measure.of(other, NAMES)
    wild = other.copy()
    wild[:, [0, 2, 4]] = 1e6
    np.testing.assert_array_equal(measure.of(wild, NAMES), expected)
    order = ("e", "d", "c", "b", "a")
    np.testing.assert_array_equal(measure.of(np.ascontiguousarray(other[:, ::-1]), order), expected)


def test_rows_that_are_not_training_change_nothing() -> None:
    X = market(2000)
    rows = np.arange(1000)
    other = X.copy()
    other[1000:] = 1e9
    first, second = (learned(one, rows=rows) for one in (X, other))
    assert first.dumps() == second.dumps()


def test_neighbours_in_time_do_not_make_training_look_familiar_to_itself() -> None:
    """States a few bars apart are nearly equal: measured against those, every later row would be novel."""
    random = np.random.default_rng(3)
    path = np.zeros((6000, 5), np.float32)
    for row in range(1, 6000):
        path[row] = 0.98 * path[row - 1] + random.normal(size=5) * 0.2
    train, later = np.arange(3000), path[4000:]
    given = {"rows": train, "sample": 1500}
    naive, apart = (learned(path, apart=bars, **given).of(later, NAMES).mean() for bars in (0, 200))
    assert naive > 0.8
    assert abs(apart - 0.5) < 0.12


def test_the_seed_draws_the_sample_and_the_same_one_each_time() -> None:
    X = market()
    assert learned(X).dumps() == learned(X).dumps()
    assert learned(X, seed=2).dumps() != learned(X).dumps()


def test_a_constant_or_empty_column_says_something_only_when_it_changes() -> None:
    X = market()
    X[:, 2], X[:, 4] = 7, np.nan
    measure, other = learned(X), market(300, seed=3)
    other[:, 2], other[:, 4] = 7, np.nan
    usual = measure.of(other, NAMES).mean()
    assert 0.4 < usual < 0.6
    changed = other.copy()
    changed[:, 2] = 8
    filled = other.copy()
    filled[:, 4] = 0
    assert measure.of(changed, NAMES).mean() > usual + 0.2
    assert measure.of(filled, NAMES).mean() > usual + 0.2


def test_it_survives_its_file_to_the_bit() -> None:
    measure, other = learned(market()), market(50, seed=2)
    again = Novelty.loads(measure.dumps())
    assert again.dumps() == measure.dumps()
    assert again.of(other, NAMES).tobytes() == measure.of(other, NAMES).tobytes()
    with pytest.raises(NoveltyError, match="not a whole novelty file"):
        Novelty.loads(measure.dumps()[:-9])


def test_one_wild_number_is_held_at_the_limit() -> None:
    measure = learned(market())
    far = replace(measure)._units(np.array([[1e30, 5, -3, 0, 100]], np.float32))
    assert far[0, 0] == LIMIT


def test_too_few_rows_are_told_with_what_to_do() -> None:
    with pytest.raises(NoveltyError, match=r"15 training rows are too few .* lower novelty\.neighbours"):
        learned(market(15))
