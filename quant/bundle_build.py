"""Making a bundle: a trained model and its recipe, with the golden data that will prove it."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from quant.bundle import FORMAT, IDENTITY, Bundle, BundleError, device, identity, without_bars
from quant.forest import compile as compile_forest
from quant.novelty import Novelty
from quant.recipe import NO_BARS, Recipe
from quant.train import Trained


def build(
    *,
    horizon: str,
    recipe: Recipe,
    trained: Trained,
    config: Any,
    label: Mapping[str, Any],
    digests: Mapping[str, str],
    golden_bars: pl.DataFrame,
    counts: Mapping[str, int],
    spans: Mapping[str, Any],
    scores: Mapping[str, Any],
    statistics: Mapping[str, Any],
    folds: Sequence[Mapping[str, Any]] = (),
    weights: Mapping[str, float] | None = None,
    tuning: Mapping[str, Any] | None = None,
    golden_others: Mapping[str, pl.DataFrame] = NO_BARS,
    novelty: Novelty | None = None,
    abstain_above: float | None = None,
) -> Bundle:
    """Make the bundle of a trained model, its golden predictions asked of LightGBM itself.

    config: the resolved config (JSON values or text); label: name, text, lookahead; digests: content, config, source,
    lock; golden_bars: valid bars that reach the look-back before at least one slot; counts: where the rows went; spans:
    first and last bar of train, valid and test; folds: both of each fold of the out-of-fold predictions; statistics:
    `feature_statistics` of the training rows; weights: how unequally these weigh, None where all weigh alike; tuning:
    `quant.tuned.Tuned.summary`, None where nothing was searched; golden_others: bars of the horizons in `recipe.reads`
    for the same slots; novelty: of rows against the training rows, None where it is not measured; abstain_above: the
    novelty above which a prediction is no signal. Raises BundleError where a part does not fit.
    """
    import lightgbm as lgb

    if set(digests) != set(IDENTITY):
        raise BundleError(f"digests are {sorted(digests)}, they must be {sorted(IDENTITY)}")
    booster = lgb.Booster(model_str=trained.text)
    if tuple(booster.feature_name()) != tuple(recipe.factors):
        raise BundleError("the model's columns are not the recipe's factors in their order")
    keys, X = recipe.rows(golden_bars, absent=without_bars(recipe, golden_bars), others=golden_others)
    columns = {name: pl.Series(X[:, number], nan_to_null=False) for number, name in enumerate(recipe.factors)}
    golden = keys.with_columns(**columns, prediction=booster.predict(trained.preprocess.apply(X)))
    golden_novelty = None if novelty is None else novelty.of(X, tuple(recipe.factors))
    manifest = {
        "format": FORMAT,
        "id": identity(digests),
        "horizon": horizon,
        "digests": dict(digests),
        "config": config,
        "recipe": recipe.to_dict(),
        "lookback": recipe.lookback,
        "crosses": recipe.crosses,
        "label": dict(label),
        "preprocessing": trained.preprocess.to_dict(),
        "objective": trained.objective,
        "best_iteration": trained.best_iteration,
        "trees": {str(seed): count for seed, count in trained.trees.items()},
        "curve": trained.curve,
        "importance": trained.importance,
        "counts": dict(counts),
        "weights": None if weights is None else dict(weights),
        "tuning": None if tuning is None else dict(tuning),
        "spans": dict(spans),
        "folds": list(folds),
        "scores": dict(scores),
        "statistics": dict(statistics),
        "novelty": None if novelty is None else {**novelty.summary, "abstain_above": abstain_above},
        "device": device(),
    }
    forest = compile_forest(trained.text)
    return Bundle(
        manifest, recipe, trained.text, forest, golden_bars, golden, dict(golden_others), novelty, golden_novelty
    )


def feature_statistics(X: np.ndarray, columns: Collection[str], bins: int = 10) -> dict[str, Any]:
    """Per factor of X float32 [N, F]: share missing, and bins + 1 quantile edges (None without values)."""
    found: dict[str, Any] = {}
    for number, name in enumerate(columns):
        values = X[:, number]
        finite = values[np.isfinite(values)]
        edges = np.quantile(finite, np.linspace(0, 1, bins + 1)).tolist() if len(finite) else None
        found[name] = {"missing": float(np.isnan(values).mean()), "edges": edges}
    return found
