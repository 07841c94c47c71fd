"""A challenger wins when it is better, and hardly ever when it is not, whatever the labels overlap."""

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from quant.judge import Rule, beats, level_of, p_above, section_scores, stands
from quant.portfolio import Terms
from quant.stats import lags_for, mean_of

RULE = Rule("rank_ic", margin=0.0, level=0.05, min_sections=60)
TERMS = Terms(holding=1, cost_bps=2.0)


def duel(
    better: float, worse: float, *, sections: int = 200, symbols: int = 10, seed: int = 0, shared: float = 0.0
) -> pl.DataFrame:
    """Predictions whose correlation with the outcome is known; `shared` of their noise is the same."""
    rng = np.random.default_rng(seed)
    outcome, common = rng.normal(size=(2, sections, symbols))

    def predictor(ic: float) -> np.ndarray:
        noise = np.sqrt(shared) * common + np.sqrt(1 - shared) * rng.normal(size=(sections, symbols))
        return (ic * outcome + np.sqrt(1 - ic**2) * noise).ravel()

    time = np.datetime64("2023-01-02", "us") + np.arange(sections) * np.timedelta64(1, "D")
    return pl.DataFrame(
        {
            "time": np.repeat(time, symbols),
            "symbol": [f"S{number:02}" for number in range(symbols)] * sections,
            "outcome": 0.01 * outcome.ravel(),
            "earned": 0.01 * outcome.ravel(),
            "challenger": predictor(better),
            "champion": predictor(worse),
            "challenger_abstains": False,
            "champion_abstains": False,
        }
    )


@pytest.mark.parametrize("metric", ["rank_ic", "net_return"])
def test_a_better_challenger_wins_and_a_worse_one_does_not(metric):
    rule = Rule(metric, 0.0, 0.05, 60)
    won, lost = beats(duel(0.3, 0.1), rule, TERMS), beats(duel(0.1, 0.3), rule, TERMS)
    assert won.wins
    assert won.score > won.champion_score
    assert won.p < 0.01
    assert not lost.wins
    assert lost.p > 0.99
    assert "is better than the champion" in won.why
    assert "is not shown to be better than the champion" in lost.why


def test_with_independent_sections_p_is_scipys_paired_one_sided_t_test():
    frame = duel(0.16, 0.1, sections=400)
    found = beats(frame, RULE, TERMS)
    ours, its = (section_scores(frame, name, "rank_ic", TERMS)["score"] for name in ("challenger", "champion"))
    oracle = scipy_stats.ttest_rel(ours, its, alternative="greater")
    assert found.difference == pytest.approx((ours - its).mean())
    assert 0.001 < oracle.pvalue < 0.2
    assert found.p == pytest.approx(oracle.pvalue, abs=0.02)  # Newey-West's five lags differ from none


def test_the_margin_is_what_it_must_be_better_by():
    frame = duel(0.3, 0.1, sections=400)
    gained = beats(frame, RULE, TERMS).difference
    assert gained == pytest.approx(0.19, abs=0.03)
    assert beats(frame, Rule("rank_ic", gained - 0.08, 0.05, 60), TERMS).wins
    assert not beats(frame, Rule("rank_ic", gained, 0.05, 60), TERMS).wins
    assert beats(frame, Rule("rank_ic", gained, 0.05, 60), TERMS).p == pytest.approx(0.5)


def test_a_margin_below_zero_lets_an_equal_challenger_win_and_zero_does_not():
    same = duel(0.2, 0.2).with_columns(champion="challenger")
    assert not beats(same, RULE, TERMS).wins
    assert beats(same, Rule("rank_ic", -0.01, 0.05, 60), TERMS).wins


def test_noise_that_both_share_does_not_hide_a_difference():
    alone = [beats(duel(0.14, 0.1, seed=seed), RULE, TERMS).error for seed in range(5)]
    paired = [beats(duel(0.14, 0.1, seed=seed, shared=0.95), RULE, TERMS).error for seed in range(5)]
    assert np.mean(paired) < 0.5 * np.mean(alone)


