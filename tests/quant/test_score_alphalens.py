"""Scores against what alphalens-reloaded 0.5.1 (pandas 3.1.1) said of the same frame, in an environment of its own.

It is not a dependency: it wants seaborn, statsmodels and IPython. The figures below are its outputs for `drawn()`:
`performance.factor_information_coefficient`, `performance.mean_return_by_quantile(demeaned=False)` after
`utils.quantize_factor(quantiles=5)`, and `performance.factor_returns(demeaned=True)`.
"""

import numpy as np
import polars as pl

from quant.portfolio import Terms, book
from quant.score import quantile_means, section_ic

IC = [
    0.285714285714, 0.33984962406, -0.121804511278, 0.216541353383, 0.228571428571, 0.556390977444,
    0.377443609023, 0.404511278195, 0.266165413534, 0.09022556391, 0.063157894737, 0.305263157895,
]  # fmt: skip
QUANTILE_MEANS = [-0.001716869585, -0.002189392332, 0.000400536712, 0.001662475763, 0.005473692943]
FACTOR_RETURNS = [
    0.002205771515, 0.003714908308, -0.000617789439, 0.004905011677, 0.003869783355, 0.009826739784,
    0.002833252558, 0.005231630327, 0.002403687821, 0.001311171993, 0.001838838433, 0.003985961656,
]  # fmt: skip


def drawn() -> pl.DataFrame:
    rng = np.random.default_rng(11)
    prediction = rng.normal(size=(12, 20))
    outcome = 0.01 * (0.3 * prediction + np.sqrt(1 - 0.09) * rng.normal(size=(12, 20)))
    time = np.datetime64("2023-01-02", "us") + np.arange(12) * np.timedelta64(1, "D")
    return pl.DataFrame(
        {
            "time": np.repeat(time, 20),
            "symbol": [f"S{number:02}" for number in range(20)] * 12,
            "prediction": prediction.ravel(),
            "outcome": outcome.ravel(),
        }
    )


def test_the_rank_ic_of_each_section_is_alphalenss() -> None:
    np.testing.assert_allclose(section_ic(drawn(), "spearman")["ic"], IC, atol=1e-12)


def test_mean_outcomes_by_quintile_are_alphalenss() -> None:
    np.testing.assert_allclose(quantile_means(drawn(), 5), QUANTILE_MEANS, atol=1e-12)


def test_a_proportional_book_earns_alphalenss_factor_returns() -> None:
    found = book(drawn(), "prediction", Terms(holding=1, cost_bps=0.0, weighting="proportional"))
    np.testing.assert_allclose(found.gross, FACTOR_RETURNS, atol=1e-12)
