"""Distances between samples are Evidently's, whoever computes them."""

import sys

import numpy as np
import pytest
from evidently.legacy.calculations.stattests.registry import get_registered_stattest
from evidently.legacy.core import ColumnType
from scipy import stats
from scipy.spatial import distance as of_shares

from quant.distances import distance

METHODS = ["wasserstein", "jensenshannon", "psi", "kl_div", "hellinger", "ed"]


def samples(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Values now and in the reference, of which some are equal."""
    random = np.random.default_rng(seed)
    now, then = random.standard_t(3, 420) * 1.3 + 0.1, random.standard_t(3, 2000)
    now[:50], then[:90] = 0.5, 0.5
    return now, then


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("scale", [1.0, 1e-6, 0.0])
def test_each_is_the_number_that_evidently_gives(method: str, scale: float) -> None:
    """Of values as they come, tiny ones as returns, and constant ones."""
    import pandas as pd

    now, then = (values * scale for values in samples(1))
    test = get_registered_stattest(method, ColumnType.Numerical)
    expected = test(pd.Series(then), pd.Series(now), ColumnType.Numerical, None).drift_score
    assert distance(method)(now, then) == pytest.approx(expected, rel=1e-12, abs=1e-15, nan_ok=True)


def test_they_are_scipy_s() -> None:
    now, then = samples(2)
    bins = np.histogram_bin_edges(np.concatenate([now, then]), "sturges")
    shares = [np.histogram(values, bins)[0] / len(values) for values in (then, now)]
    assert distance("wasserstein")(now, then) == pytest.approx(stats.wasserstein_distance(now, then) / then.std())
    assert distance("jensenshannon")(now, then) == pytest.approx(of_shares.jensenshannon(*shares))


def test_what_scipy_has_does_without_evidently_whose_import_takes_longer_than_all_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "evidently"]:
        monkeypatch.setitem(sys.modules, name, None)  # whoever imports it fails
    assert distance("wasserstein")(*samples(3)) > 0
    assert distance("ed")(*samples(3)) > 0
    with pytest.raises(ImportError):
        distance("psi")
