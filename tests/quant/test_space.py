"""Ranges and choices: what a trial may draw, and that Optuna draws nothing else."""

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quant.space import Range, distributions, inside


@pytest.mark.parametrize(
    ("choice", "held", "not_held"),
    [
        (Range(2, 64), [2, 3, 64], [1, 65, 2.5, True, "2", None]),
        (Range(2, 64, log=True), [2, 63], [1]),
        (Range(5, 20, step=5), [5, 10, 20], [7, 4]),
        (Range(0.2, 1.0, step=0.1), [0.2, 0.30000000000000004, 0.8, 1.0, 1], [0.25, 1.1]),
        (Range(0.0, 1.0), [0, 0.123], [-0.1, 1.0001]),
    ],
)
def test_a_range_holds_its_ends_and_its_steps_and_nothing_else(
    choice: Range, held: list[object], not_held: list[object]
) -> None:
    assert all(choice.holds(value) for value in held)  # type: ignore[arg-type]
    assert not any(choice.holds(value) for value in not_held)  # type: ignore[arg-type]


ends = st.integers(1, 1000)


@settings(max_examples=50)
@given(low=ends, more=ends, log=st.booleans(), whole=st.booleans(), seed=st.integers(0, 10))
def test_what_optuna_draws_is_inside_the_space_and_of_its_type(
    low: int, more: int, log: bool, whole: bool, seed: int
) -> None:
    kind = int if whole else float
    space = {"a": Range(kind(low), kind(low + more), log=log), "b": [None, True, 3]}
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    drawn = study.ask(distributions(space)).params
    assert inside(space, drawn)
    assert type(drawn["a"]) is kind


def test_parameters_that_lack_one_of_the_space_are_not_inside_it() -> None:
    space = {"a": Range(1, 3), "b": [1, 2]}
    assert inside(space, {"a": 2, "b": 2, "other": 9})
    assert not inside(space, {"a": 2})
    assert not inside(space, {"a": 2, "b": None})
