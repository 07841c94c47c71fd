"""Losses against LightGBM's own metrics of the same names."""

import lightgbm as lgb
import numpy as np
import pytest

from quant.loss import LOSSES, loss

METRICS = {"regression": "l2", "regression_l1": "l1", "huber": "huber", "fair": "fair", "quantile": "quantile",
           "binary": "binary_logloss"}  # fmt: skip


@pytest.mark.parametrize("objective", sorted(LOSSES))
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("alpha", [None, 0.3])
def test_a_loss_is_what_lightgbm_reports(objective: str, weighted: bool, alpha: float | None) -> None:
    rng = np.random.default_rng(7)
    X = rng.standard_normal((600, 3))
    y = X[:, 0] + 2 * rng.standard_normal(600)
    target = (y > 0).astype(float) if objective == "binary" else y
    weight = rng.uniform(0.5, 2, 600) if weighted else None
    params = {"objective": objective, "verbosity": -1, "num_leaves": 7, **({"alpha": alpha} if alpha else {})}
    curve: dict[str, dict[str, list[float]]] = {}
    data = lgb.Dataset(X, target, weight=weight)
    booster = lgb.train(
        params, data, num_boost_round=5, valid_sets=[data], valid_names=["rows"],
        callbacks=[lgb.record_evaluation(curve)],
    )  # fmt: skip
    predicted = np.asarray(booster.predict(X), np.float64)
    # LightGBM keeps labels and weights as float32.
    assert loss(objective, predicted, target, weight, params) == pytest.approx(
        curve["rows"][METRICS[objective]][-1], rel=1e-6
    )


def test_a_ranking_has_no_loss_of_rows() -> None:
    with pytest.raises(ValueError, match="lambdarank has no loss"):
        loss("lambdarank", np.zeros(2), np.zeros(2), None, {})
