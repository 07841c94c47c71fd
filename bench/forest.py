"""The compiled forest against LightGBM and onnxruntime, one thread each, on the same models and rows.

Prints, per forest and batch size, the median CPU microseconds a row of `Booster.predict`, and how many times faster
the others are: LightGBM's single-row fast path, onnxruntime, what the service chooses here, and each evaluator. First
it proves that all evaluators give LightGBM's leaves, its predictions within 1e-9 of their scale, and the same bits;
onnxruntime adds in float32: it must agree to 1e-4. `--quick`: less to train on, fewer rounds, no large batch.
"""

import sys
from collections.abc import Callable
from functools import partial

import lightgbm as lgb
import numpy as np
from _measure import medians
from _onnx import onnx_predict
from _single_row import single_row

from quant.forest import Forest
from quant.forest import compile as compile_forest
from quant.forest_choice import available, fastest, measure

FORESTS = ((200, 31), (500, 63))
BATCHES = (1, 32, 1_000, 100_000)
FACTORS = 66
LEAST = 256  # rows a timed call predicts at least, in batches that differ: no branch may be learned by heart
Predict = Callable[[np.ndarray], np.ndarray]


def train(trees: int, leaves: int, rows: int) -> lgb.Booster:
    rng = np.random.default_rng(trees)
    X = rng.standard_normal((rows, FACTORS)).astype(np.float32)
    y = X[:, 0] * X[:, 1] + np.sin(X[:, 2]) + rng.standard_normal(len(X))
    params = {"num_leaves": leaves, "learning_rate": 0.05, "num_threads": 1, "verbosity": -1}
    return lgb.train(params, lgb.Dataset(X, y), num_boost_round=trees)


def sample(rows: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((rows, FACTORS)).astype(np.float32)
    X[rng.random(X.shape) < 0.02] = np.nan
    return X


def prove(forest: Forest, booster: lgb.Booster, others: dict[str, Predict]) -> None:
    X = sample(1_000, seed=1)
    expected, leaves = booster.predict(X, num_threads=1), booster.predict(X, pred_leaf=True, num_threads=1)
    scale = np.abs(expected).max()
    bits = {forest.predict(X, name).tobytes() for name in available()}
    assert len(bits) == 1, "the evaluators differ in bits"
    for name in available():
        assert (forest.leaves(X, name) == leaves).all(), f"{name}: leaves differ"
        assert np.abs(forest.predict(X, name) - expected).max() <= 1e-9 * scale, f"{name} differs"
    for what, predict in others.items():
        found = np.concatenate([predict(X[row : row + 1]) for row in range(100)])
        assert np.abs(found - expected[:100]).max() <= 1e-4 * scale, f"{what} differs"


def over(predict: Predict, batches: list[np.ndarray]) -> None:
    for batch in batches:
        predict(batch)


def main() -> None:
    quick = "--quick" in sys.argv
    names = ("single row", "onnxruntime", "chosen", *available())
    print(f"{'forest':>8} {'rows':>8} {'LightGBM':>12} " + " ".join(f"{name:>12}" for name in names) + "   chosen is")
    for trees, leaves in FORESTS:
        booster = train(trees, leaves, 5_000 if quick else 20_000)
        forest = compile_forest(booster)
        peers: dict[str, Predict] = {"LightGBM": partial(booster.predict, num_threads=1)}
        one_row = {"single row": single_row(booster)}
        onnx = onnx_predict(booster)
        ours: dict[str, Predict] = {name: partial(forest.predict, evaluator=name) for name in available()}
        prove(forest, booster, {**one_row, **onnx})
        choice = fastest(measure(forest, sample(1_000, seed=2)))
        for rows in BATCHES[: 3 if quick else 4]:
            chosen: Predict = partial(forest.predict, evaluator=choice.of(rows))
            calls = {**peers, **(one_row if rows == 1 else {}), **onnx, "chosen": chosen, **ours}
            count = max(1, LEAST // rows)
            batches = [sample(rows, seed=3 + number) for number in range(count)]
            slow = {"mlx"} & set(calls) if rows > 1_000 else set()  # once is enough to be seen
            rounds = (5 if quick else 21) if rows <= 1_000 else 5
            seconds = medians({name: partial(over, calls[name], batches) for name in calls.keys() - slow}, rounds)
            seconds |= medians({name: partial(over, calls[name], batches) for name in slow}, 1)
            peer = seconds["LightGBM"]
            shown = [f"{peer / seconds[name]:11.2f}x" if name in seconds else f"{'':>12}" for name in names]
            micros = f"{peer / rows / count * 1e6:9.2f} us"
            print(f"{f'{trees}x{leaves}':>8} {rows:>8,} {micros} {' '.join(shown)}   {choice.of(rows)}", flush=True)


if __name__ == "__main__":
    main()
