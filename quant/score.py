"""How good are predictions: correlation by section, hit rate, quantile spread, calibration, and money after costs.

Every number is per predictor, so that the baselines stand beside the model under the same rules.
"""

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import polars as pl

from quant.classes import auc, brier, calibration_error, log_loss, reliability
from quant.portfolio import Terms, book
from quant.stats import lags_for, mean_of
from quant.train import RANKING

Task = Literal["regression", "binary", "ranking"]
MIN_SYMBOLS = 3  # a correlation of two points is always +1 or -1
QUANTILES = 10
CERTAIN = 0.5  # of a class: the prediction that leans neither way


def score(
    frame: pl.DataFrame, predictors: Sequence[str], terms: Terms, task: Task = "regression"
) -> dict[str, dict[str, Any]]:
    """Score each predictor on the same rows: {predictor: {measure: number or None where undefined}}, JSON as it stands.

    frame: one row per (`time`, `symbol`); `outcome`, the return over the next `terms.holding` sections; a column per
    predictor, NaN = none made, out of fold; what `terms` needs (`quant.portfolio.book`). task: what the first predictor
    predicts: a return, the chance of one above 0, or an order; the others, its baselines, predict returns. A `zero`
    predictor is added: what it scores is what doing nothing scores.
    """
    if "zero" in predictors:
        raise ValueError("the predictor name 'zero' is taken by the baseline that predicts nothing")
    scores = {}
    for at, name in enumerate([*predictors, "zero"]):
        values = pl.lit(0.0) if name == "zero" else pl.col(name)
        scores[name] = finite(_measure(frame.with_columns(prediction=values), terms, task, baseline=at > 0))
    return scores


def task_for(objective: str) -> Task:
    """What a model of that LightGBM objective predicts: a return, the chance of one above 0, or an order."""
    return "binary" if objective == "binary" else "ranking" if objective in RANKING else "regression"


def leaning(frame: pl.DataFrame, task: Task) -> pl.DataFrame:
    """The frame with `prediction` above 0 where it says up: a probability less a half."""
    return frame.with_columns(pl.col("prediction") - CERTAIN) if task == "binary" else frame


def over_time(frame: pl.DataFrame) -> bool:
    """Whether no section has symbols enough to be correlated: then scores are over time."""
    return frame["symbol"].n_unique() < MIN_SYMBOLS


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


def time_ic(frame: pl.DataFrame, method: str) -> pl.DataFrame:
    """What each section adds to the correlation over time: (time, ic), whose mean is the correlation itself.

    For one or two symbols. Each symbol's predictions and outcomes (ranks for "spearman") are standardised over all of
    its rows, then multiplied; a symbol whose either side is constant is left out.
    """
    complete = pl.col("prediction").is_finite() & pl.col("outcome").is_finite()

    def standard(name: str) -> pl.Expr:
        column = pl.col(name).rank("average") if method == "spearman" else pl.col(name)
        return (column - column.mean()) / column.std(ddof=0)

    return (
        frame.filter(complete)
        .with_columns(ic=(standard("prediction") * standard("outcome")).over("symbol"))
        .filter(pl.col("ic").is_finite())
        .group_by("time")
        .agg(pl.col("ic").mean())
        .sort("time")
    )


def ic_series(frame: pl.DataFrame, method: str) -> pl.DataFrame:
    """(time, ic): by section where there are symbols enough, else what each section adds to the one over time."""
    return (time_ic if over_time(frame) else section_ic)(frame, method)


def quantile_count(frame: pl.DataFrame) -> int:
    """Ten, or as many as the median section has rows; ten over time."""
    if over_time(frame):
        return QUANTILES
    typical = float(np.median(frame.group_by("time").len()["len"].to_numpy()))
    return int(np.clip(typical, 2, QUANTILES))


def quantile_means(frame: pl.DataFrame, quantiles: int) -> list[float]:
    """Mean outcome by quantile of the prediction within each section, lowest first, sections weighing alike.

    Ties keep their rows' order. Sections with fewer rows than quantiles, or with one prediction for all, are left
    out; NaN where none is left. Where sections have too few symbols, quantiles are those of all rows together.
    """
    series = quantile_series(frame, quantiles).group_by("quantile").agg(pl.col("outcome").mean())
    found = dict(series.iter_rows())
    return [found.get(quantile, math.nan) for quantile in range(quantiles)]


