"""Measures of predictions of two classes: ranking (AUC), probability (log-loss, Brier), and their calibration."""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
CLIP = 1e-15  # a probability of exactly 0 or 1 that is wrong would cost infinity


def auc(chance: Floats, happened: npt.NDArray[np.bool_]) -> float:
    """Area under the ROC curve: the chance that a row where it happened was ranked above one where it did not.

    chance: [n] probability or any score; ties count half. NaN where only one class is there.
    """
    positive = int(happened.sum())
    negative = len(happened) - positive
    if not (positive and negative):
        return np.nan
    _, place, count = np.unique(chance, return_inverse=True, return_counts=True)
    rank = (np.cumsum(count) - (count - 1) / 2)[place]
    return float((rank[happened].sum() - positive * (positive + 1) / 2) / (positive * negative))


def log_loss(chance: Floats, happened: npt.NDArray[np.bool_]) -> float:
    """Mean of -log of the probability given to what happened; what predicts a half scores log 2."""
    p = np.clip(chance, CLIP, 1 - CLIP)
    return float(-np.where(happened, np.log(p), np.log1p(-p)).mean()) if len(p) else np.nan


def brier(chance: Floats, happened: npt.NDArray[np.bool_]) -> float:
    """Mean squared distance of the probability from what happened, 0 or 1."""
    return float(((chance - happened) ** 2).mean()) if len(chance) else np.nan


def reliability(predicted: Floats, outcome: Floats, bins: int = 10) -> list[dict[str, float]]:
    """Mean prediction against mean outcome, in bins of equally many rows by prediction, lowest first.

    For classes the outcome is 0 or 1 and its mean a share. error: the standard error of a bin's mean outcome, its rows
    taken as independent. Equal predictions never part: ties make fewer bins.
    """
    if not len(predicted):
        return []
    edges = np.unique(np.quantile(predicted, np.linspace(0, 1, bins + 1))[1:-1])
    place = np.searchsorted(edges, predicted, side="left")
    found = []
    for number in np.unique(place):
        mine = outcome[place == number]
        spread = float(mine.std(ddof=1) / np.sqrt(len(mine))) if len(mine) > 1 else np.nan
        found.append(
            {
                "predicted": float(predicted[place == number].mean()),
                "outcome": float(mine.mean()),
                "error": spread,
                "rows": len(mine),
            }
        )
    return found


def calibration_error(bins: list[dict[str, float]]) -> float:
    """Expected calibration error: mean distance of a bin's prediction from its outcome, by rows."""
    rows = sum(found["rows"] for found in bins)
    return sum(abs(f["predicted"] - f["outcome"]) * f["rows"] for f in bins) / rows if rows else np.nan
