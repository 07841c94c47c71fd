"""Worker processes on one study, in the real embedded Postgres."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from quant.folds import walk_forward
from quant.portfolio import Terms
from quant.space import Range
from quant.trial import Fixed, Learnable, Trainer
from quant.tune import Budget, InMemory, Rule, tune
from resources.studies import Studies
from resources.workers import Job, WorkerError, search

pytestmark = pytest.mark.slow  # processes that import everything

SPACE = {"num_leaves": Range(2, 31, log=True), "learning_rate": Range(0.02, 0.3)}


def job(root: Path, name: str, objective: str = "regression") -> Job:
    rng = np.random.default_rng(1)
    sections, symbols = 120, 6
    X = rng.standard_normal((sections * symbols, 3)).astype(np.float32)
    y = X[:, 0] + rng.standard_normal(len(X))
    time = np.repeat(np.datetime64("2024-01-01", "us") + np.arange(sections) * np.timedelta64(1, "h"), symbols)
    frame = pl.DataFrame({"time": time, "symbol": list("ABCDEF") * sections, "outcome": y})
    return Job(
        root=root,
        study=name,
        space=SPACE,
        budget=Budget(5, None),
        rule=Rule(seed=1, folds=2, maximize=True, startup=2, workers=2, start={"num_leaves": 31, "learning_rate": 0.1}),
        data=Learnable(tuple("abc"), X, y, None, time, frame),
        folds=walk_forward(time, time + np.timedelta64(2, "h"), folds=2, share=0.5, embargo=2, valid=0.2),
        fixed=Fixed(
            {"objective": objective, "min_data_in_leaf": 5, "num_threads": 1}, 10, 5, 7, "rank_ic", Terms(2, 1.0)
        ),
    )


def test_two_workers_find_what_one_process_that_looks_as_far_back_finds(root: Path) -> None:
    work, looks = job(root, "shared"), list[int]()
    with Studies(root).opened("shared", SPACE, maximize=True) as study:
        search(work, lambda: looks.append(len(study.finished())))
        shared = study.finished()
    alone = InMemory()
    tune(alone, Trainer(work.data, work.folds, work.fixed), SPACE, work.budget, work.rule)
    expected = alone.finished()
    assert sorted(shared) == list(range(5))
    for number, trial in expected.items():
        assert (shared[number].state, shared[number].params) == (trial.state, trial.params)
        assert shared[number].scores == trial.scores
    assert looks
    assert looks[-1] == 5, "progress was told to the end"
    assert not list((root / "tuning").iterdir()), "what the workers were handed is gone"


def test_a_worker_that_fails_fails_the_search_with_its_error(root: Path) -> None:
    with Studies(root).opened("broken", SPACE, maximize=True), pytest.raises(WorkerError, match="nonsense"):
        search(job(root, "broken", objective="nonsense"), lambda: None)
    assert not list((root / "tuning").iterdir())