def test_too_few_sections_keep_the_champion_and_say_how_many_there_were():
    found = beats(duel(0.9, 0.0, sections=59), RULE, TERMS)
    assert not found.wins
    assert math.isnan(found.p)
    assert found.to_dict()["p"] is None
    assert "the champion stays champion: 59 sections" in found.why
    assert "asks for 60" in found.why
    assert beats(duel(0.9, 0.0, sections=60), RULE, TERMS).wins


def test_no_section_at_all_is_a_verdict_too():
    found = beats(duel(0.5, 0.0).clear(), RULE, TERMS)
    assert (found.wins, found.sections) == (False, 0)
    assert "judging.min_sections asks for 60" in found.why
    assert beats(duel(0.5, 0.0, symbols=1), RULE, TERMS).sections == 200
    assert beats(duel(0.5, 0.0, symbols=1), Rule("net_return", 0.0, 0.05, 60), TERMS).sections == 200


def test_rows_that_one_of_them_cannot_predict_count_for_neither():
    frame = duel(0.3, 0.1)
    lucky = frame.with_columns(
        challenger=pl.when(pl.col("symbol") == "S00").then(pl.col("outcome") * 1e3).otherwise("challenger"),
        champion=pl.when(pl.col("symbol") == "S00").then(math.nan).otherwise("champion"),
    )
    kept = frame.filter(pl.col("symbol") != "S00")
    assert beats(lucky, RULE, TERMS).to_dict() == beats(kept, RULE, TERMS).to_dict()


def test_a_model_is_scored_on_what_it_would_trade_and_the_other_on_its_own():
    frame = duel(0.3, 0.1)
    wild = pl.col("symbol").is_in(
        ["S00", "S01"]
    )  # rows that the challenger predicts as wrong as can be, and leaves out
    wrong = frame.with_columns(challenger=pl.when(wild).then(-pl.col("outcome") * 1e3).otherwise("challenger"))
    left_out = wrong.with_columns(challenger_abstains=wild)
    for metric in ("rank_ic", "net_return"):
        rule = Rule(metric, 0.0, 0.05, 60)
        found, blamed = beats(left_out, rule, TERMS), beats(wrong, rule, TERMS)
        own = section_scores(frame.filter(~wild), "challenger", metric, TERMS)["score"].mean()
        assert found.score == pytest.approx(own)
        assert found.champion_score == pytest.approx(section_scores(frame, "champion", metric, TERMS)["score"].mean())
        assert found.sections == 200
        assert blamed.score < 0 < found.score
        alone = stands(left_out, rule, TERMS)
        assert (alone.score, alone.sections) == (pytest.approx(own), 200)


def test_what_is_not_traded_costs_nothing_and_earns_nothing():
    rule = Rule("net_return", 0.0, 0.05, 60)
    idle = duel(0.3, 0.1).with_columns(challenger_abstains=True)
    found = beats(idle, rule, TERMS)
    assert (found.score, found.sections) == (0.0, 200)
    assert found.champion_score == beats(duel(0.3, 0.1), rule, TERMS).champion_score
    assert beats(idle, RULE, TERMS).score == 0.0
    assert not beats(idle, RULE, TERMS).wins


def test_a_champion_without_a_view_scores_zero_and_can_be_beaten():
    found = beats(duel(0.3, 0.0).with_columns(champion=pl.lit(1.0)), RULE, TERMS)
    assert found.wins
    assert (found.champion_score, found.sections) == (0.0, 200)


def test_the_level_is_spread_over_all_tries_there_may_ever_be():
    frame = duel(0.155, 0.1, sections=400)
    once, often = beats(frame, RULE, TERMS), beats(frame, RULE, TERMS, tries=20)
    assert once.level == 0.05
    assert often.level < once.p < 0.05
    assert once.wins
    assert not often.wins
    assert "0.05 over all tries, this is number 20" in often.why
    spent = sum(level_of(0.05, tries) for tries in range(1, 100_000))
    assert spent == pytest.approx(0.05, rel=1e-4)
    assert spent < 0.05


