"""Studies in the real embedded Postgres: kept, shared, and taken up again after a kill."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import psycopg2
import pytest

from quant.space import Range, Value
from quant.tune import Budget, InMemory, Rule, Scored, Trial, best, tune
from resources.database import Database
from resources.studies import Studies

SPACE = {"x": Range(0.0, 1.0), "n": Range(2, 64, log=True), "c": [None, True, 2]}
START: dict[str, Value] = {"x": 3.0, "n": 3, "c": None}  # outside of the space
RULE = Rule(seed=3, folds=3, maximize=True, startup=3, workers=1, start=START)

# Another process that searches, slowly, and says each fold that it has begun.
SEARCHER = """
import sys, time
from pathlib import Path
from quant.tune import Budget, tune
from resources.studies import Studies
from tests.resources.test_studies import RULE, SPACE, hill

def slow(params, fold):
    print("fold", fold, flush=True)
    time.sleep(float(sys.argv[3]))
    return hill(params, fold)

studies = Studies(Path(sys.argv[1]))
with studies.opened("a-study", SPACE, maximize=True) as study:
    print("opened", flush=True)
    tune(study, slow, SPACE, Budget(int(sys.argv[2]), None), RULE)
studies.release()
"""


def hill(params: Mapping[str, Value], fold: int) -> Scored:
    score = -((float(params["x"]) - 0.3) ** 2) - 0.01 * abs(float(params["n"]) - 16) + 0.01 * fold  # type: ignore[arg-type]
    return Scored(score, np.full(5, score, np.float32))


def drawn(trials: Mapping[int, Trial]) -> list[tuple[Any, ...]]:
    return [(n, t.state, t.params, t.scores, [part.tolist() for part in t.returns]) for n, t in sorted(trials.items())]


@pytest.fixture
def studies(root: Path) -> Studies:
    return Studies(root)


@pytest.fixture
def fresh(root: Path) -> Iterator[None]:
    """No study of the name that the searchers use."""
    yield
    with (
        closing(psycopg2.connect(Database(root).url("optuna"))),
        Studies(root).opened("a-study", SPACE, maximize=True) as study,
    ):
        optuna.delete_study(study_name="a-study", storage=study._storage)


def searcher(root: Path, trials: int, seconds: float) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", SEARCHER, str(root), str(trials), str(seconds)], stdout=subprocess.PIPE, text=True
    )


def until(process: "subprocess.Popen[str]", lines: int) -> None:
    assert process.stdout is not None
    for _ in range(lines):
        assert process.stdout.readline(), "the searcher ended early"


def in_one_piece(trials: int) -> dict[int, Trial]:
    store = InMemory()
    tune(store, hill, SPACE, Budget(trials, None), RULE)
    return store.finished()


def test_trials_come_back_as_they_were_written_and_optuna_can_read_them(studies: Studies) -> None:
    kept = [
        Trial(0, "complete", dict(START), 0.3, (0.1, 0.5), (np.float32([1.5, np.nan]), np.float32([])), 2.0),
        Trial(1, "pruned", {"x": 1 / 3, "n": 7, "c": True}, np.nan, (0.1,), (np.float32([3]),), 0.5),
        Trial(2, "failed", {"x": 0.5, "n": 8, "c": 2}, np.nan, (np.nan,), (np.float32([0]),), 0.1),
    ]  # fmt: skip
    with studies.opened("kept", SPACE, maximize=True) as study:
        for trial in kept:
            study.add(trial)
    with studies.opened("kept", SPACE, maximize=True) as study:
        found = study.finished()
        rows = study._study.get_trials()
    assert list(found) == [0, 1, 2]
    for trial in kept:
        again = found[trial.number]
        assert (again.state, again.params, again.seconds) == (trial.state, trial.params, trial.seconds)
        np.testing.assert_array_equal(again.scores, trial.scores)
        assert [part.tobytes() for part in again.returns] == [part.tobytes() for part in trial.returns]
    assert found[0].value == pytest.approx(0.3)
    assert [row.state.name for row in rows] == ["COMPLETE", "PRUNED", "FAIL"]
    assert rows[1].params == kept[1].params
    assert rows[1].intermediate_values == {0: 0.1}


def test_a_study_in_postgres_draws_what_one_in_memory_draws_and_another_name_is_another_study(studies: Studies) -> None:
    with studies.opened("one", SPACE, maximize=True) as study:
        tune(study, hill, SPACE, Budget(8, None), RULE)
        assert drawn(study.finished()) == drawn(in_one_piece(8))
    with studies.opened("another", SPACE, maximize=True) as study:
        assert study.finished() == {}


def test_optunas_tables_stand_apart_from_dagsters(studies: Studies, root: Path) -> None:
    with studies.opened("apart", SPACE, maximize=True):
        pass
    database = Database(root)
    tables = {}
    for name in ("optuna", "dagster"):
        with closing(psycopg2.connect(database.url(name))) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
            tables[name] = {table for (table,) in cursor}
    assert {"studies", "trials", "alembic_version"} <= tables["optuna"]
    assert not tables["dagster"] & {"studies", "trials", "alembic_version"}


def test_a_number_belongs_to_one_of_two_until_it_lets_go(studies: Studies) -> None:
    with studies.opened("claims", SPACE, maximize=True) as one, studies.opened("claims", SPACE, maximize=True) as two:
        with one.claim(4) as first:
            assert first
            with two.claim(4) as second, two.claim(5) as other:
                assert not second
                assert other
        with two.claim(4) as now:
            assert now
    with (
        studies.opened("claims", SPACE, maximize=True) as one,
        studies.opened("others", SPACE, maximize=True) as two,
        one.claim(4) as first,
        two.claim(4) as second,
    ):
        assert first, "a study's numbers are its own"
        assert second


@pytest.mark.usefixtures("fresh")
def test_a_search_killed_in_the_middle_is_continued_and_loses_only_the_trial_in_flight(
    root: Path, studies: Studies
) -> None:
    process = searcher(root, trials=12, seconds=0.05)
    until(process, 1 + 3 * 3 + 2)  # opened, three whole trials (none is pruned yet), and a fold of the fourth
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    with studies.opened("a-study", SPACE, maximize=True) as study:
        left = study.finished()
        assert len(left) in (3, 4)
        assert not [row for row in study._study.get_trials() if not row.state.is_finished()], "nothing is left running"
        ran: list[int] = []

        def counted(params: Mapping[str, Value], fold: int) -> Scored:
            ran.append(fold)
            return hill(params, fold)

        tune(study, counted, SPACE, Budget(12, None), RULE)
        found = study.finished()
    assert drawn(found) == drawn(in_one_piece(12)), "the kill left no trace"
    assert len(ran) == sum(len(trial.scores) for number, trial in found.items() if number not in left)
    assert best(found, RULE).params == best(in_one_piece(12), RULE).params


@pytest.mark.usefixtures("fresh")
def test_two_processes_at_once_share_the_work_and_each_trial_is_run_once(root: Path, studies: Studies) -> None:
    processes = [searcher(root, trials=10, seconds=0.05) for _ in range(2)]
    said = [process.communicate()[0].split("\n") for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    with studies.opened("a-study", SPACE, maximize=True) as study:
        found = study.finished()
        assert len(study._study.get_trials()) == 10
    assert drawn(found) == drawn(in_one_piece(10)), "trials do not depend on who runs them"
    assert sum(line.startswith("fold") for lines in said for line in lines) == sum(
        len(trial.scores) for trial in found.values()
    )


@pytest.mark.usefixtures("fresh")
def test_the_same_search_in_two_processes_gives_the_same_best(root: Path, studies: Studies) -> None:
    found = []
    for _ in range(2):
        process = searcher(root, trials=8, seconds=0.0)
        process.communicate()
        assert process.returncode == 0
        with studies.opened("a-study", SPACE, maximize=True) as study:
            found.append(best(study.finished(), RULE))
            optuna.delete_study(study_name="a-study", storage=study._storage)
    assert found[0].params == found[1].params == best(in_one_piece(8), RULE).params


@pytest.mark.usefixtures("fresh")
def test_the_trial_of_a_dead_process_is_free_at_once(root: Path, studies: Studies) -> None:
    process = searcher(root, trials=5, seconds=60)
    until(process, 2)
    with studies.opened("a-study", SPACE, maximize=True) as study:
        with study.claim(0) as ours:
            assert not ours, "the other process is at it"
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        deadline = time.monotonic() + 10
        while True:
            with study.claim(0) as ours:
                if ours:
                    break
            assert time.monotonic() < deadline, "the lock outlived its holder"
            time.sleep(0.05)
