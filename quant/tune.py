"""Search the parameter space: seeded trials, pruned between folds, that any number of workers share.

What trial n draws depends on the seed, n and the finished trials up to n - workers, on nothing else: not on who runs
it, when, or how often the search was killed and taken up again. So with a budget in trials the result is the same for
the same number of workers; with one worker, each trial knows all before it.
"""

import math
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from quant.space import Space, Value, distributions, inside

State = Literal["complete", "pruned", "failed"]
WAIT_SECONDS = 0.05  # between two looks at what the other workers have finished


class TuningError(ValueError):
    """No trial came to a score; the message says why."""


@dataclass(frozen=True)
class Scored:
    """What one fold said about a trial: its score, and what each test section would have earned net of costs."""

    score: float
    returns: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Trial:
    """A finished trial. value: mean of the folds' scores, NaN unless it is complete."""

    number: int
    state: State
    params: dict[str, Value]
    value: float
    scores: tuple[float, ...]  # one per fold that was run
    returns: tuple[npt.NDArray[np.float32], ...]
    seconds: float


@dataclass(frozen=True)
class Budget:
    """When to stop: after so many trials, or seconds of all runs of the study together. None: no such limit."""

    trials: int | None
    seconds: float | None


@dataclass(frozen=True)
class Rule:
    """How trials are drawn and judged. start: the parameters of trial 0, the ones used without tuning."""

    seed: int
    folds: int
    maximize: bool
    startup: int  # trials drawn at random, before which nothing is learned and nothing pruned
    workers: int
    start: Mapping[str, Value]


class Objective(Protocol):
    """Trains with the parameters and scores one fold."""

    def __call__(self, params: Mapping[str, Value], fold: int) -> Scored: ...


class Store(Protocol):
    """Where finished trials are kept, and who works on which number."""

    def finished(self) -> dict[int, Trial]: ...

    def claim(self, number: int) -> AbstractContextManager[bool]:
        """Whether the number is ours, until the context ends or this process does."""
        ...

    def add(self, trial: Trial) -> None: ...


class InMemory:
    """A store for one worker that keeps nothing."""

    def __init__(self) -> None:
        self._trials: dict[int, Trial] = {}

    def finished(self) -> dict[int, Trial]:
        return dict(self._trials)

    def claim(self, number: int) -> AbstractContextManager[bool]:
        return nullcontext(True)

    def add(self, trial: Trial) -> None:
        self._trials[trial.number] = trial


def tune(
    store: Store,
    objective: Objective,
    space: Space,
    budget: Budget,
    rule: Rule,
    *,
    report: Callable[[], None] = lambda: None,
    goes_on: Callable[[], bool] = lambda: True,
) -> None:
    """Run trials until the budget is spent, beside whoever else does so on the same store.

    Trials that the store has are not run again. A trial that has begun is finished, so that the seconds may be
    exceeded by one. report: called after each trial; goes_on: asked before each.
    """
    began = time.monotonic() - spent(store.finished(), rule)
    while goes_on():
        finished = store.finished()
        late = budget.seconds is not None and time.monotonic() - began >= budget.seconds
        numbers = [] if late and finished else _open(finished, budget, rule)
        if not numbers:
            return
        for number in numbers:
            with store.claim(number) as ours:
                # Another may have finished it between our look and our claim.
                if ours and number not in (known := store.finished()):
                    store.add(_run(number, known, objective, space, rule))
                    report()
                    break
        else:
            time.sleep(WAIT_SECONDS)


def best(trials: Mapping[int, Trial], rule: Rule) -> Trial:
    """The complete trial with the best value, the earliest of several; TuningError where there is none."""
    complete = [trial for _, trial in sorted(trials.items()) if trial.state == "complete"]
    if not complete:
        raise TuningError(
            f"none of {len(trials)} trials came to a score in every fold: with these rows and parameters the models "
            "tell no symbol from another. Use more history, fewer folds or another space"
        )
    sign = 1 if rule.maximize else -1
    return max(complete, key=lambda trial: sign * trial.value)


def within(trials: Mapping[int, Trial], budget: Budget) -> dict[int, Trial]:
    """The trials that the budget counts: a study may hold more, from a run with a larger one."""
    return {number: trials[number] for number in sorted(trials) if budget.trials is None or number < budget.trials}


def spent(trials: Mapping[int, Trial], rule: Rule) -> float:
    """Seconds that these trials took the workers together."""
    return sum(trial.seconds for trial in trials.values()) / rule.workers


def left(trials: Mapping[int, Trial], budget: Budget, rule: Rule) -> float | None:
    """About how many seconds remain, by the trials so far; None before the first."""
    took = spent(trials, rule)
    limits = [] if budget.seconds is None else [budget.seconds - took]
    if budget.trials is not None and trials:
        limits.append((budget.trials - len(trials)) * took / len(trials))
    return max(0.0, min(limits)) if limits else None


def _open(finished: Mapping[int, Trial], budget: Budget, rule: Rule) -> list[int]:
    """Numbers that may be run now: what they learn from is finished, and the budget has them."""
    first = next(number for number in range(len(finished) + 1) if number not in finished)
    stop = first + rule.workers if budget.trials is None else min(first + rule.workers, budget.trials)
    return [number for number in range(first, stop) if number not in finished]


def _run(number: int, finished: Mapping[int, Trial], objective: Objective, space: Space, rule: Rule) -> Trial:
    """Draw a trial and run it fold by fold, in a study of its own that holds what it may know."""
    from optuna import create_study, logging
    from optuna.pruners import MedianPruner
    from optuna.samplers import TPESampler

    logging.set_verbosity(logging.WARNING)
    seed = int(np.random.SeedSequence([rule.seed, number]).generate_state(1)[0])
    study = create_study(
        direction="maximize" if rule.maximize else "minimize",
        sampler=TPESampler(seed=seed, n_startup_trials=rule.startup, multivariate=True),
        pruner=MedianPruner(n_startup_trials=max(1, rule.startup)),
    )
    drawn = distributions(space)
    known = [finished[other] for other in sorted(finished) if other <= number - rule.workers]
    # Optuna learns only from what lies in its space; the trial of the configured values may not.
    study.add_trials([frozen(trial, drawn) for trial in known if inside(space, trial.params)])
    trial = study.ask(drawn)
    params = dict(rule.start) if number == 0 else {name: trial.params[name] for name in space}
    began, state = time.monotonic(), "complete"
    scores: list[float] = []
    returns: list[npt.NDArray[np.float32]] = []
    for fold in range(rule.folds):
        if fold and trial.should_prune():
            state = "pruned"
            break
        found = objective(params, fold)
        scores.append(float(found.score))
        returns.append(np.asarray(found.returns, np.float32))
        if not math.isfinite(found.score):
            state = "failed"
            break
        trial.report(float(np.mean(scores)), fold)
    value = float(np.mean(scores)) if state == "complete" else math.nan
    seconds = time.monotonic() - began
    return Trial(number, state, params, value, tuple(scores), tuple(returns), seconds)  # type: ignore[arg-type]


def frozen(trial: Trial, drawn: Mapping[str, Any]) -> Any:
    """The trial as Optuna has it, with the running mean of its scores after each fold."""
    from optuna.trial import TrialState, create_trial

    states = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}
    known = [score for score in trial.scores if math.isfinite(score)]
    return create_trial(
        state=states[trial.state],
        value=trial.value if trial.state == "complete" else None,
        params={name: trial.params[name] for name in drawn},
        distributions=dict(drawn),
        intermediate_values={fold: float(np.mean(known[: fold + 1])) for fold in range(len(known))},
    )
