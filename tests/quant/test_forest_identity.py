"""Ten million (row, tree) pairs, half of them adversarial: every evaluator finds LightGBM's leaf in each."""

import lightgbm as lgb
import numpy as np
import pytest

from quant import forest
from quant.ensemble import average
from quant.forest_choice import available
from tests.quant.forests import adversarial, table, train

PAIRS = 10_000_000
BLOCK = 1_000_000  # pairs looked at at once

#  what: (LightGBM's parameters, trees, whether a column is categorical, models averaged)
MODELS = {
    "regression 31x50": ({"objective": "regression", "num_leaves": 31}, 50, False, 1),
    "regression 255x1000": ({"objective": "regression", "num_leaves": 255, "min_data_in_leaf": 1}, 1_000, False, 1),
    "regression 31x1000": ({"objective": "regression", "num_leaves": 31}, 1_000, False, 1),
    "zero as missing": ({"objective": "huber", "num_leaves": 63, "zero_as_missing": True}, 200, False, 1),
    "no missing": ({"objective": "quantile", "num_leaves": 63, "use_missing": False}, 200, False, 1),
    "binary 63x500": ({"objective": "binary", "num_leaves": 63}, 500, False, 1),
    "binary with categories": ({"objective": "binary", "num_leaves": 127}, 200, True, 1),
    "lambdarank 31x200": ({"objective": "lambdarank", "num_leaves": 31}, 200, False, 1),
    "xendcg with categories": ({"objective": "rank_xendcg", "num_leaves": 127}, 100, True, 1),
    "categories 255x100": ({"objective": "regression_l1", "num_leaves": 255, "min_data_in_leaf": 1}, 100, True, 1),
    "three averaged": (
        {"objective": "fair", "num_leaves": 31, "bagging_freq": 1, "bagging_fraction": 0.5},
        70,
        True,
        3,
    ),
    "random forest": (
        {"objective": "regression", "num_leaves": 127, "boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.5},
        100,
        True,
        1,
    ),
}


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_no_leaf_of_ten_million_differs_from_lightgbms():
    each, seen = -(-PAIRS // len(MODELS)), 0
    for number, (what, (params, trees, categories, models)) in enumerate(MODELS.items()):
        texts = [
            train(params, trees, categories=categories, seed=number + 100 * seed).model_to_string()
            for seed in range(models)
        ]
        booster = lgb.Booster(model_str=average(texts))
        made = forest.compile(booster)
        rows = -(-each // booster.num_trees() // 2)
        halves = [table(rows, seed=number), adversarial(booster, rows, seed=number)]
        expected = np.concatenate([booster.predict(X) for X in halves])
        scale = np.abs(expected).max()
        bits = set()
        for name in available():
            differ = sum(_differ(booster, made, X, name) for X in halves)
            assert differ == 0, f"{what}: {name} finds {differ} other leaves"
            found = np.concatenate([made.predict(X, name) for X in halves])
            assert np.abs(found - expected).max() <= 1e-9 * scale, f"{what}: {name}"
            bits.add(found.tobytes())
        assert len(bits) == 1, f"{what}: the evaluators differ in bits"
        seen += 2 * rows * booster.num_trees()
    assert seen >= PAIRS


def _differ(booster: lgb.Booster, made: forest.Forest, X: np.ndarray, name: forest.Name) -> int:
    """How many leaves differ."""
    step = max(1, BLOCK // booster.num_trees())
    parts = [X[start : start + step] for start in range(0, len(X), step)]
    return sum(int((made.leaves(part, name) != booster.predict(part, pred_leaf=True)).sum()) for part in parts)
