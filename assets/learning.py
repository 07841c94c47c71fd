"""Learn from some rows of a dataset and predict others: what the model step, its folds and tuning have in common."""

from collections.abc import Sequence

import numpy as np
import polars as pl

from assets.dataset import Dataset
from assets.novelty import measured_by, novelty
from assets.plan import Plan
from conf.learning import Model
from quant.baselines import linear
from quant.folds import Fold, Rows, paths
from quant.forest import compile as compile_forest
from quant.preprocess import BLOCK, Steps
from quant.train import Trained, fit

HELD_OUT = -1  # the fold of rows that the final model predicts: nothing learned from them
OUT_OF_FOLD = "oof.parquet"  # in the bundle's folder


def learn(model: Model, data: Dataset, train: Rows, valid: Rows) -> Trained:
    """A model of the rows `train`, stopped early on the rows `valid`."""
    params = model.params()
    return fit(
        data.X,
        data.target,
        train,
        valid,
        {name: value for name, value in params.items() if name != "n_estimators"},
        names=data.names,
        seeds=model.seeds,
        rounds=model.n_estimators,
        early_stopping_rounds=model.early_stopping_rounds,
        weight=data.weight,
        section=data.timestamp,
        steps=steps_of(model),
    )


def steps_of(model: Model) -> Steps:
    """The preprocessing that the config asks for."""
    return Steps(**model.preprocess.model_dump())


def predict(trained: Trained, data: Dataset, rows: Rows) -> np.ndarray:
    """Predictions float64 [len(rows)], as they will be served."""
    forest = compile_forest(trained.text)
    blocks = (rows[start : start + BLOCK] for start in range(0, len(rows), BLOCK))
    return np.concatenate([forest.predict(trained.preprocess.apply(data.X[block])) for block in blocks])


def out_of_fold(plan: Plan, model: Model, data: Dataset, folds: Sequence[Fold]) -> pl.DataFrame:
    """What each fold's model predicts of its test rows: see `predicted`. A row of combinatorial folds is there on
    every path. model: as it was tuned.
    """
    frames = []
    for number, (fold, path) in enumerate(zip(folds, paths(folds), strict=True)):
        trained = learn(model, data, fold.train, fold.valid)
        unlike = novelty(measured_by(plan, data, fold.train), data, fold.test)
        frame = predicted(data, fold.test, predict(trained, data, fold.test), unlike, fold.train, number)
        frames.append(frame.with_columns(path=_path_of(data, fold, path)))
    return pl.concat(frames)


def predicted(
    data: Dataset, rows: Rows, prediction: np.ndarray, unlike: np.ndarray, train: Rows, fold: int
) -> pl.DataFrame:
    """(time, symbol, label_end, fold, path, outcome, prediction, novelty, linear, last_return) of some rows.

    unlike: their novelty to the rows `train`, which the linear model beside them is fitted on too. Times are UTC; NaN
    = no prediction.
    """
    return pl.DataFrame(
        {
            "time": _utc(data.timestamp[rows]),
            "symbol": pl.Series(data.symbol[rows], dtype=pl.String),
            "label_end": _utc(data.label_known[rows]),
            "fold": pl.Series([fold] * len(rows), dtype=pl.Int32),
            "path": pl.Series([0] * len(rows), dtype=pl.Int32),
            "outcome": data.y[rows],
            "prediction": prediction,
            "novelty": unlike,
            "linear": linear(data.X, data.y, train, rows),
            "last_return": data.last_return[rows].astype(np.float64),
        }
    )


def _path_of(data: Dataset, fold: Fold, path: dict[int, int]) -> pl.Series:
    """The path of each test row. Groups are blocks of time, in order."""
    if set(path.values()) == {0}:
        return pl.Series([0] * len(fold.test), dtype=pl.Int32)
    numbers = np.array([path[group] for group in fold.groups], np.int32)
    return pl.Series(numbers[np.searchsorted(fold.starts, data.known[fold.test], side="right") - 1])


def _utc(instants: np.ndarray) -> pl.Series:
    return pl.Series(instants).cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
