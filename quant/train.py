"""Fit one LightGBM model: deterministic, stopped early on the purged valid rows, blind to what follows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from quant.folds import Split

MIN_ROWS = 50  # fewer training rows than this cannot hold two leaves of LightGBM's default size with a margin

# Never all cores: the number of threads is in the model text, and a model must not depend on its machine.
THREADS = 2
FIXED = {"deterministic": True, "force_row_wise": True, "verbosity": -1}


@dataclass(frozen=True)
class Trained:
    """A fitted model: its text, cut at the best iteration, and how it came about."""

    text: str
    best_iteration: int
    objective: str
    curve: dict[str, dict[str, list[float]]]  # part (train, valid) -> metric -> value by iteration
    importance: dict[str, float]  # total gain by factor


def fit(
    X: np.ndarray,
    y: np.ndarray,
    split: Split,
    params: Mapping[str, Any],
    *,
    names: Sequence[str],
    seed: int,
    rounds: int,
    early_stopping_rounds: int,
) -> Trained:
    """Train on split.train, stop on split.valid; split.test is not looked at.

    X: float32 [N, F], NaN = missing; y: [N]; params: LightGBM's own names (`objective`, `num_leaves`, …).
    Bins come from the training rows only. ValueError for too few rows, labels not finite, or wrong shapes.
    """
    import lightgbm as lgb

    _check(X, y, split, names)
    settings = {
        "objective": "regression",
        "num_threads": THREADS,
        **params,
        **FIXED,
        "seed": seed,
    }
    parts = {
        "train": lgb.Dataset(X[split.train], y[split.train], feature_name=list(names), params=settings),
    }
    parts["valid"] = parts["train"].create_valid(X[split.valid], y[split.valid])
    curve: dict[str, dict[str, list[float]]] = {}
    booster = lgb.train(
        settings,
        parts["train"],
        num_boost_round=rounds,
        valid_sets=list(parts.values()),
        valid_names=list(parts),
        callbacks=[
            lgb.record_evaluation(curve),
            lgb.early_stopping(early_stopping_rounds, verbose=False),
        ],
    )
    best = booster.best_iteration or booster.current_iteration()
    gains = booster.feature_importance("gain", iteration=best)
    return Trained(
        text=booster.model_to_string(num_iteration=best),
        best_iteration=best,
        objective=settings["objective"],
        curve={part: dict(metrics) for part, metrics in curve.items()},
        importance=dict(zip(names, map(float, gains), strict=True)),
    )


def _check(X: np.ndarray, y: np.ndarray, split: Split, names: Sequence[str]) -> None:
    if X.dtype != np.float32 or X.shape != (len(y), len(names)):
        raise ValueError(
            f"X is {X.dtype} {list(X.shape)}: it must be float32 with a row per label ({len(y)}) "
            f"and a column per name ({len(names)})"
        )
    if len(split.train) < MIN_ROWS:
        raise ValueError(f"{len(split.train)} training rows are too few (at least {MIN_ROWS}): {split.counts}")
    for part in ("train", "valid"):
        bad = int((~np.isfinite(y[getattr(split, part)])).sum())
        if bad:
            raise ValueError(f"{bad} of {len(getattr(split, part))} {part} labels are not finite: drop them first")
