"""A search of parameters against bare LightGBM calls: three folds × five trials on one table.

Bare: for each trial and fold `lgb.Dataset`, `lgb.train`, `predict` and the fold's score, with the parameters that the
search drew and nothing else: no study, no pruning, no book of what each section earned. First it proves that both come
to the same scores, to the bit. Prints both CPU times (all threads) and wall times, and their ratio, which must be at
most 1.3. `--quick`: fewer rows and factors. `--memory`: the study is not kept in Postgres.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightgbm as lgb
import numpy as np
import polars as pl

from quant.folds import Fold, walk_forward
from quant.portfolio import Terms
from quant.score import section_ic
from quant.space import Range
from quant.train import settings_of
from quant.trial import Fixed, Learnable, Trainer
from quant.tune import Budget, InMemory, Rule, Store, Trial, tune
from resources.studies import Studies

SYMBOLS, FOLDS, TRIALS, ROUNDS, PATIENCE, SEED = 50, 3, 5, 200, 30, 7
MOST = 1.3
PARAMS = {
    "objective": "regression", "learning_rate": 0.05, "num_leaves": 31, "min_data_in_leaf": 100,
    "feature_fraction": 0.8, "bagging_fraction": 0.8, "bagging_freq": 1, "lambda_l2": 1.0, "max_bin": 255,
}  # fmt: skip
SPACE = {
    "learning_rate": Range(0.01, 0.2, log=True),
    "num_leaves": Range(7, 127, log=True),
    "min_data_in_leaf": Range(20, 1000, log=True),
    "feature_fraction": Range(0.2, 1.0, step=0.1),
    "lambda_l2": Range(0.001, 100.0, log=True),
}


def table(rows: int, factors: int) -> Learnable:
    """Rows with a weak signal, as strong as a market's."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((rows, factors), np.float32)
    X[rng.random(X.shape, np.float32) < 0.02] = np.nan
    y = 0.05 * np.nan_to_num(X[:, :8]).sum(axis=1) + rng.standard_normal(rows)
    sections = rows // SYMBOLS
    hours = np.repeat(np.datetime64("2020-01-01", "us") + np.arange(sections) * np.timedelta64(1, "h"), SYMBOLS)
    frame = pl.DataFrame({"time": hours, "symbol": [f"S{n:02}" for n in range(SYMBOLS)] * sections, "outcome": y})
    return Learnable(tuple(f"f{n}" for n in range(factors)), X, y, None, hours, frame)


def bare(data: Learnable, folds: list[Fold], trials: dict[int, Trial]) -> list[list[float]]:
    """What one would write by hand, for the same parameters."""
    scores = []
    for number in sorted(trials):
        settings = {**settings_of({**PARAMS, **trials[number].params}), "seed": SEED}
        found = []
        for fold in folds[: len(trials[number].scores)]:
            train = lgb.Dataset(data.X[fold.train], data.target[fold.train], params=settings)
            valid = train.create_valid(data.X[fold.valid], data.target[fold.valid])
            booster = lgb.train(
                settings, train, ROUNDS, valid_sets=[valid], callbacks=[lgb.early_stopping(PATIENCE, verbose=False)]
            )
            frame = data.rows[fold.test].with_columns(prediction=np.asarray(booster.predict(data.X[fold.test])))
            found.append(float(section_ic(frame, "spearman")["ic"].mean()))  # type: ignore[arg-type]
        scores.append(found)
    return scores


@contextmanager
def store_of(memory: bool) -> Iterator[Store]:
    if memory:
        yield InMemory()
        return
    with tempfile.TemporaryDirectory() as folder:
        studies = Studies(Path(folder))
        with studies.opened("warm", SPACE, maximize=True):
            pass  # the server is up and its tables are made: that is paid once per store, not per search
        try:
            with studies.opened("bench", SPACE, maximize=True) as study:
                yield study
        finally:
            studies.release()


def timed(call: Callable[[], Any]) -> tuple[Any, float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    found = call()
    return found, time.perf_counter() - wall, time.process_time() - cpu


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--memory", action="store_true")
    given = parser.parse_args()
    rows, factors = (20_000, 40) if given.quick else (100_000, 158)
    data = table(rows, factors)
    folds = walk_forward(
        data.section, data.section + np.timedelta64(6, "h"), folds=FOLDS, share=0.6, embargo=6, valid=0.15
    )
    fixed = Fixed(PARAMS, ROUNDS, PATIENCE, SEED, "rank_ic", Terms(holding=6, cost_bps=2.0))
    # As many random trials as there are: none is pruned, so that both do three folds × five trials.
    start = {name: PARAMS[name] for name in SPACE}
    rule = Rule(seed=0, folds=FOLDS, maximize=True, startup=TRIALS, workers=1, start=start)  # type: ignore[arg-type]
    with store_of(given.memory) as store:
        trainer = Trainer(data, folds, fixed)
        search = lambda: tune(store, trainer, SPACE, Budget(TRIALS, None), rule)  # noqa: E731
        _, wall, cpu = timed(search)
        trials = store.finished()
    scores, bare_wall, bare_cpu = timed(lambda: bare(data, folds, trials))
    assert [list(trials[number].scores) for number in sorted(trials)] == scores, "the search has other scores"
    runs = sum(map(len, scores))
    assert runs == FOLDS * TRIALS
    print(f"{rows:,} rows × {factors} factors, {FOLDS} folds × {TRIALS} trials, {runs} fits; same scores to the bit")
    print(f"bare LightGBM calls {bare_wall:7.1f} s wall {bare_cpu:7.1f} s CPU")
    print(
        f"the search          {wall:7.1f} s wall {cpu:7.1f} s CPU, study in {'memory' if given.memory else 'Postgres'}"
    )
    print(f"ratio               {wall / bare_wall:7.2f} wall   {cpu / bare_cpu:7.2f} CPU  (at most {MOST})")
    assert cpu / bare_cpu <= MOST, "the search costs more than promised"


if __name__ == "__main__":
    main()
