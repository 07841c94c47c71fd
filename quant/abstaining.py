"""What abstaining would buy: the error of the predictions that are left, for each novelty above which none is made."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from quant.classes import log_loss
from quant.portfolio import Terms, book
from quant.score import Task, finite, hit_rate, ic_series, leaning
from quant.stats import lags_for, mean_of

THRESHOLDS = (1.0, 0.99, 0.975, 0.95, 0.9, 0.8, 0.7, 0.5, 0.3)


def abstained(novelty: pl.Expr, above: float) -> pl.Expr:
    """Whether a prediction is no signal. A novelty that is not known is never above."""
    return (novelty > above).fill_null(False)


def signals(frame: pl.DataFrame, prediction: str, above: float | None) -> pl.DataFrame:
    """The frame with NaN for each prediction that is no signal: what would be traded. above: None where it always is.

    Scores leave such a row out, and a book gives it no weight.
    """
    if above is None:
        return frame
    kept = pl.when(~abstained(pl.col("novelty"), above)).then(prediction).otherwise(np.nan)
    return frame.with_columns(kept.alias(prediction))


def coverage(
    frame: pl.DataFrame, terms: Terms, task: Task, thresholds: Sequence[float] = THRESHOLDS
) -> list[dict[str, Any]]:
    """A row per threshold, highest first: what is kept and how good it is, JSON as it stands.

    frame: time, symbol, outcome, prediction, novelty, and what a book needs. coverage: share of rows kept; error: root
    of the mean squared error (of classes, log-loss; of an order, None) of the rows kept, and error_left of the others;
    rank_ic, hit_rate: of those kept; sharpe: of a book in which the others have no weight.
    """
    found = []
    for above in sorted(set(thresholds), reverse=True):
        out = abstained(pl.col("novelty"), above)
        kept, left = frame.filter(~out), frame.filter(out)
        series = ic_series(kept, "spearman")["ic"].to_numpy()
        rank = mean_of(series, lags_for(len(series), terms.holding - 1))
        traded = signals(leaning(frame, task), "prediction", above)
        net = book(traded, "prediction", terms).summary() if kept.height else {"sharpe": None, "sharpe_error": None}
        found.append(
            {
                "above": above,
                "coverage": kept.height / max(frame.height, 1),
                "rows": kept.height,
                "error": _error(kept, task),
                "error_left": _error(left, task),
                "rank_ic": rank.mean,
                "rank_ic_error": rank.error,
                "hit_rate": hit_rate(leaning(kept, task)),
                "sharpe": net["sharpe"],
                "sharpe_error": net["sharpe_error"],
            }
        )
    return finite(found)


def _error(frame: pl.DataFrame, task: Task) -> float | None:
    complete = frame.filter(pl.col("prediction").is_finite() & pl.col("outcome").is_finite())
    if task == "ranking" or complete.is_empty():
        return None
    predicted, outcome = complete["prediction"].to_numpy(), complete["outcome"].to_numpy()
    if task == "binary":
        return log_loss(predicted, outcome > 0)
    return float(np.sqrt(np.mean((predicted - outcome) ** 2)))
