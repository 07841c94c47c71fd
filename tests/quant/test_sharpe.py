"""The deflated Sharpe ratio against the worked example of its paper, and overfitting against a count by hand."""

from itertools import combinations

import numpy as np
import pytest
from scipy import stats as scipy_stats

from quant.overfitting import overfitting
from quant.sharpe import Sharpe, deflated, deviation_of, luckiest, probabilistic, sharpe

# Bailey and López de Prado (2014), "The Deflated Sharpe Ratio", section "A numerical example": an annualised ratio of
# 2.5 over five years of 250 days, the best of 100 trials whose ratios have an annualised variance of 1/2; skewness -3,
# kurtosis 10. They find SR0 = 0.1132 a day and DSR = 0.9004; after 46 trials it is 0.9505.
DAYS, ANNUAL, SKEW, KURTOSIS, VARIANCE = 1250, 2.5, -3.0, 10.0, 0.5 / 250


def published() -> Sharpe:
    ratio = ANNUAL / np.sqrt(250)
    return Sharpe(ratio, deviation_of(ratio, DAYS, SKEW, KURTOSIS), SKEW, KURTOSIS, DAYS)


def test_the_luckiest_of_100_trials_is_the_papers():
    assert luckiest(VARIANCE, 100) == pytest.approx(0.1132, abs=5e-5)


@pytest.mark.parametrize(("trials", "expected"), [(100, 0.9004), (46, 0.9505)])
def test_the_deflated_sharpe_ratio_is_the_papers(trials, expected):
    assert deflated(published(), VARIANCE, trials) == pytest.approx(expected, abs=5e-5)


def test_the_expected_luck_is_that_of_drawn_trials():
    drawn = np.random.default_rng(0).normal(0, 0.3, size=(40_000, 50)).max(axis=1)
    assert luckiest(0.09, 50) == pytest.approx(drawn.mean(), rel=0.02)  # the formula is for many trials


def test_one_trial_has_no_luck():
    with pytest.raises(ValueError, match="at least 2"):
        luckiest(0.1, 1)


def test_without_overlap_the_ratio_is_mean_by_deviation_and_its_moments_are_scipys():
    x = np.random.default_rng(1).gamma(2, size=5000) - 1.9
    found = sharpe(x, 0)
    assert found.ratio == pytest.approx(x.mean() / x.std(), rel=0.05)  # Newey and West's few lags move it a little
    assert found.skew == pytest.approx(scipy_stats.skew(x))
    assert found.kurtosis == pytest.approx(scipy_stats.kurtosis(x, fisher=False))


def test_the_error_of_a_skewed_ratio_is_its_spread_over_worlds():
    rng = np.random.default_rng(2)
    found = [sharpe(0.5 - rng.exponential(size=400) ** 1.2 + 1.5, 0) for _ in range(600)]
    assert np.std([f.ratio for f in found]) == pytest.approx(np.mean([f.error for f in found]), rel=0.15)


def test_returns_that_never_move_have_no_ratio():
    assert np.isnan(sharpe(np.zeros(50), 3).ratio)
    assert np.isnan(probabilistic(sharpe(np.zeros(50), 3), 0.0))


def by_hand(returns: np.ndarray, blocks: int) -> float:
    """Every split, sorted out one trial at a time."""
    cut = np.array_split(np.arange(len(returns)), blocks)
    bad = []
    for chosen in combinations(range(blocks), blocks // 2):
        inside = returns[np.concatenate([cut[b] for b in chosen])]
        outside = returns[np.concatenate([cut[b] for b in range(blocks) if b not in chosen])]
        best = int(np.argmax(inside.mean(axis=0) / inside.std(axis=0)))
        rank = scipy_stats.rankdata(outside.mean(axis=0) / outside.std(axis=0))[best]
        bad.append(rank / (returns.shape[1] + 1) <= 0.5)
    return float(np.mean(bad))


@pytest.mark.parametrize(("trials", "blocks", "skill"), [(2, 4, 0.0), (7, 6, 0.1), (12, 8, 0.0)])
def test_the_probability_of_overfitting_is_a_count_of_splits(trials, blocks, skill):
    returns = np.random.default_rng(trials).normal(size=(blocks * 30, trials)) + skill * np.arange(trials) / trials
    assert overfitting(returns, blocks).probability == pytest.approx(by_hand(returns, blocks), abs=1e-12)


def test_a_skilled_trial_is_not_overfitted_and_trials_without_skill_are_at_a_coin_toss():
    rng = np.random.default_rng(5)
    noise = rng.normal(size=(1600, 20))
    assert overfitting(noise + np.eye(20)[3] * 0.3).probability < 0.01
    tossed = [overfitting(rng.normal(size=(320, 20)), 8).probability for _ in range(60)]
    assert 0.4 < np.mean(tossed) < 0.7


def test_what_is_best_inside_because_it_is_worst_outside_is_overfitted():
    rng = np.random.default_rng(6)
    luck = np.repeat(rng.normal(size=(16, 30)), 20, axis=0)
    assert overfitting(luck - luck.mean(axis=0) + 0.05 * rng.normal(size=luck.shape)).probability > 0.9


@pytest.mark.parametrize(
    ("shape", "blocks", "told"),
    [((100, 1), 4, "1 trials"), ((100, 3), 5, "even"), ((20, 3), 16, "too few")],
)
def test_what_cannot_be_split_is_refused(shape, blocks, told):
    with pytest.raises(ValueError, match=told):
        overfitting(np.zeros(shape), blocks)


def test_a_trial_that_lacks_sections_is_refused():
    returns = np.random.default_rng(7).normal(size=(64, 3))
    returns[5, 1] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        overfitting(returns, 4)
