"""Measures of classes against scikit-learn, and calibration against what was drawn."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quant.classes import auc, brier, calibration_error, log_loss, reliability
from quant.score import score
from tests.quant.test_score import Terms, world

metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn comes with Evidently")


@given(st.lists(st.tuples(st.integers(0, 8), st.booleans()), min_size=2, max_size=60))
def test_auc_log_loss_and_brier_are_scikit_learns_with_ties(rows):
    chance, happened = np.array([r[0] / 8 for r in rows]), np.array([r[1] for r in rows])
    if happened.all() or not happened.any():
        assert np.isnan(auc(chance, happened))
        return
    assert auc(chance, happened) == pytest.approx(metrics.roc_auc_score(happened, chance))
    assert brier(chance, happened) == pytest.approx(metrics.brier_score_loss(happened, chance))
    inside = np.clip(chance, 0.01, 0.99)
    assert log_loss(inside, happened) == pytest.approx(metrics.log_loss(happened, inside))


def test_a_certain_and_wrong_prediction_costs_much_but_not_infinity():
    assert 30 < log_loss(np.array([1.0]), np.array([False])) < 40


def test_what_is_drawn_with_its_own_probability_is_calibrated_and_its_bins_agree_with_scikit_learns():
    from sklearn.calibration import calibration_curve

    rng = np.random.default_rng(0)
    chance = rng.uniform(size=20_000)
    happened = rng.uniform(size=20_000) < chance
    bins = reliability(chance, happened.astype(float))
    assert calibration_error(bins) < 0.01
    outcome, predicted = calibration_curve(happened, chance, n_bins=10, strategy="quantile")
    np.testing.assert_allclose([b["outcome"] for b in bins], outcome, atol=2e-3)
    np.testing.assert_allclose([b["predicted"] for b in bins], predicted, atol=2e-3)
    assert calibration_error(reliability(chance**2, happened.astype(float))) > 0.1


@pytest.mark.parametrize("predicted", [np.zeros(50), np.repeat([0.2, 0.7], 25), np.arange(50.0)])
def test_every_row_is_in_one_bin_and_ties_stay_together(predicted):
    bins = reliability(predicted, np.ones(50))
    assert sum(b["rows"] for b in bins) == 50
    assert len(bins) <= max(1, min(10, len(np.unique(predicted))))


def test_a_probability_is_scored_as_one_and_a_return_beside_it_by_its_order():
    frame = (
        world(200, 10)
        .rename({"prediction": "linear"})
        .with_columns(model=1 / (1 + (-world(200, 10)["prediction"]).exp()))
    )
    scores = score(frame, ["model", "linear"], Terms(1, 0.0), "binary")
    happened = frame["outcome"].to_numpy() > 0
    assert scores["model"]["auc"] == pytest.approx(metrics.roc_auc_score(happened, frame["model"]))
    assert scores["linear"]["auc"] == pytest.approx(scores["model"]["auc"])
    assert scores["model"]["log_loss"] == pytest.approx(metrics.log_loss(happened, frame["model"]))
    assert "log_loss" not in scores["linear"]
    assert scores["model"]["hit_rate"] == pytest.approx(scores["linear"]["hit_rate"])
    assert scores["zero"]["auc"] == 0.5
    assert scores["zero"]["hit_rate"] is None  # it says neither up nor down


def test_a_chance_outside_0_to_1_is_refused_and_a_baseline_of_small_returns_is_never_read_as_one():
    frame = (
        world(30, 6).rename({"prediction": "model"}).with_columns(linear=pl.lit(0.001) + pl.int_range(pl.len()) * 1e-6)
    )
    with pytest.raises(ValueError, match="from 0 to 1"):
        score(frame, ["model"], Terms(1, 0.0), "binary")
    inside = frame.with_columns(model=1 / (1 + (-pl.col("model")).exp()))
    up = (frame["outcome"] > 0).mean()
    assert score(inside, ["model", "linear"], Terms(1, 0.0), "binary")["linear"]["hit_rate"] == pytest.approx(up)
