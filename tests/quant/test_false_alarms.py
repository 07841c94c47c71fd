"""What a calibration can promise, and how many false alarms there may then be: by counting, and by the check itself."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from quant.drift import Calibration, Compared, judge
from quant.false_alarms import band, law, rate_of, total


@pytest.mark.parametrize(
    ("independent", "asked", "promised", "exceed"),
    [(99, 0.01, 1 / 100, 0), (60, 0.01, 1 / 61, 0), (60, 0.05, 3 / 61, 2), (199, 0.01, 2 / 200, 1), (8, 0.5, 4 / 9, 3)],
)
def test_the_rate_is_what_so_many_independent_windows_can_promise(
    independent: int, asked: float, promised: float, exceed: int
) -> None:
    assert rate_of(independent, asked) == (pytest.approx(promised), exceed)


@given(st.integers(2, 500), st.floats(0.001, 0.5))
def test_no_rate_is_promised_above_what_was_asked_for_unless_it_is_the_least_there_is(
    windows: int, asked: float
) -> None:
    promised, exceed = rate_of(windows, asked)
    assert promised <= asked + 1e-9 or exceed == 0
    assert promised == (exceed + 1) / (windows + 1)
    assert (exceed + 2) / (windows + 1) > asked - 1e-9  # one more would be too many


@pytest.mark.parametrize(("windows", "independent", "rate"), [(1, 4, 0.1), (3, 6, 0.3), (5, 7, 0.5)])
def test_the_law_is_that_of_all_orders_of_windows_counted_one_by_one(
    windows: int, independent: int, rate: float
) -> None:
    """Every choice of ranks that the new windows may have among all is as likely as every other."""
    _, exceed = rate_of(independent, rate)
    counted = np.zeros(windows + 1)
    for new in combinations(range(windows + independent), windows):
        level = sorted(set(range(windows + independent)) - {*new})[independent - 1 - exceed]
        counted[sum(rank > level for rank in new)] += 1
    assert law(windows, independent, rate) == pytest.approx(counted / counted.sum())


@given(st.integers(1, 60), st.integers(2, 200), st.floats(0.005, 0.5))
def test_the_law_s_mean_is_the_promised_rate_and_it_varies_no_less_than_a_binomial(
    windows: int, independent: int, rate: float
) -> None:
    chances, numbers = law(windows, independent, rate), np.arange(windows + 1)
    promised, _ = rate_of(independent, rate)
    mean = float(chances @ numbers)
    assert mean == pytest.approx(windows * promised)
    assert chances @ (numbers - mean) ** 2 >= windows * promised * (1 - promised) * (1 - 1e-9)


def test_the_check_itself_alarms_by_that_law() -> None:
    """26 windows of one market after 60 of its training, drawn alike; the threshold is the same for all of them."""
    random, seen = np.random.default_rng(5), np.zeros(27)
    for _ in range(1500):
        drawn = random.lognormal(size=(86, 1))
        made = Calibration(("only",), drawn[:60], 60, 300)
        [column] = judge(Compared(drawn[60], (1, 1), (1, 1)), made, rate=0.05, share=0.0).columns
        assert column.drifted == (drawn[60] > column.threshold)
        seen[(drawn[60:] > column.threshold).sum()] += 1
    chances = law(26, 60, 0.05)
    grouped = np.array([[*each[:6], each[6:].sum()] for each in (seen, 1500 * chances)])
    assert stats.chisquare(*grouped).pvalue > 0.001
    binomial = 1500 * stats.binom(26, 3 / 61).pmf(np.arange(27))
    assert stats.chisquare(grouped[0], [*binomial[:6], binomial[6:].sum()]).pvalue < 0.001  # it would not have passed


def test_numbers_of_several_markets_add_up_and_the_band_leaves_out_what_it_says() -> None:
    one = law(26, 60, 0.05)
    three = total([one, one, law(10, 30, 0.1)])
    assert three.sum() == pytest.approx(1)
    assert three @ np.arange(len(three)) == pytest.approx(2 * 26 * 3 / 61 + 10 * 3 / 31)
    assert band(stats.binom(500, 0.3).pmf(np.arange(501)), 0.9) == stats.binom(500, 0.3).interval(0.9)
    low, high = band(three, 0.95)
    assert three[:low].sum() <= 0.025 < three[: low + 1].sum()
    assert three[high + 1 :].sum() <= 0.025 < three[high:].sum()
