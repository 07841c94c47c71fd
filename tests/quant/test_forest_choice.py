"""Which evaluator walks a forest: the fastest measured one for that many rows."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quant import forest, forest_choice
from quant.forest_choice import SIZES, available, fastest, fixed, measure, nearest, shape
from tests.quant.forests import table, train


@pytest.fixture(scope="module")
def compiled():
    return forest.compile(train({"objective": "regression", "num_leaves": 15}, 20))


def test_the_fastest_at_each_size_is_chosen_and_sizes_between_count_to_the_nearer_by_ratio():
    choice = fastest({"native": {1: 1e-6, 8: 8e-6, 64: 64e-6}, "gpu": {1: 5e-5, 8: 5e-5, 64: 5e-5}})
    assert [choice.of(rows) for rows in (0, 1, 8, 22, 23, 64, 10**6)] == ["native"] * 4 + ["gpu"] * 3
    assert str(choice) == "native, gpu from 23 rows"


def test_what_became_too_slow_to_time_is_not_chosen_above():
    choice = fastest({"mlx": {1: 1e-6, 8: 1e-3}, "native": {1: 2e-6, 8: 2e-3, 64: 3e-3}})
    assert [choice.of(rows) for rows in (1, 8, 64)] == ["mlx", "mlx", "native"]


def test_a_fixed_choice_holds_for_every_number_of_rows():
    assert {fixed("mlx").of(rows) for rows in (0, 1, 77, 10**7)} == {"mlx"}
    assert str(fixed("mlx")) == "mlx"


@given(st.lists(st.integers(1, 10**6), min_size=1, unique=True).map(sorted), st.integers(1, 10**7))
def test_the_evaluator_of_the_nearest_size_by_ratio_is_chosen(sizes, rows):
    choice = fastest({str(size): {size: 1.0} for size in sizes})
    near = min(abs(math.log(rows / size)) for size in sizes)
    assert abs(math.log(rows / int(choice.of(rows)))) == pytest.approx(near)


def test_measuring_times_every_evaluator_that_runs_here_at_rising_sizes(compiled, monkeypatch):
    monkeypatch.setattr(forest_choice, "ENOUGH", 0.0)
    timings = measure(compiled, table(50, seed=1))
    assert set(timings) == set(available())
    for name, taken in timings.items():
        assert tuple(taken) == SIZES[: len(taken)], name
        assert all(0 < seconds < 60 for seconds in taken.values())
    assert timings["native"][SIZES[0]] < timings["native"][SIZES[-1]]


def test_batches_that_would_outlast_the_patience_are_not_tried(compiled, monkeypatch):
    monkeypatch.setattr(forest_choice, "ENOUGH", 0.0)
    monkeypatch.setattr(forest_choice, "PATIENCE", 0.0)
    assert all(tuple(taken) == SIZES[:1] for taken in measure(compiled, table(50, seed=1)).values())


def test_a_retrained_forest_has_the_shape_of_the_one_before_and_another_has_not():
    params = {"objective": "regression", "num_leaves": 31}
    one, again = (shape(forest.compile(train(params, 40, seed=seed))) for seed in (0, 1))
    assert one == again
    assert one[:2] == (64, 32)
    assert shape(forest.compile(train(params, 200)))[:2] == (256, 32)
    assert shape(forest.compile(train(params | {"num_leaves": 63}, 40)))[:2] == (64, 64)


def test_the_nearest_known_shape_is_the_closest_by_ratio():
    assert nearest((256, 32, 64), [(64, 32, 64), (1024, 64, 64), (512, 32, 64)]) == (512, 32, 64)
    assert nearest((256, 32, 64), []) is None


def test_rows_of_a_batch_repeat_the_typical_ones(compiled, monkeypatch):
    seen = {}
    monkeypatch.setattr(forest_choice, "ENOUGH", 0.0)
    monkeypatch.setattr(type(compiled), "raw", lambda _, X, name: seen.setdefault(len(X), X))
    X = table(10, seed=3)
    measure(compiled, X, ["native"])
    assert tuple(seen) == SIZES
    assert all(np.array_equal(seen[64][at], X[at % 10], equal_nan=True) for at in range(64))
