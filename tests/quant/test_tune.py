"""The search: what a trial draws, when it is pruned, when it ends, and that interruption changes nothing."""

import math
import threading
from collections.abc import Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
import pytest

from quant.space import Range, Value, inside
from quant.tune import Budget, InMemory, Rule, Scored, Trial, TuningError, best, left, tune, within
from quant.tuned import Tuned

SPACE = {"x": Range(0.0, 1.0), "n": Range(2, 64, log=True), "c": [1, 2]}
START: dict[str, Value] = {"x": 0.9, "n": 3, "c": 1}


def rule(workers: int = 1, **changed: Any) -> Rule:
    given = {"seed": 3, "folds": 4, "maximize": True, "startup": 4, "workers": workers, "start": START}
    return Rule(**{**given, **changed})


def hill(params: Mapping[str, Value], fold: int) -> Scored:
    """Highest at x = 0.3, n = 16, with a little of each fold's own."""
    x, n = float(params["x"]), float(params["n"])  # type: ignore[arg-type]
    score = -((x - 0.3) ** 2) - 0.1 * abs(math.log(n / 16)) + 0.01 * fold
    return Scored(score, np.full(3, score, np.float32))


def search(trials: int, store: InMemory | None = None, objective: Any = hill, **changed: Any) -> dict[int, Trial]:
    store = store or InMemory()
    tune(store, objective, SPACE, Budget(trials, None), rule(**changed))
    return store.finished()


def drawn(trials: Mapping[int, Trial]) -> list[tuple[Any, ...]]:
    return [(n, t.state, t.params, t.scores) for n, t in sorted(trials.items())]


def test_the_same_seed_draws_the_same_trials_and_another_one_others() -> None:
    assert drawn(search(15)) == drawn(search(15))
    assert drawn(search(15))[1:] != drawn(search(15, seed=4))[1:]


@pytest.mark.parametrize("broken_off", [1, 5, 11])
def test_a_search_taken_up_again_draws_what_one_in_a_piece_draws(broken_off: int) -> None:
    store = InMemory()
    search(broken_off, store)
    assert drawn(search(15, store)) == drawn(search(15))


def test_trial_0_is_the_configured_model_even_outside_of_the_space() -> None:
    outside: dict[str, Value] = {"x": 7.0, "n": 3, "c": None}
    for start in (START, outside):
        trials = search(8, start=start)
        assert trials[0].params == start
        assert all(inside(SPACE, trial.params) for number, trial in trials.items() if number)


def test_it_learns_where_the_hill_is() -> None:
    trials = search(40)
    late = [trial.params["x"] for number, trial in trials.items() if number >= 25]
    early = [trial.params["x"] for number, trial in trials.items() if 0 < number < 4]
    assert np.mean(np.abs(np.array(late, float) - 0.3)) < 0.5 * np.mean(np.abs(np.array(early, float) - 0.3))
    found = best(trials, rule())
    assert abs(float(found.params["x"]) - 0.3) < 0.1  # type: ignore[arg-type]


def test_a_trial_below_the_median_of_those_before_it_is_pruned_and_keeps_what_its_folds_said() -> None:
    trials = search(30)
    pruned = [trial for trial in trials.values() if trial.state == "pruned"]
    assert pruned
    for trial in pruned:
        assert trial.number >= 4, "none is pruned before the random ones are through"
        assert 1 <= len(trial.scores) < 4
        assert len(trial.returns) == len(trial.scores)
        assert math.isnan(trial.value)
        fold = len(trial.scores) - 1
        running = [np.mean(t.scores[: fold + 1]) for t in trials.values() if t.number < trial.number and
                   t.state == "complete"]  # fmt: skip
        so_far = [np.mean(trial.scores[: f + 1]) for f in range(fold + 1)]
        assert max(so_far) < np.median(running)


def test_a_loss_is_minimised() -> None:
    def valley(params: Mapping[str, Value], fold: int) -> Scored:
        return Scored(-hill(params, fold).score, np.zeros(1, np.float32))

    found = best(search(20, objective=valley, maximize=False), rule(maximize=False))
    upside_down = best(search(20), rule())
    assert found.params == upside_down.params, "the same search, upside down"


def test_what_has_no_score_fails_is_not_run_again_and_is_never_the_best() -> None:
    runs: list[Mapping[str, Value]] = []

    def broken(params: Mapping[str, Value], fold: int) -> Scored:
        runs.append(params)
        return Scored(math.nan if params["c"] == 1 else 1.0, np.zeros(1, np.float32))

    store = InMemory()
    trials = search(12, store, broken)
    states = {trial.state for trial in trials.values()}
    assert "failed" in states
    assert best(trials, rule()).params["c"] == 2
    done = len(runs)
    search(12, store, broken)
    assert len(runs) == done