def test_one_symbol_is_judged_by_its_correlation_over_time():
    rng = np.random.default_rng(3)
    outcome = rng.standard_normal(400)
    times = pl.Series(np.datetime64("2024-01-01", "us") + np.arange(400) * np.timedelta64(1, "D"))
    none = {"challenger_abstains": False, "champion_abstains": False}
    frame = pl.DataFrame({"time": times, "symbol": "A", "outcome": outcome, **none})
    frame = frame.with_columns(
        challenger=pl.Series(outcome + rng.standard_normal(400)), champion=pl.Series(rng.standard_normal(400))
    )
    found = beats(frame, RULE, TERMS)
    assert found.wins
    assert found.score == pytest.approx(scipy_stats.spearmanr(frame["challenger"], outcome)[0])
    assert not beats(frame.rename({"challenger": "champion", "champion": "challenger"}), RULE, TERMS).wins


@pytest.mark.parametrize(("sections", "holding"), [(60, 1), (100, 6), (400, 6)])
def test_equal_models_win_about_as_often_as_the_level_says_where_labels_overlap(sections, holding):
    """A moving average of noise, as scores of overlapping labels are; a normal's p would be wrong by half and more."""
    rng = np.random.default_rng(1)
    lags = lags_for(sections, holding - 1)
    won, normal = [], []
    for _ in range(1500):
        series = np.convolve(rng.normal(size=sections + holding - 1), np.ones(holding), "valid")
        won.append(p_above(series, 0.0, lags) <= 0.05)
        normal.append(mean_of(series, lags).t > 1.6449)
    assert 0.03 < np.mean(won) < 0.08
    assert np.mean(won) < np.mean(normal)


# Kiefer and Vogelsang (2005), table 1, Bartlett: one-sided critical values as a polynomial in b.
FIXED_B = {0.10: (1.2816, 1.3040, 0.5135, -0.3386), 0.05: (1.6449, 2.1859, 0.3142, -0.3427),
           0.01: (2.3263, 4.1618, 0.5368, -0.9060)}  # fmt: skip


@pytest.mark.parametrize("level", FIXED_B)
@pytest.mark.parametrize("b", [0.02, 0.05, 0.1, 0.2])
def test_p_at_the_published_critical_values_is_their_level(level, b):
    n = 1000
    lags = round(b * n) - 1
    noise = np.random.default_rng(3).normal(size=n)
    error = mean_of(noise, lags).error
    critical = sum(a * b**power for power, a in enumerate(FIXED_B[level]))
    series = noise - noise.mean() + critical * error
    assert p_above(series, 0.0, lags) == pytest.approx(level, rel=0.25)


@settings(max_examples=50)
@given(st.integers(0, 10_000), st.floats(-0.5, 0.5), st.floats(-1.0, 1.0))
def test_p_falls_with_the_mean_and_rises_with_the_margin(seed, shift, margin):
    series = np.random.default_rng(seed).normal(size=80)
    p = p_above(series, margin, 4)
    assert 0.0 <= p <= 1.0
    assert p_above(series + abs(shift), margin, 4) <= p
    assert p_above(series, margin + abs(shift), 4) >= p
    assert p_above(-series, -margin, 4) == pytest.approx(1 - p, abs=1e-9)


def test_a_model_alone_is_held_against_zero():
    signal, none = stands(duel(0.2, 0.0), RULE, TERMS), stands(duel(-0.2, 0.0), RULE, TERMS)
    assert signal.wins
    assert signal.champion_score == 0.0
    assert "is significant" in signal.why
    assert not none.wins
    assert "is not significant" in none.why
    assert "nothing is shown" in stands(duel(0.9, 0.0, sections=30), RULE, TERMS).why
