"""What is known of one bundle: everything its page shows, computed once from its out-of-fold predictions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl

from assets.costs import framed, task_of, terms
from assets.dataset import Dataset
from assets.learning import HELD_OUT
from assets.plan import Plan
from quant.abstaining import THRESHOLDS, coverage, signals
from quant.breakdown import by_sections, by_symbol
from quant.bundle import Bundle
from quant.explain import contributions, sample
from quant.overfitting import BLOCKS, Overfitting, overfitting
from quant.portfolio import Book, Terms, book
from quant.regime import volatility_regime
from quant.score import Task, leaning, score
from quant.sharpe import deflated, luckiest, probabilistic, sharpe

PREDICTORS = ("model", "linear", "last_return")
EXPLAINED = 1000  # rows whose SHAP values are computed
SHORTEST = 20  # sections of a volatility window, at least


@dataclass(frozen=True)
class Part:
    """Rows that some model predicted without having learned from them, and how each predictor did on them."""

    rows: pl.DataFrame  # time, symbol, outcome, fold, path, and a column per predictor; NaN where the model abstains
    scores: Mapping[str, Mapping[str, Any]]
    books: Mapping[str, Book]


@dataclass(frozen=True)
class Trials:
    """What choosing among trials did to the Sharpe ratio; figures are None where there was nothing to choose from."""

    count: int  # trials, those pruned too
    whole: int  # trials whose returns are there in full
    probabilistic: float | None  # chance that the true Sharpe ratio is above 0, before any deflation
    benchmark: float | None  # Sharpe ratio a year that the luckiest of so many without skill would have
    deflated: float | None
    overfitting: Overfitting | None
    why: str  # why a figure is not there


@dataclass(frozen=True)
class Explained:
    """SHAP values of a sample of the judging window's rows under the final model."""

    values: np.ndarray  # [rows, F]
    X: np.ndarray  # [rows, F]
    of: int  # rows they were drawn from


@dataclass(frozen=True)
class Findings:
    """One bundle: its manifest and provenance, and what its predictions were worth."""

    bundle: Bundle
    provenance: Mapping[str, Any]
    terms: Terms
    task: Task
    past: Part  # out of fold, the first path
    held_out: Part  # the judging window, by the final model
    paths: Sequence[Mapping[str, Any]]  # scores of the model on each path, where folds are combinatorial
    years: list[dict[str, Any]]
    regimes: list[dict[str, Any]]
    symbols: list[dict[str, Any]]
    window: int  # sections of the volatility that makes a regime
    trials: Trials
    explained: Explained
    tested: Mapping[int, list[tuple[np.datetime64, np.datetime64]]]  # first and last bar of each block a fold tests
    coverage: list[dict[str, Any]] | None  # by novelty, see quant.abstaining; None where the bundle has none
    siblings: int  # other bundles of the horizon: choosing among them is luck that no figure here counts


def find(
    plan: Plan,
    data: Dataset,
    bundle: Bundle,
    predictions: pl.DataFrame,
    returns: pl.DataFrame | None,
    provenance: Mapping[str, Any],
    siblings: int = 0,
) -> Findings:
    """predictions: the bundle's out-of-fold frame; returns: (time, a column per trial) of its tuning, if any; siblings:
    how many other bundles of the horizon there are.
    """
    trading, task = terms(plan), task_of(plan)
    made = framed(plan, predictions.rename({"prediction": "model"}))
    frame = signals(made, "model", bundle.abstains_above)
    held = _part(frame.filter(pl.col("fold") == HELD_OUT), trading, task)
    past = frame.filter(pl.col("fold") != HELD_OUT)
    first = _part(past.filter(pl.col("path") == 0), trading, task)
    paths = [
        score(past.filter(pl.col("path") == path), ["model"], trading, task)["model"]
        for path in past["path"].unique().sort()
    ]
    model = first.rows.with_columns(prediction="model")
    market = pl.DataFrame({"time": pl.Series(data.timestamp).cast(pl.Datetime("us")), "last_return": data.last_return})
    per_day = market.select("time").unique().group_by(pl.col("time").dt.date()).len()["len"].to_numpy()
    window = max(SHORTEST, int(np.median(per_day)))
    regimes = volatility_regime(market.with_columns(pl.col("time").dt.replace_time_zone("UTC")), window)
    years = model.select("time", year=pl.col("time").dt.year()).unique()
    return Findings(
        bundle,
        provenance,
        trading,
        task,
        first,
        held,
        paths if len(paths) > 1 else [],
        by_sections(model, years, trading, task),
        by_sections(model, regimes, trading, task),
        by_symbol(model, trading, task),
        window,
        _trials(_mean_of_paths(first.books["model"], past, trading, task), returns),
        _explained(bundle, data, held.rows),
        _tested(past),
        _coverage(bundle, made.filter(pl.col("fold") != HELD_OUT, pl.col("path") == 0), trading, task),
        siblings,
    )