def test_where_no_trial_has_a_score_the_error_says_so() -> None:
    trials = search(3, objective=lambda params, fold: Scored(math.nan, np.zeros(1, np.float32)))
    with pytest.raises(TuningError, match="none of 3 trials came to a score"):
        best(trials, rule())


def test_a_smaller_budget_than_the_study_has_gives_what_it_would_have_given() -> None:
    store = InMemory()
    search(20, store)
    assert drawn(within(search(6, store), Budget(6, None))) == drawn(search(6))


def test_seconds_end_the_search_count_earlier_runs_and_allow_one_trial() -> None:
    ticking = Trial(0, "complete", dict(START), 1.0, (1.0,) * 4, (np.zeros(3, np.float32),) * 4, seconds=100.0)
    store = InMemory()
    store.add(ticking)
    tune(store, hill, SPACE, Budget(None, 99.0), rule())
    assert len(store.finished()) == 1, "the seconds were spent by the run before"
    fresh = InMemory()
    tune(fresh, hill, SPACE, Budget(None, 1e-9), rule())
    assert len(fresh.finished()) == 1
    assert left(store.finished(), Budget(5, None), rule()) == pytest.approx(400)
    assert left(store.finished(), Budget(5, 150.0), rule()) == pytest.approx(50)
    assert left({}, Budget(5, None), rule()) is None


class Shared(InMemory):
    """A store for threads, as Postgres is one for processes."""

    def __init__(self) -> None:
        super().__init__()
        self._mutex, self._claimed = threading.Lock(), set[int]()

    @contextmanager
    def _claim(self, number: int) -> Any:
        with self._mutex:
            ours = number not in self._claimed
            self._claimed.add(number)
        try:
            yield ours
        finally:
            if ours:
                with self._mutex:
                    self._claimed.discard(number)

    def claim(self, number: int) -> AbstractContextManager[bool]:
        return self._claim(number)


@pytest.mark.parametrize("running", [1, 2, 3])
def test_with_several_workers_the_trials_are_the_same_however_many_of_them_run(running: int) -> None:
    """`workers` says how far back a trial looks; that fewer or slower ones do the work changes nothing."""
    expected = drawn(search(14, workers=3))
    store, counted = Shared(), list[int]()

    def slow(params: Mapping[str, Value], fold: int) -> Scored:
        counted.append(fold)
        threading.Event().wait(0.001 * (int(params["n"]) % 5))  # type: ignore[call-overload]
        return hill(params, fold)

    threads = [
        threading.Thread(target=tune, args=(store, slow, SPACE, Budget(14, None), rule(3))) for _ in range(running)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert drawn(store.finished()) == expected
    assert len(counted) == sum(len(scores) for *_, scores in expected), "no fold was run twice"


def test_the_returns_of_all_trials_stand_side_by_side_and_end_where_a_trial_was_pruned() -> None:
    day = np.datetime64("2024-01-01", "us")
    times = [day + np.arange(2) * np.timedelta64(1, "D"), day + np.arange(2, 5) * np.timedelta64(1, "D")]
    whole = (np.float32([1, 2]), np.float32([3, 4, 5]))
    trials = (
        Trial(0, "complete", dict(START), 0.5, (0.4, 0.6), whole, 1.0),
        Trial(1, "pruned", dict(START), math.nan, (0.1,), (np.float32([6, 7]),), 1.0),
    )
    found = Tuned("a-study", "rank_ic", trials[0], trials)
    frame = found.returns(times)
    assert frame["0"].to_list() == [1, 2, 3, 4, 5]
    assert frame["1"].to_list() == [6, 7, None, None, None]
    assert frame["time"].is_sorted()
    assert found.summary()["trials"][1]["value"] is None


def test_a_section_that_two_folds_test_has_the_mean_of_both_returns() -> None:
    day = np.datetime64("2024-01-01", "us")
    one = np.array([day])
    trial = Trial(0, "complete", dict(START), 0.5, (0.4, 0.6), (np.float32([1]), np.float32([3])), 1.0)
    pruned = Trial(1, "pruned", dict(START), math.nan, (0.4,), (np.float32([1]),), 1.0)
    found = Tuned("s", "ic", trial, (trial, pruned)).returns([one, one])
    assert found["0"].to_list() == [2]
    assert found["1"].to_list() == [None]  # one fold alone is no mean of two
