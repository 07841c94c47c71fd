"""Rank correlations against pandas and scipy."""

import numpy as np
import pandas as pd
import scipy.stats

from quant.correlation import rank_correlation


def ranks(values: np.ndarray) -> np.ndarray:
    return pd.DataFrame(values).rank().to_numpy()


def test_it_is_spearmans_correlation_ties_included() -> None:
    random = np.random.default_rng(1)
    values = random.normal(size=(500, 6)) @ random.normal(size=(6, 6))
    values[:, 2] = np.round(values[:, 2])
    expected = scipy.stats.spearmanr(values).statistic
    np.testing.assert_allclose(rank_correlation(ranks(values)), expected, atol=1e-12)


def test_a_pair_counts_the_rows_where_both_have_a_value() -> None:
    random = np.random.default_rng(2)
    values = random.normal(size=(400, 5)) @ random.normal(size=(5, 5))
    values[random.random(values.shape) < 0.3] = np.nan
    expected = pd.DataFrame(ranks(values)).corr(min_periods=2).to_numpy()
    np.testing.assert_allclose(rank_correlation(ranks(values)), expected, atol=1e-12)


def test_a_constant_column_and_one_without_values_have_no_correlation() -> None:
    values = np.column_stack([np.arange(9.0), np.full(9, 3.0), np.full(9, np.nan), -np.arange(9.0)])
    found = rank_correlation(ranks(values))
    assert found[0, 3] == -1
    assert np.isnan(found[1]).all()
    assert np.isnan(found[2]).all()
