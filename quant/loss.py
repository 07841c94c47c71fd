"""What LightGBM's objectives minimise, as its metrics of the same names measure it."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
CLIP = 1e-15  # of a probability, as LightGBM clips it
ALPHA, FAIR_C = 0.9, 1.0  # LightGBM's defaults


def loss(objective: str, prediction: Floats, target: Floats, weight: Floats | None, params: Mapping[str, Any]) -> float:
    """Weighted mean loss of predictions [N] (probabilities for binary). ValueError for an objective without one."""
    if objective not in LOSSES:
        raise ValueError(f"objective {objective} has no loss of single rows: choose one of {', '.join(LOSSES)}")
    return float(np.average(LOSSES[objective](target - prediction, prediction, params), weights=weight))


def _huber(error: Floats, _: Floats, params: Mapping[str, Any]) -> Floats:
    alpha, size = params.get("alpha", ALPHA), np.abs(error)
    return np.where(size <= alpha, error**2 / 2, alpha * (size - alpha / 2))


def _quantile(error: Floats, _: Floats, params: Mapping[str, Any]) -> Floats:
    alpha = params.get("alpha", ALPHA)
    return np.where(error < 0, (alpha - 1) * error, alpha * error)


def _binary(error: Floats, chance: Floats, _: Mapping[str, Any]) -> Floats:
    given = np.where(error + chance > 0, chance, 1 - chance)  # the probability of what happened
    return -np.log(np.maximum(given, CLIP))


LOSSES: dict[str, Callable[[Floats, Floats, Mapping[str, Any]], Floats]] = {
    "regression": lambda error, *_: error**2,
    "regression_l1": lambda error, *_: np.abs(error),
    "huber": _huber,
    "fair": lambda error, *_: FAIR_C * np.abs(error) - FAIR_C**2 * np.log1p(np.abs(error) / FAIR_C),
    "quantile": _quantile,
    "binary": _binary,
}
