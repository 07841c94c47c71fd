"""The search in the model step: its parameters train the model, and a run that broke off is continued."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from assets import tuning
from assets.tuning import TRIALS, told
from quant.space import Value
from quant.trial import Trainer
from quant.tune import Budget, Rule, Scored, Trial
from resources.database import Database
from tests.assets.conftest import SMALL, Pipeline

REFRESH = ("bars", "features", "factors")
SEARCHED = [
    *SMALL, "tuning.trials=4", "tuning.startup_trials=2", "folds.count=2",
    "tuning.space={num_leaves: {low: 3, high: 60}, learning_rate: {low: 0.02, high: 0.4, log: true}}",
]  # fmt: skip


@pytest.fixture
def pipeline(tmp_path: Path) -> Iterator[Pipeline]:
    made = Pipeline(tmp_path, *SEARCHED)
    made.run(*REFRESH)
    yield made
    Database(tmp_path).release()


def newest(pipeline: Pipeline) -> Any:
    return pipeline.registry.load("5m", pipeline.registry.bundles("5m")[-1])


def test_the_best_trials_parameters_train_the_model_and_every_trial_is_on_record(pipeline: Pipeline) -> None:
    pipeline.run("model")
    bundle = newest(pipeline)
    told = bundle.manifest["tuning"]
    assert [trial["number"] for trial in told["trials"]] == [0, 1, 2, 3]
    complete = {t["number"]: t["value"] for t in told["trials"] if t["state"] == "complete"}
    assert told["best"] == max(complete, key=lambda number: complete[number])
    assert told["params"] == told["trials"][told["best"]]["params"]
    assert f"[num_leaves: {told['params']['num_leaves']}]" in bundle.text
    frame = pl.read_parquet(pipeline.registry.path("5m", bundle.id) / TRIALS)
    oof = pl.read_parquet(pipeline.registry.path("5m", bundle.id) / "oof.parquet").filter(pl.col("fold") >= 0)
    assert frame["time"].equals(oof["time"].unique().sort())
    assert frame.columns == ["time", "0", "1", "2", "3"]
    for number in complete:
        assert frame[str(number)].null_count() == 0


@pytest.mark.slow
def test_a_run_that_broke_off_is_continued_and_ends_in_the_same_bundle(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    calls: list[int] = []
    really = Trainer.__call__

    def counted(self: Trainer, params: Mapping[str, Value], fold: int) -> Scored:
        calls.append(fold)
        if len(calls) == 4:  # in the second trial's second fold
            raise KeyError("the power went")
        return really(self, params, fold)

    monkeypatch.setattr(Trainer, "__call__", counted)
    with pytest.raises(Exception, match="the power went"):
        pipeline.run("model")
    pipeline.run("model")
    trials = newest(pipeline).manifest["tuning"]["trials"]
    assert len(calls) == 4 + sum(len(trial["scores"]) for trial in trials[1:]), "the first trial was not run again"
    monkeypatch.undo()
    root = tmp_path_factory.mktemp("elsewhere")
    other = Pipeline(root, *SEARCHED)
    other.run(*REFRESH, "model")
    Database(root).release()
    assert newest(other).id == newest(pipeline).id
    assert newest(other).to_files() == newest(pipeline).to_files()


def test_a_larger_budget_continues_the_study_and_another_seed_begins_one(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline.run("model")
    first = newest(pipeline).manifest["tuning"]
    ran: list[int] = []
    really = tuning.tune

    def watched(store: Any, *given: Any, **named: Any) -> None:
        ran.append(len(store.finished()))
        really(store, *given, **named)

    monkeypatch.setattr(tuning, "tune", watched)
    pipeline.run("model", values=["tuning.trials=6"])
    longer = newest(pipeline).manifest["tuning"]
    assert ran == [4], "the four of the first run were there"
    assert longer["study"] == first["study"]
    assert longer["trials"][:4] == first["trials"]
    assert len(longer["trials"]) == 6
    pipeline.run("model", values=["tuning.seed=5"])
    other = newest(pipeline).manifest["tuning"]
    assert ran == [4, 0]
    assert other["study"] != first["study"]


def test_without_a_search_no_database_is_asked_and_nothing_is_told(tmp_path: Path) -> None:
    made = Pipeline(tmp_path, *SMALL)
    made.run(*REFRESH, "model")
    bundle = newest(made)
    assert bundle.manifest["tuning"] is None
    assert not (made.registry.path("5m", bundle.id) / TRIALS).exists()
    assert not (tmp_path / "postgres").exists()


def test_progress_tells_trials_best_score_and_time_left() -> None:
    rule = Rule(seed=0, folds=2, maximize=True, startup=1, workers=1, start={})
    trial = Trial(0, "complete", {}, 0.0312, (0.03, 0.0324), (np.zeros(1, np.float32),) * 2, seconds=20.0)
    assert told({}, Budget(4, None), rule, "rank_ic") == "trial 0 of 4"
    assert told({0: trial}, Budget(4, None), rule, "rank_ic") == "trial 1 of 4, best rank IC 0.0312, 60 s left"
    assert told({0: trial}, Budget(None, 620.0), rule, "loss") == "trial 1, best loss 0.0312, 10 min left"
