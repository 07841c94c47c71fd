"""Scores against scipy, brute force, and worlds whose answer is known."""

import json

import numpy as np
import polars as pl
import pytest
from scipy import stats as scipy_stats

from quant import portfolio, stats
from quant.baselines import linear
from quant.portfolio import Terms
from quant.score import quantile_means, score, section_ic


def world(sections: int = 400, symbols: int = 20, ic: float = 0.3, seed: int = 0) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    prediction = rng.normal(size=(sections, symbols))
    outcome = 0.01 * (ic * prediction + np.sqrt(1 - ic**2) * rng.normal(size=(sections, symbols)))
    time = np.datetime64("2023-01-02", "us") + np.arange(sections) * np.timedelta64(1, "D")
    return pl.DataFrame(
        {
            "time": np.repeat(time, symbols),
            "symbol": [f"S{number:02}" for number in range(symbols)] * sections,
            "prediction": prediction.ravel(),
            "outcome": outcome.ravel(),
        }
    )


def scored(frame: pl.DataFrame, **options: object) -> dict:
    terms = Terms(**({"holding": 1, "cost_bps": 0.0} | options))
    return score(frame.rename({"prediction": "model"}), ["model"], terms)


@pytest.mark.parametrize(("method", "oracle"), [("pearson", scipy_stats.pearsonr), ("spearman", scipy_stats.spearmanr)])
def test_each_sections_ic_is_scipys_with_ties_and_missing_values(method, oracle):
    seventh = pl.int_range(pl.len()) % 7 == 0
    frame = world(60, 15).with_columns(
        prediction=pl.col("prediction").round(0), outcome=pl.when(seventh).then(np.nan).otherwise("outcome")
    )
    found = section_ic(frame, method)
    assert found.height == 60
    for time, ic in found.iter_rows():
        section = frame.filter(pl.col("time") == time, pl.col("outcome").is_not_nan())
        assert ic == pytest.approx(oracle(section["prediction"], section["outcome"])[0], abs=1e-12)


def test_sections_that_have_no_correlation_are_left_out_not_counted_as_zero():
    frame = world(10, 5)
    constant = frame.with_columns(
        prediction=pl.when(pl.col("time") == frame["time"][0]).then(1.0).otherwise("prediction")
    )
    assert section_ic(constant, "spearman").height == 9
    assert section_ic(frame.filter(pl.col("symbol").is_in(["S00", "S01"])), "pearson").height == 0


def test_the_information_ratio_is_the_mean_ic_by_its_deviation():
    series = section_ic(world(50, 8), "spearman")["ic"].to_numpy()
    assert scored(world(50, 8))["model"]["rank_ic_ir"] == pytest.approx(series.mean() / series.std(ddof=1))


@pytest.mark.parametrize("lags", [0, 1, 5, 12, 400])
def test_the_long_run_variance_is_newey_wests_double_sum(lags):
    x = np.convolve(np.random.default_rng(1).normal(size=204), np.ones(5), "valid")
    centred, n = x - x.mean(), len(x)
    by_hand = sum(
        (1 - abs(s - t) / (lags + 1)) * centred[s] * centred[t] / n
        for s in range(n)
        for t in range(n)
        if abs(s - t) <= lags
    )
    assert stats.long_run_variance(x, lags) == pytest.approx(max(by_hand, 0), abs=1e-12)


def test_overlapping_outcomes_widen_the_standard_error_as_they_must():
    rng = np.random.default_rng(2)
    means, errors = [], []
    for _ in range(300):
        x = np.convolve(rng.normal(size=505), np.ones(6) / 6, "valid")
        found = stats.mean_of(x, stats.lags_for(len(x), 5))
        means.append(found.mean)
        errors.append(found.error)
    assert np.mean(errors) == pytest.approx(np.std(means), rel=0.12)


def test_a_planted_ic_is_found_within_three_standard_errors_and_noise_is_not_significant():
    truth = scored(world(ic=0.3))["model"]
    assert abs(truth["ic"] - 0.3) < 3 * truth["ic_error"]
    assert truth["rank_ic_t"] > 10
    calls = [abs(scored(world(100, 10, ic=0.0, seed=seed))["model"]["rank_ic_t"]) > 1.96 for seed in range(20)]
    assert sum(calls) <= 4


def test_the_hit_rate_counts_signs_and_ignores_what_has_none():
    frame = world(4, 4).with_columns(
        prediction=pl.Series([1.0, -1, 1, 0] * 4), outcome=pl.Series([1.0, 1, 1, 1, -1, -1, 0, 1] * 2)
    )
    assert scored(frame)["model"]["hit_rate"] == pytest.approx(6 / 10)


