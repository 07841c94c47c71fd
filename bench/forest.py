"""The compiled forest against LightGBM's own `Booster.predict`, one thread each, on the same model and rows.

Prints, per forest and batch size, LightGBM's median milliseconds and how many times faster each evaluator is. First
it proves that all give the same leaves, and predictions within 1e-9 of the output's scale. `--quick`: fewer rounds.
"""

import sys
from functools import partial

import lightgbm as lgb
import numpy as np
from _measure import medians

from quant.forest import Forest
from quant.forest import compile as compile_forest

FORESTS = ((200, 31), (500, 63))
BATCHES = (1, 32, 1_000, 100_000)
FACTORS = 66


def train(trees: int, leaves: int) -> lgb.Booster:
    rng = np.random.default_rng(trees)
    X = rng.standard_normal((20_000, FACTORS)).astype(np.float32)
    y = X[:, 0] * X[:, 1] + np.sin(X[:, 2]) + rng.standard_normal(len(X))
    params = {"num_leaves": leaves, "learning_rate": 0.05, "num_threads": 2, "verbosity": -1}
    return lgb.train(params, lgb.Dataset(X, y), num_boost_round=trees)


def prove(forest: Forest, booster: lgb.Booster, X: np.ndarray) -> None:
    expected = booster.predict(X, num_threads=1)
    assert (forest.leaves(X) == booster.predict(X, pred_leaf=True, num_threads=1)).all(), "leaves differ"
    scale = np.abs(expected).max()
    for evaluator in ("native", "mlx"):
        assert np.abs(forest.predict(X, evaluator) - expected).max() <= 1e-9 * scale, f"{evaluator} differs"


def main() -> None:
    quick = "--quick" in sys.argv
    print(f"{'forest':>10} {'rows':>8} {'LightGBM':>12} {'native':>8} {'mlx':>8}")
    for trees, leaves in FORESTS:
        booster = train(trees, leaves)
        forest = compile_forest(booster)
        rng = np.random.default_rng(0)
        for rows in BATCHES[: 3 if quick else 4]:
            X = rng.standard_normal((rows, FACTORS)).astype(np.float32)
            X[rng.random(X.shape) < 0.02] = np.nan
            prove(forest, booster, X[:2_000])
            rounds = (5 if quick else 21) if rows < 100_000 else 3
            calls = {
                "lightgbm": partial(booster.predict, X, num_threads=1),
                "native": partial(forest.predict, X, "native"),
                "mlx": partial(forest.predict, X, "mlx"),
            }
            seconds = medians(calls, rounds)
            peer = seconds["lightgbm"]
            ratios = " ".join(f"{peer / seconds[name]:7.2f}x" for name in ("native", "mlx"))
            print(f"{f'{trees}x{leaves}':>10} {rows:>8,} {peer * 1e3:>9.3f} ms {ratios}", flush=True)


if __name__ == "__main__":
    main()
