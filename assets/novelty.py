"""Novelty of a dataset's rows: against the rows that a model learns from, and no others."""

import numpy as np

from assets.dataset import Dataset
from assets.plan import Plan
from quant.folds import Rows
from quant.novelty import Novelty, fit
from quant.preprocess import BLOCK


def measured_by(plan: Plan, data: Dataset, train: Rows) -> Novelty:
    """How novel rows are to a model of the rows `train`."""
    config = plan.horizon.novelty
    return fit(
        data.X,
        data.names,
        train,
        plan.grid.numbers(data.timestamp),
        columns=plan.vector_names,
        sample=config.sample,
        neighbours=config.neighbours,
        apart=plan.features.lookback + plan.factors.lookback,
        seed=plan.horizon.model.seeds[0],
    )


def novelty(measure: Novelty, data: Dataset, rows: Rows) -> np.ndarray:
    """Novelty float32 [len(rows)], a block of rows at a time."""
    blocks = [rows[start : start + BLOCK] for start in range(0, len(rows), BLOCK)]
    return np.concatenate([measure.of(data.X[block], data.names) for block in blocks])
