"""Evidently's distances between two samples of a column, by name.

The two that are a single call of SciPy's are made by that call: importing Evidently takes some nine seconds of CPU.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

Floats = npt.NDArray[np.float64]
Distance = Callable[[Floats, Floats], float]


def distance(method: str) -> Distance:
    """A distance as a function of values now and in the reference, both finite float64 [n], neither empty."""
    return {"wasserstein": _wasserstein, "ed": _energy}.get(method) or _evidently(method)


def _wasserstein(now: Floats, then: Floats) -> float:
    return float(stats.wasserstein_distance(then, now)) / max(float(then.std()), 0.001)


def _energy(now: Floats, then: Floats) -> float:
    return float(stats.energy_distance(then, now))


def _evidently(method: str) -> Distance:
    import pandas as pd
    from evidently.legacy.calculations.stattests.registry import get_registered_stattest
    from evidently.legacy.core import ColumnType

    test: Any = get_registered_stattest(method, ColumnType.Numerical)

    def measure(now: Floats, then: Floats) -> float:
        return float(test(pd.Series(then), pd.Series(now), ColumnType.Numerical, None).drift_score)

    return measure
