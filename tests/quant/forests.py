"""Small LightGBM models of every kind, and rows made to catch a forest that decides otherwise."""

import re

import lightgbm as lgb
import numpy as np

TINY = [0.0, 1e-35, 1.1e-35, 9.99e-36, 1e-40, 1e-45]
LARGE = [np.inf, 3.4028235e38, 1e20, 2.0**31, 64.0, 63.5, 32.0, 31.99, 31.0, 1.0, 0.999, 0.5]
ODD = np.array([np.nan, *(sign * x for x in TINY + LARGE for sign in (1, -1))], dtype=np.float32)


def table(rows: int, seed: int) -> np.ndarray:
    """float32 [rows, 6]: missing values, a feature that never misses, categories, and one of many zeros."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(rows, 6)).astype(np.float32)
    X[:, 4] = rng.integers(0, 90, rows)
    X[:, 5] = np.where(rng.random(rows) < 0.5, 0, X[:, 5])
    X[rng.random(X.shape) < 0.1] = np.nan
    X[:, 3] = np.nan_to_num(X[:, 3], nan=0.25)  # a feature that never misses: missing type None
    return X


def train(params: dict, rounds: int, *, categories: bool = False, seed: int = 0, rows: int = 3000) -> lgb.Booster:
    X, rng = table(rows, seed), np.random.default_rng(seed)
    clean = np.nan_to_num(X)
    y = clean[:, 0] + np.sin(3 * clean[:, 1]) + clean[:, 4] % 3 + rng.normal(size=rows)
    group = None
    match params["objective"]:
        case "binary" | "cross_entropy" | "cross_entropy_lambda":
            y = (y > 1).astype(float)
        case "poisson" | "tweedie" | "gamma":
            y = np.exp(y / 4)
        case "lambdarank" | "rank_xendcg":
            y, group = np.clip(np.floor(y), 0, 4), [30] * (rows // 30)
    data = lgb.Dataset(X, y, group=group, categorical_feature=[4] if categories else [])
    quiet = {"verbose": -1, "num_threads": 1, "min_data_in_leaf": 3, "min_data_per_group": 5, "cat_smooth": 1}
    return lgb.train(quiet | params, data, rounds)


def adversarial(booster: lgb.Booster, rows: int, seed: int = 1) -> np.ndarray:
    """Rows made of values at the model's own thresholds, one ulp to either side, and every odd float."""
    rng = np.random.default_rng(seed)
    up, down = np.float32(np.inf), np.float32(-np.inf)
    feature, threshold, decision = (_all(booster, key) for key in ("split_feature", "threshold", "decision_type"))
    X = rng.choice(ODD, size=(rows, booster.num_feature()))
    for column in range(booster.num_feature()):
        mine = (feature == column) & (decision.astype(int) & 1 == 0)  # not the numbers of category sets
        cuts = np.clip(threshold[mine], -3e38, 3e38).astype(np.float32)
        if len(cuts):
            near = rng.choice(cuts, rows)
            near = rng.choice([near, np.nextafter(near, up), np.nextafter(near, down)])
            X[:, column] = np.where(rng.random(rows) < 0.8, near, X[:, column])
        else:
            X[:, column] = np.where(rng.random(rows) < 0.7, rng.integers(-2, 110, rows), X[:, column])
    return np.ascontiguousarray(X, dtype=np.float32)


def _all(booster: lgb.Booster, key: str) -> np.ndarray:
    """A list of every tree of the model's text, joined."""
    return np.array(" ".join(re.findall(rf"(?m)^{key}=(.*)$", booster.model_to_string())).split(), float)