def quantile_series(frame: pl.DataFrame, quantiles: int) -> pl.DataFrame:
    """(time, quantile, outcome): the mean outcome of each section's quantile, 0 the lowest."""
    complete = pl.col("prediction").is_finite() & pl.col("outcome").is_finite()
    place = (pl.col("prediction").rank("ordinal") - 1) * quantiles // pl.len()
    enough = (pl.len() >= quantiles) & (pl.col("prediction").max() > pl.col("prediction").min())
    rows = frame.filter(complete)
    together = over_time(frame)
    placed = (
        rows.filter(enough if together else enough.over("time"))
        .with_columns(quantile=(place if together else place.over("time")).cast(pl.Int64))
        .group_by("time", "quantile")
    )
    return placed.agg(pl.col("outcome").mean()).sort("time", "quantile")


def measure_ic(frame: pl.DataFrame, lookahead: int) -> dict[str, Any]:
    """IC and rank IC: mean, deviation, information ratio (mean by deviation), Newey-West error and t, sections."""
    measures: dict[str, Any] = {}
    for name, method in (("ic", "pearson"), ("rank_ic", "spearman")):
        series = ic_series(frame, method)["ic"].to_numpy()
        found = mean_of(series, lags_for(len(series), lookahead - 1))
        ratio = found.mean / found.std if found.std > 0 else math.nan
        measures |= {name: found.mean, f"{name}_std": found.std, f"{name}_ir": ratio, f"{name}_error": found.error}
        measures |= {f"{name}_t": found.t, f"{name}_sections": found.n}
    return measures


def hit_rate(frame: pl.DataFrame) -> float:
    """Share of rows whose prediction has the outcome's sign, among those where both have one."""
    signs = np.sign(frame["prediction"].to_numpy() * frame["outcome"].to_numpy())
    taken = signs[np.isfinite(signs) & (signs != 0)]
    return float((taken > 0).mean()) if len(taken) else math.nan


def finite(value: Any) -> Any:
    """NaN and infinity become None: JSON has neither."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _measure(frame: pl.DataFrame, terms: Terms, task: Task, *, baseline: bool) -> dict[str, Any]:
    quantiles = quantile_count(frame)
    means = quantile_means(frame, quantiles)
    leant = frame if baseline else leaning(frame, task)
    series = quantile_series(frame, quantiles).filter(pl.col("quantile").is_in([0, quantiles - 1]))
    spread = _spread(series, quantiles, terms.holding, over_time(frame))
    return {
        **measure_ic(frame, terms.holding),
        "rows": frame.height,
        "over_time": over_time(frame),
        "hit_rate": hit_rate(leant),
        "quantile_means": means,
        "quantile_spread": means[-1] - means[0],
        "quantile_spread_error": spread,
        **_fit(frame, task, baseline=baseline),
        "net": {**book(leant, "prediction", terms).summary(), "cost_bps": float(terms.cost_bps)},
    }


def _spread(ends: pl.DataFrame, quantiles: int, holding: int, together: bool) -> float:
    """Newey-West error of the top quantile's mean outcome less the bottom's; NaN over time, where they never meet."""
    if together or ends.is_empty():
        return math.nan
    sign = pl.when(pl.col("quantile") == quantiles - 1).then(pl.col("outcome")).otherwise(-pl.col("outcome"))
    by_section = ends.group_by("time").agg(sign.sum().alias("spread")).sort("time")["spread"].to_numpy()
    return mean_of(by_section, lags_for(len(by_section), holding - 1)).error


def _fit(frame: pl.DataFrame, task: Task, *, baseline: bool) -> dict[str, Any]:
    """Calibration, in the outcome's own unit; for classes also AUC, log-loss and the Brier score."""
    complete = frame.filter(pl.col("prediction").is_finite() & pl.col("outcome").is_finite())
    predicted, outcome = complete["prediction"].to_numpy(), complete["outcome"].to_numpy()
    if task == "ranking" or not len(predicted):
        return {}
    if task == "regression":
        variance = float(predicted.var())
        slope = float(np.cov(predicted, outcome, ddof=0)[0, 1]) / variance if variance > 0 else math.nan
        return {"calibration_slope": slope, "reliability": reliability(predicted, outcome)}
    happened = outcome > 0
    ranked: dict[str, Any] = {"auc": auc(predicted, happened), "base_rate": float(happened.mean())}
    if baseline:
        return ranked
    if predicted.min() < 0 or predicted.max() > 1:
        raise ValueError(f"chances lie from {predicted.min()} to {predicted.max()}: they must lie from 0 to 1")
    bins = reliability(predicted, happened.astype(np.float64))
    losses = {"log_loss": log_loss(predicted, happened), "brier": brier(predicted, happened)}
    return ranked | losses | {"calibration_error": calibration_error(bins), "reliability": bins}