def test_quantile_means_follow_a_section_by_section_sort():
    frame = world(30, 11)
    found = quantile_means(frame, 4)
    by_hand = [[] for _ in range(4)]
    for _, section in frame.group_by("time"):
        order = section.sort("prediction")["outcome"].to_list()
        for quantile in range(4):
            by_hand[quantile].append(np.mean([o for k, o in enumerate(order) if k * 4 // 11 == quantile]))
    np.testing.assert_allclose(found, np.mean(by_hand, axis=1))


def test_weights_are_dollar_neutral_with_gross_one_and_follow_scipys_ranks():
    frame = world(20, 9).with_columns(pl.col("prediction").round(0))
    weighted = frame.with_columns(weight=portfolio.weigh(frame, "prediction"))
    for _, section in weighted.group_by("time"):
        ranks = scipy_stats.rankdata(section["prediction"])
        centred = ranks - ranks.mean()
        np.testing.assert_allclose(section["weight"], centred / np.abs(centred).sum(), atol=1e-15)


def test_a_book_of_tranches_earns_each_label_once_and_pays_for_what_it_trades():
    frame = world(50, 6)
    holding, cost = 3, 7.0
    book = portfolio.book(frame, "prediction", Terms(holding, cost))
    found = book.summary()
    weights = portfolio.weigh(frame, "prediction").to_numpy().reshape(50, 6)
    outcome = frame["outcome"].to_numpy().reshape(50, 6)
    net, traded = [], []
    for t in range(50):
        held = weights[t - holding] if t >= holding else np.zeros(6)
        traded.append(np.abs(weights[t] - held).sum())
        net.append((weights[t] @ outcome[t] - traded[-1] * cost / 1e4) / holding)
    assert found["annual_return"] == pytest.approx(np.mean(net) * 365.25)
    assert found["turnover"] == pytest.approx(np.mean(traded) / holding)
    assert found["sharpe"] < found["sharpe_before_costs"]
    np.testing.assert_allclose(book.net, net, atol=1e-15)
    open_tranches = [weights[max(0, t - holding + 1) : t + 1].sum(axis=0) / holding for t in range(50)]
    np.testing.assert_allclose(book.exposure, np.abs(open_tranches).sum(axis=1), atol=1e-12)
    equity = np.cumsum(net)
    assert found["max_drawdown"] == pytest.approx(max(max([0, *equity[: t + 1]]) - equity[t] for t in range(50)))


def test_costs_alone_sink_a_book_without_a_signal():
    net = scored(world(ic=0.0), cost_bps=20.0)["model"]["net"]
    assert net["sharpe"] < -2 * net["sharpe_error"]


def test_the_sharpe_ratio_and_its_error_are_honest_about_overlap():
    ratios, errors = [], []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        bars = rng.normal(size=(260, 8)) * 0.01
        ahead = np.lib.stride_tricks.sliding_window_view(bars, 6, axis=0).sum(axis=2)
        frame = world(len(ahead), 8, seed=seed + 1000).with_columns(outcome=pl.Series(ahead.ravel()))
        net = portfolio.book(frame, "prediction", Terms(holding=6, cost_bps=0)).summary()
        ratios.append(net["sharpe"])
        errors.append(net["sharpe_error"])
    assert np.std(ratios) == pytest.approx(np.mean(errors), rel=0.4)


def test_zero_stands_beside_the_model_and_earns_nothing():
    scores = scored(world(50, 5))
    assert scores["zero"]["ic"] is None
    assert scores["zero"]["net"]["annual_return"] == 0
    assert scores["zero"]["net"]["sharpe"] is None
    json.dumps(scores, allow_nan=False)


def test_one_symbol_is_scored_over_time_as_scipy_does():
    frame = world(300, 1)
    scores = scored(frame, cost_bps=1.0)["model"]
    assert scores["over_time"]
    prediction, outcome = frame["prediction"].to_numpy(), frame["outcome"].to_numpy()
    assert scores["ic"] == pytest.approx(scipy_stats.pearsonr(prediction, outcome)[0])
    assert scores["rank_ic"] == pytest.approx(scipy_stats.spearmanr(prediction, outcome)[0])
    assert scores["rank_ic_sections"] == 300
    assert abs(scores["ic"] - 0.3) < 3 * scores["ic_error"]
    signs = np.sign(prediction)
    cost = np.abs(np.diff(signs, prepend=0.0)) * 1e-4
    assert scores["net"]["annual_return"] == pytest.approx((signs * outcome - cost).mean() * 365.25)


def test_the_error_over_time_is_as_wide_as_the_spread_of_ics_over_worlds():
    found = [scored(world(200, 1, ic=0.0, seed=seed))["model"] for seed in range(100)]
    assert np.std([f["ic"] for f in found]) == pytest.approx(np.mean([f["ic_error"] for f in found]), rel=0.2)


def test_the_linear_baseline_is_ridge_regression_on_standardised_factors():
    rng = np.random.default_rng(3)
    X = rng.normal(2, 3, size=(500, 4)).astype(np.float32)
    y = X @ np.array([0.5, -1, 0, 0.2]) + rng.normal(size=500)
    train, rows = np.arange(400), np.arange(400, 500)
    z = (X - X[train].mean(axis=0, dtype=float)) / X[train].std(axis=0, dtype=float)
    stacked = np.vstack([z[train], np.sqrt(0.01 * 400) * np.eye(4)])
    target = np.concatenate([y[train] - y[train].mean(), np.zeros(4)])
    weights = np.linalg.lstsq(stacked, target, rcond=None)[0]
    expected = y[train].mean() + z[rows] @ weights
    np.testing.assert_allclose(linear(X, y, train, rows, penalty=0.01), expected, rtol=1e-6)


def test_the_linear_baseline_survives_missing_constant_and_infinite_factors():
    X = np.random.default_rng(4).normal(size=(300, 4)).astype(np.float32)
    y = X[:, 0].astype(np.float64)
    X[:, 1], X[:, 2], X[5, 3] = np.nan, 7.0, np.inf
    X[10:20, 0] = np.nan
    found = linear(X, y, np.arange(200), np.arange(200, 300))
    assert np.corrcoef(found, y[200:])[0, 1] > 0.99
