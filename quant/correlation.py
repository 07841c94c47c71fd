"""Rank correlations between the columns of a table with missing values."""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def rank_correlation(ranks: Floats) -> Floats:
    """Spearman's correlation between columns, [F, F], from each column's ranks [N, F] with ties averaged.

    NaN is a missing value. A pair counts the rows where both columns have one, under the ranks that they have in
    their own column; NaN where fewer than two such rows are there or a column is constant on them.
    """
    missing = np.isnan(ranks)
    # Centred, so that the differences of sums below lose no digits; a missing value adds nothing.
    centred = ranks - np.where(missing, 0, ranks).sum(axis=0) / np.maximum((~missing).sum(axis=0), 1)
    centred[missing] = 0
    if missing.any():
        there = (~missing).astype(float)
        n = there.T @ there
        sums, squares = centred.T @ there, (centred**2).T @ there  # [i, j]: of column i where column j is present
    else:
        n = np.full((ranks.shape[1],) * 2, float(len(ranks)))
        sums, squares = np.zeros_like(n), np.broadcast_to((centred**2).sum(axis=0)[:, None], n.shape)
    with np.errstate(divide="ignore", invalid="ignore"):
        covariance = centred.T @ centred - sums * sums.T / n
        spread = squares - sums**2 / n
        spread = np.where(spread > 1e-9 * squares, spread, np.nan)  # what is left of a constant column is rounding
        found = covariance / np.sqrt(spread * spread.T)
    found[n < 2] = np.nan
    return np.clip(found, -1.0, 1.0)
