"""What a trial does in a fold: train with its parameters, predict the fold's test rows, score them.

Rows are sorted into bins once per fold and shared by all trials; only a parameter that makes the bins, when it is
searched, sorts them anew.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import polars as pl

from quant.folds import Fold
from quant.loss import loss
from quant.portfolio import Terms, book
from quant.preprocess import Steps
from quant.score import ic_series, leaning, task_for
from quant.space import Value
from quant.train import NO_STEPS, Binned, bin_rows, settings_of
from quant.tune import Scored

Metric = Literal["rank_ic", "ic", "loss"]
METHODS = {"rank_ic": "spearman", "ic": "pearson"}
BINNING = ("max_bin",)


@dataclass(frozen=True)
class Learnable:
    """Rows to learn from and to be scored on. N rows, F factors."""

    names: tuple[str, ...]
    X: np.ndarray  # float32 [N, F], NaN = missing
    target: np.ndarray  # [N] what LightGBM learns
    weight: np.ndarray | None  # [N]
    section: np.ndarray  # [N]; equal values are neighbours
    rows: pl.DataFrame  # N rows: time, symbol, outcome (a return) and what `quant.portfolio.book` needs


@dataclass(frozen=True)
class Fixed:
    """What is the same for all trials. params: LightGBM's, those searched included as they are without tuning."""

    params: Mapping[str, Any]
    rounds: int
    early_stopping_rounds: int
    seed: int
    metric: Metric
    terms: Terms
    steps: Steps = NO_STEPS


class Trainer:
    """Call with a trial's parameters and the number of a fold: a `quant.tune.Objective`."""

    def __init__(self, data: Learnable, folds: Sequence[Fold], fixed: Fixed) -> None:
        self._data, self._folds, self._fixed = data, folds, fixed
        self._binned: dict[int, tuple[tuple[Any, ...], Binned]] = {}

    def __call__(self, params: Mapping[str, Value], fold: int) -> Scored:
        import lightgbm as lgb

        fixed, test = self._fixed, self._folds[fold].test
        given: dict[str, Any] = {**fixed.params, **params}
        rounds = int(given.pop("n_estimators", fixed.rounds))
        settings = settings_of({name: value for name, value in given.items() if value is not None})
        settings["seed"] = fixed.seed
        binned = self._bins(fold, settings)
        booster = lgb.train(
            settings,
            binned.train,
            num_boost_round=rounds,
            valid_sets=[binned.valid],
            callbacks=[lgb.early_stopping(fixed.early_stopping_rounds, verbose=False)],
        )
        rows_read = binned.preprocess.apply(self._data.X[test])
        predicted = np.asarray(booster.predict(rows_read, num_threads=settings["num_threads"]), np.float64)
        rows = self._data.rows[test].with_columns(prediction=predicted)
        leant = leaning(rows, task_for(settings["objective"]))
        return Scored(self._score(rows, test, predicted, settings), self._net(leant))

    def times(self) -> list[np.ndarray]:
        """The sections of each fold's test rows, datetime64, those that `Scored.returns` is of."""
        return [self._data.rows[fold.test]["time"].unique().sort().to_numpy() for fold in self._folds]

    def _bins(self, fold: int, settings: Mapping[str, Any]) -> Binned:
        made_for = tuple(settings.get(name) for name in BINNING)
        held = self._binned.pop(fold, None)
        if held is None or held[0] != made_for:
            data, part = self._data, self._folds[fold]
            del held  # before the new bins are made
            binned = bin_rows(
                data.X,
                data.target,
                part.train,
                part.valid,
                settings,
                names=data.names,
                seed=self._fixed.seed,
                weight=data.weight,
                section=data.section,
                steps=self._fixed.steps,
            )
            held = (made_for, binned)
        self._binned[fold] = held
        return held[1]

    def _score(self, rows: pl.DataFrame, test: np.ndarray, predicted: np.ndarray, settings: Mapping[str, Any]) -> float:
        data, metric = self._data, self._fixed.metric
        if metric == "loss":
            weight = None if data.weight is None else data.weight[test].astype(np.float64)
            return loss(settings["objective"], predicted, data.target[test].astype(np.float64), weight, settings)
        mean = ic_series(rows, METHODS[metric])["ic"].mean()
        if isinstance(mean, float):
            return mean
        # Who predicts the same for everyone has said nothing: that is no skill, and no reason to fail.
        return 0.0 if np.ptp(predicted) == 0 else np.nan

    def _net(self, rows: pl.DataFrame) -> np.ndarray:
        return book(rows, "prediction", self._fixed.terms).net.astype(np.float32)
