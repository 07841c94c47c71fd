"""What a model must beat: a linear model on the same factors and the same training rows."""

import numpy as np

CLIP = 5.0  # standard deviations: one wild bar must not steer the coefficients
BLOCK = 65_536  # rows held as float64 at once


def linear(X: np.ndarray, y: np.ndarray, train: np.ndarray, rows: np.ndarray, penalty: float = 1e-3) -> np.ndarray:
    """Predictions [len(rows)] of a ridge regression fitted on the rows `train` of X float32 [N, F], y [N].

    Factors are standardised by their training mean and deviation, clipped at 5; missing ones are their mean.
    penalty: share of the number of training rows added to the diagonal. Factors constant in training weigh 0.
    """
    mean, scale = _moments(X, train)

    def standard(block: np.ndarray) -> np.ndarray:
        z = (X[block] - mean) / scale
        return np.clip(np.nan_to_num(z, nan=0.0, posinf=CLIP, neginf=-CLIP), -CLIP, CLIP)

    width = X.shape[1]
    gram, moment = np.zeros((width, width)), np.zeros(width)
    level = float(np.mean(y[train]))
    for block in _blocks(train):
        z = standard(block)
        gram += z.T @ z
        moment += z.T @ (y[block] - level)
    weights = np.linalg.solve(gram + penalty * len(train) * np.eye(width), moment)
    return np.concatenate([level + standard(block) @ weights for block in _blocks(rows)])


def _moments(X: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of each column's finite values, float64; a column without any: 0 and infinity."""
    width = X.shape[1]
    count, total, square = np.zeros(width), np.zeros(width), np.zeros(width)
    for block in _blocks(rows):
        x = X[block].astype(np.float64)
        finite = np.isfinite(x)
        count += finite.sum(axis=0)
        total += np.where(finite, x, 0).sum(axis=0)
    mean = total / np.maximum(count, 1)
    for block in _blocks(rows):
        x = X[block].astype(np.float64) - mean
        square += np.where(np.isfinite(x), x, 0).__pow__(2).sum(axis=0)
    deviation = np.sqrt(square / np.maximum(count, 1))
    return mean, np.where(deviation > 0, deviation, np.inf)


def _blocks(rows: np.ndarray) -> list[np.ndarray]:
    return [rows[start : start + BLOCK] for start in range(0, max(1, len(rows)), BLOCK)]