def _part(rows: pl.DataFrame, trading: Terms, task: Task) -> Part:
    books = {name: book(rows, name, trading) for name in PREDICTORS}
    books["model"] = book(leaning(rows.with_columns(prediction="model"), task), "prediction", trading)
    return Part(rows, score(rows, PREDICTORS, trading, task), books)


def _mean_of_paths(first: Book, past: pl.DataFrame, trading: Terms, task: Task) -> Book:
    """The model's book as the returns of trials are: where folds are combinatorial, the mean over their paths.

    first: its book on the first path.
    """
    rows = leaning(past.filter(pl.col("path") > 0).with_columns(prediction="model"), task)
    others = [book(one, "prediction", trading).net for one in rows.partition_by("path", maintain_order=True)]
    return replace(first, net=np.mean([first.net, *others], axis=0))


def _trials(model: Book, returns: pl.DataFrame | None) -> Trials:
    """Deflate the model's Sharpe ratio by the trials that ended; those that were pruned lack sections."""
    found = sharpe(model.net, model.overlap)
    surely = _or_none(probabilistic(found, 0.0))
    whole = pl.DataFrame() if returns is None else returns.drop("time")
    matrix = whole.to_numpy().astype(np.float64) if whole.width else np.zeros((0, 0))
    matrix = matrix[:, np.isfinite(matrix).all(axis=0)]
    tried = whole.width
    ratios = [sharpe(matrix[:, at], model.overlap).ratio for at in range(matrix.shape[1])]
    moving = np.array([ratio for ratio in ratios if np.isfinite(ratio)])
    if len(moving) < 2:
        why = "Nothing was tuned: a single trial, so there was no choice that luck could have made"
        if tried > 1:
            why = f"Of {tried} trials fewer than two ran to the end: too few to measure how much they differ"
        return Trials(max(tried, 1), len(moving), surely, None, None, None, why)
    # Every trial counts in the number, pruned ones too: each was a chance to be lucky.
    variance = float(moving.var(ddof=1))
    benchmark = luckiest(variance, tried) * np.sqrt(model.per_year)
    lucky, why = None, ""
    if len(matrix) >= 2 * BLOCKS:
        lucky = overfitting(matrix)
    else:
        why = f"{len(matrix)} sections are too few for {BLOCKS} blocks"
    return Trials(tried, len(moving), surely, float(benchmark), _or_none(deflated(found, variance, tried)), lucky, why)


def _tested(past: pl.DataFrame) -> dict[int, list[tuple[np.datetime64, np.datetime64]]]:
    """Runs of neighbouring sections that each fold tests."""
    times = past["time"].unique().sort()
    found = {}
    for (fold,), rows in past.group_by("fold"):
        at = times.search_sorted(rows["time"].unique().sort()).to_numpy()
        runs = np.split(at, np.flatnonzero(np.diff(at) > 1) + 1)
        stamps = times.dt.replace_time_zone(None).to_numpy()
        found[int(str(fold))] = [(stamps[run[0]], stamps[run[-1]]) for run in runs]
    return found


def _coverage(bundle: Bundle, made: pl.DataFrame, trading: Terms, task: Task) -> list[dict[str, Any]] | None:
    """What abstaining would leave of all predictions made, at the usual thresholds and at the bundle's own; None
    without novelty.
    """
    if bundle.novelty is None or "novelty" not in made.columns:
        return None
    chosen = bundle.abstains_above
    return coverage(
        made.with_columns(prediction="model"), trading, task, THRESHOLDS if chosen is None else (*THRESHOLDS, chosen)
    )


def _explained(bundle: Bundle, data: Dataset, held_out: pl.DataFrame) -> Explained:
    """Rows of the judging window: its first section begins where the held-out predictions do."""
    start = held_out["time"].dt.replace_time_zone(None).to_numpy().min()
    rows = np.flatnonzero(data.timestamp >= start)
    taken = rows[sample(len(rows), EXPLAINED)]
    X = data.X[taken]
    return Explained(contributions(bundle.text, bundle.preprocess.apply(X))[:, :-1], X, len(rows))


def _or_none(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
