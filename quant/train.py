"""Fit LightGBM: deterministic, stopped early on the purged valid rows, blind to every other row."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from quant.ensemble import average
from quant.folds import Rows
from quant.preprocess import BLOCK, Preprocess, Steps, learned

MIN_ROWS = 50  # fewer training rows than this cannot hold two leaves of LightGBM's default size with a margin

# Never all cores: the number of threads is in the model text, and a model must not depend on its machine.
THREADS = 2
# Without the pre-filter the bins do not depend on min_data_in_leaf, so that fits which differ in it can share them.
FIXED = {"deterministic": True, "force_row_wise": True, "feature_pre_filter": False, "verbosity": -1}
NOTHING, NO_STEPS = Preprocess(), Steps()
RANKING = ("lambdarank", "rank_xendcg")
WHOLE = {"eval_at": [2**30]}  # NDCG of the whole section: both of its ends are traded


@dataclass(frozen=True)
class Trained:
    """A fitted model: its text, cut at the best iteration, and how it came about.

    Several seeds make one text, their mean: see `quant.ensemble`.
    """

    text: str
    best_iteration: int  # trees in the text
    objective: str
    curve: dict[str, dict[str, list[float]]]  # of the first seed: part (train, valid) -> metric -> value by iteration
    importance: dict[str, float]  # total gain by factor, the mean over seeds
    trees: dict[int, int]  # by seed
    preprocess: Preprocess = NOTHING  # what the text's trees read is what this makes of the factors


@dataclass(frozen=True)
class Binned:
    """LightGBM's datasets of the rows that learn and of those that stop them: any number of fits share the bins."""

    train: Any
    valid: Any
    preprocess: Preprocess


def fit(
    X: np.ndarray,
    y: np.ndarray,
    train: Rows,
    valid: Rows,
    params: Mapping[str, Any],
    *,
    names: Sequence[str],
    seeds: Sequence[int],
    rounds: int,
    early_stopping_rounds: int,
    weight: np.ndarray | None = None,
    section: np.ndarray | None = None,
    steps: Steps = NO_STEPS,
) -> Trained:
    """Learn from the rows `train`, stop on the rows `valid`; no other row is looked at.

    X: float32 [N, F], NaN = missing; y: [N]; params: LightGBM's own names (`objective`, `num_leaves`, …); weight: [N],
    brought to a mean of 1 over the training rows; section: [N], for a ranking objective, whose queries are sections:
    equal values must be neighbours; steps: preprocessing. Bins and preprocessing come from the training rows only.
    ValueError for too few rows, labels or weights not finite, or wrong shapes.
    """
    import lightgbm as lgb

    settings = settings_of(params)
    parts = bin_rows(
        X, y, train, valid, settings, names=names, seed=seeds[0], weight=weight, section=section, steps=steps
    )
    curves, texts, trees = [], [], {}
    gains = np.zeros(len(names))
    for seed in seeds:
        curve: dict[str, dict[str, list[float]]] = {}
        booster = lgb.train(
            settings | {"seed": seed},
            parts.train,
            num_boost_round=rounds,
            valid_sets=[parts.train, parts.valid],
            valid_names=["train", "valid"],
            callbacks=[lgb.record_evaluation(curve), lgb.early_stopping(early_stopping_rounds, verbose=False)],
        )
        best = booster.best_iteration or booster.current_iteration()
        curves.append({part: dict(metrics) for part, metrics in curve.items()})
        texts.append(booster.model_to_string(num_iteration=best))
        trees[seed] = best
        gains += booster.feature_importance("gain", iteration=best) / len(seeds)
    return Trained(
        text=average(texts),
        best_iteration=sum(trees.values()),
        objective=settings["objective"],
        curve=curves[0],
        importance=dict(zip(names, map(float, gains), strict=True)),
        trees=trees,
        preprocess=parts.preprocess,
    )


def settings_of(params: Mapping[str, Any]) -> dict[str, Any]:
    """LightGBM's parameters with those that are not for a user to choose."""
    settings = {"objective": "regression", "num_threads": THREADS, **params, **FIXED}
    return {**WHOLE, **settings} if settings["objective"] in RANKING else settings


def bin_rows(
    X: np.ndarray,
    y: np.ndarray,
    train: Rows,
    valid: Rows,
    settings: Mapping[str, Any],
    *,
    names: Sequence[str],
    seed: int,
    weight: np.ndarray | None = None,
    section: np.ndarray | None = None,
    steps: Steps = NO_STEPS,
) -> Binned:
    """Sort the rows into bins, those of the training rows; settings: of `settings_of`, the rest as for `fit`."""
    import lightgbm as lgb

    _check(X, y, train, valid, names, weight)
    preprocess = learned(X, y, section, train, steps) if steps.any else NOTHING
    if settings["objective"] not in RANKING:
        section = None
    elif section is None:
        raise ValueError(f"objective {settings['objective']} ranks within sections: give the section of each row")
    scale = 1.0 if weight is None else float(weight[train].mean())

    def of(rows: Rows) -> dict[str, Any]:
        return {
            "label": y[rows],
            "weight": None if weight is None else weight[rows] / scale,
            "group": None if section is None else _queries(section[rows]),
        }

    # LightGBM lets go of the rows once they are binned: one part at a time, so that two copies never meet.
    first = {**settings, "seed": seed}
    rows = _blocks(X, train, preprocess)
    learning = lgb.Dataset(rows, **of(train), feature_name=list(names), params=first).construct()
    rows = _blocks(X, valid, preprocess)
    stopping = learning.create_valid(rows, **of(valid), params=first).construct()
    return Binned(learning, stopping, preprocess)


def _blocks(X: np.ndarray, rows: Rows, preprocess: Preprocess) -> list[np.ndarray]:
    """Those rows of X as LightGBM takes them, block by block: a copy only of blocks in which rows are left out."""
    parts = (rows[start : start + BLOCK] for start in range(0, len(rows), BLOCK))
    whole = (slice(part[0], part[-1] + 1) if part[-1] - part[0] + 1 == len(part) else part for part in parts)
    return [preprocess.apply(X[part]) for part in whole]


def _queries(section: np.ndarray) -> np.ndarray:
    """Rows of each section, in order; ValueError where a section's rows do not follow one another."""
    starts = np.flatnonzero(np.concatenate([[True], section[1:] != section[:-1]]))
    if len(starts) != len(np.unique(section)):
        raise ValueError("rows of one section are apart: sort the rows by section before ranking within sections")
    return np.diff(np.append(starts, len(section)))


def _check(
    X: np.ndarray, y: np.ndarray, train: Rows, valid: Rows, names: Sequence[str], weight: np.ndarray | None
) -> None:
    if X.dtype != np.float32 or X.shape != (len(y), len(names)):
        raise ValueError(
            f"X is {X.dtype} {list(X.shape)}: it must be float32 with a row per label ({len(y)}) "
            f"and a column per name ({len(names)})"
        )
    if len(train) < MIN_ROWS or not len(valid):
        raise ValueError(
            f"{len(train)} training rows and {len(valid)} valid rows are too few of {len(y)} "
            f"(at least {MIN_ROWS} and 1)"
        )
    for part, rows in (("train", train), ("valid", valid)):
        bad = int((~np.isfinite(y[rows])).sum())
        if bad:
            raise ValueError(f"{bad} of {len(rows)} {part} labels are not finite: drop them first")
        if weight is not None and not (np.isfinite(weight[rows]).all() and weight[rows].min() > 0):
            raise ValueError(f"weights of {part} rows must be finite and above 0")
