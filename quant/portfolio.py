"""What predictions would have earned: a dollar-neutral book of overlapping tranches, net of costs.

At each section one tranche of 1/h of the capital trades into rank weights and holds them for the label's h
sections. So h tranches are open at a time, and each label's return is earned once, on the capital it had.
"""

from typing import Any

import numpy as np
import polars as pl

from quant.stats import lags_for, long_run_variance


def earn(frame: pl.DataFrame, prediction: str, *, holding: int, cost_bps: float) -> dict[str, Any]:
    """Annualised return, Sharpe ratio and its standard error, turnover, of a book traded on `prediction`.

    frame: `time` (Datetime), `symbol`, `outcome` (return over the next `holding` sections), the prediction;
    cost_bps: basis points paid per side on what is traded. A missing outcome earns nothing. Returns of
    neighbouring sections overlap: the variance is Newey-West's, the error of the Sharpe ratio Lo's (2002).
    """
    times = frame["time"].unique().sort()
    weights, outcome = _matrices(frame, prediction, times)
    before = np.vstack([np.zeros_like(weights[:holding]), weights[:-holding]])[: len(weights)]
    traded = np.abs(weights - before).sum(axis=1)
    gross = (weights * outcome).sum(axis=1) / holding
    net = gross - traded * cost_bps / 1e4 / holding
    per_year = _sections_per_year(times)
    sharpe, error = _sharpe(net, holding, per_year)
    return {
        "annual_return": float(net.mean() * per_year),
        "annual_return_before_costs": float(gross.mean() * per_year),
        "sharpe": sharpe,
        "sharpe_error": error,
        "sharpe_before_costs": _sharpe(gross, holding, per_year)[0],
        "turnover": float(traded.mean() / holding),  # share of capital traded at each section
        "cost_bps": float(cost_bps),
        "sections": len(times),
    }


def weigh(frame: pl.DataFrame, prediction: str) -> pl.Series:
    """Weights by rank within each section, ties shared: they sum to 0 and their sizes to 1, or are all 0."""
    rank = pl.col(prediction).fill_nan(None).rank("average")
    centred = rank - rank.mean()
    size = centred.abs().sum()
    weight = pl.when(size > 0).then(centred / size).otherwise(0.0).fill_null(0.0)
    return frame.select(weight.over("time").alias("weight"))["weight"]


def _matrices(frame: pl.DataFrame, prediction: str, times: pl.Series) -> tuple[np.ndarray, np.ndarray]:
    """Weights and outcomes, [sections, symbols], 0 where there is no row."""
    row = times.search_sorted(frame["time"]).to_numpy()
    symbols = frame["symbol"].unique().sort()
    column = symbols.search_sorted(frame["symbol"]).to_numpy()
    weights, outcome = np.zeros((2, len(times), len(symbols)))
    weights[row, column] = weigh(frame, prediction).to_numpy()
    outcome[row, column] = frame["outcome"].fill_null(0).fill_nan(0).to_numpy()
    return weights, outcome


def _sharpe(returns: np.ndarray, holding: int, per_year: float) -> tuple[float, float]:
    """Annualised Sharpe ratio and its standard error; NaN where nothing was ever held."""
    deviation = np.sqrt(long_run_variance(returns, lags_for(len(returns), holding - 1)))
    if not deviation > 0:
        return np.nan, np.nan
    ratio = returns.mean() / deviation
    error = np.sqrt((1 + ratio**2 / 2) / len(returns))
    return float(ratio * np.sqrt(per_year)), float(error * np.sqrt(per_year))


def _sections_per_year(times: pl.Series) -> float:
    if len(times) < 2:
        return np.nan
    seconds = (times[-1] - times[0]).total_seconds()
    return (len(times) - 1) * 365.25 * 86400 / seconds
