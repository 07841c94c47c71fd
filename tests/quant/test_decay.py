"""Realized scores against promised ones: the test errs as often as it says, and sees what is there."""

import numpy as np
import pytest
from scipy import stats

from quant.decay import decay

ASKED = {"kept": 0.5, "level": 0.05, "min_sections": 30, "overlap": 0}


def test_independent_scores_are_tested_as_welch_would() -> None:
    """With many sections and few lags the p of Welch's t-test of the realized ones against half of the promised."""
    random = np.random.default_rng(1)
    for _ in range(20):
        realized, promised = random.normal(0.02, 0.1, 3000), random.normal(0.05, 0.1, 3000)
        found = decay(realized, promised, **ASKED)
        welch = stats.ttest_ind(realized, promised * 0.5, equal_var=False, alternative="less")
        assert found.p == pytest.approx(welch.pvalue, abs=0.03)


@pytest.mark.parametrize("overlap", [0, 5])
def test_a_model_that_keeps_just_what_is_asked_is_blamed_no_more_often_than_the_level(overlap: int) -> None:
    random = np.random.default_rng(2)
    draws, blamed = 1500, 0
    shape = np.ones(overlap + 1) / np.sqrt(overlap + 1)
    for _ in range(draws):
        realized = np.convolve(random.normal(0.0, 0.2, 120 + overlap), shape, "valid") + 0.02
        promised = np.convolve(random.normal(0.0, 0.2, 240 + overlap), shape, "valid") + 0.04
        blamed += decay(realized, promised, **{**ASKED, "overlap": overlap}).decayed
    low, high = stats.binom.interval(0.999, draws, 0.05)
    assert low * 0.4 <= blamed <= high  # overlapping labels: the errors are a little too wide, never too small


def test_a_model_that_lost_its_skill_is_found_and_one_that_kept_it_is_not() -> None:
    random = np.random.default_rng(3)
    promised = random.normal(0.06, 0.15, 400)
    assert decay(random.normal(-0.03, 0.15, 300), promised, **ASKED).decayed
    kept = decay(random.normal(0.06, 0.15, 300), promised, **ASKED)
    assert not kept.decayed
    assert "not shown to be below 0.5 of the promised" in kept.why


def test_too_few_sections_and_a_promise_of_nothing_are_no_decay_and_say_so() -> None:
    few = decay(np.full(29, -1.0), np.full(400, 0.1), **ASKED)
    assert (few.decayed, few.why[:42]) == (False, "29 realized and 400 promised sections have")
    assert np.isnan(few.p)
    nothing = decay(np.full(50, -1.0), np.full(400, -0.1), **ASKED)
    assert (nothing.decayed, "promised nothing" in nothing.why) == (False, True)


def test_scores_that_never_vary_are_compared_as_they_are() -> None:
    assert decay(np.full(50, 0.01), np.full(400, 0.1), **ASKED).decayed
    assert not decay(np.full(50, 0.09), np.full(400, 0.1), **ASKED).decayed
