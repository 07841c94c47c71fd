"""How good are predictions: correlation by section, hit rate, quantile spread, and money after costs.

Every number is per predictor, so that the baselines stand beside the model under the same rules.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from quant.portfolio import earn
from quant.stats import lags_for, mean_of

Column = npt.NDArray[Any]
MIN_SYMBOLS = 3  # a correlation of two points is always +1 or -1


def score(
    time: Column,
    symbol: Column,
    outcome: Column,
    predictions: Mapping[str, Column],
    *,
    lookahead: int,
    cost_bps: float,
    quantiles: int = 5,
) -> dict[str, dict[str, Any]]:
    """Score each predictor on the same rows: {predictor: {measure: number or None where undefined}}.

    time: datetime64 [N]; symbol, outcome (a return over the next `lookahead` sections): [N]; predictions:
    name -> [N], NaN = none made. A `zero` predictor is added: what it scores is what doing nothing scores.
    The result is JSON as it stands.
    """
    if "zero" in predictions:
        raise ValueError("the predictor name 'zero' is taken by the baseline that predicts nothing")
    if lookahead < 1:
        raise ValueError(f"lookahead is {lookahead}: an outcome lies at least one section ahead")
    rows = pl.DataFrame({"time": time, "symbol": symbol, "outcome": np.asarray(outcome, np.float64)})
    scores = {}
    for name, values in {**predictions, "zero": np.zeros(len(outcome))}.items():
        frame = rows.with_columns(prediction=pl.Series(np.asarray(values, np.float64)))
        scores[name] = _finite(_measure(frame, lookahead, cost_bps, quantiles))
    return scores


def section_ic(frame: pl.DataFrame, method: str) -> pl.DataFrame:
    """Correlation of `prediction` and `outcome` within each section: (time, ic), sections in order.

    method: "pearson" (IC) or "spearman" (rank IC). Sections with fewer than three complete rows, or where
    either side is constant, have no correlation and are left out.
    """
    complete = pl.col("prediction").is_finite() & pl.col("outcome").is_finite()
    pair = [pl.col("prediction"), pl.col("outcome")]
    if method == "spearman":
        pair = [column.rank("average") for column in pair]
    varied = pl.all_horizontal(pl.col(c).max() > pl.col(c).min() for c in ("prediction", "outcome"))
    return (
        frame.filter(complete)
        .group_by("time")
        .agg(ic=pl.when(varied & (pl.len() >= MIN_SYMBOLS)).then(pl.corr(*pair)))
        .drop_nulls()
        .sort("time")
    )


def quantile_means(frame: pl.DataFrame, quantiles: int) -> list[float]:
    """Mean outcome by quantile of the prediction within each section, lowest first, sections weighing alike.

    Ties keep their rows' order. Sections with fewer rows than quantiles, or with one prediction for all, are left
    out; NaN where none is left.
    """
    complete = pl.col("prediction").is_finite() & pl.col("outcome").is_finite()
    place = (pl.col("prediction").rank("ordinal") - 1) * quantiles // pl.len()
    varied = pl.col("prediction").max() > pl.col("prediction").min()
    means = (
        frame.filter(complete)
        .filter(((pl.len() >= quantiles) & varied).over("time"))
        .with_columns(quantile=place.over("time"))
        .group_by("time", "quantile")
        .agg(pl.col("outcome").mean())
        .group_by("quantile")
        .agg(pl.col("outcome").mean())
    )
    found = dict(means.iter_rows())
    return [found.get(quantile, math.nan) for quantile in range(quantiles)]


def _measure(frame: pl.DataFrame, lookahead: int, cost_bps: float, quantiles: int) -> dict[str, Any]:
    measures: dict[str, Any] = {}
    for name, method in (("ic", "pearson"), ("rank_ic", "spearman")):
        series = section_ic(frame, method)["ic"].to_numpy()
        found = mean_of(series, lags_for(len(series), lookahead - 1))
        measures |= {name: found.mean, f"{name}_std": found.std, f"{name}_error": found.error}
        measures |= {f"{name}_t": found.t, f"{name}_sections": found.n}
    means = quantile_means(frame, quantiles)
    return measures | {
        "rows": frame.height,
        "hit_rate": _hit_rate(frame),
        "quantile_means": means,
        "quantile_spread": means[-1] - means[0],
        "net": earn(frame, "prediction", holding=lookahead, cost_bps=cost_bps),
    }


def _hit_rate(frame: pl.DataFrame) -> float:
    """Share of rows whose prediction has the outcome's sign, among those where both have one."""
    signs = np.sign(frame["prediction"].to_numpy() * frame["outcome"].to_numpy())
    taken = signs[np.isfinite(signs) & (signs != 0)]
    return float((taken > 0).mean()) if len(taken) else math.nan


def _finite(value: Any) -> Any:
    """NaN and infinity become None: JSON has neither."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
