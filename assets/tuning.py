"""Search the model's parameters over the out-of-fold predictions of its folds, before it is trained."""

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from assets.costs import framed, terms
from assets.dataset import Dataset
from assets.learning import steps_of
from assets.plan import Plan
from conf.learning import Model
from quant.bundle import identity
from quant.folds import Fold
from quant.trial import Fixed, Learnable, Trainer
from quant.tune import Budget, Rule, Trial, best, left, tune, within
from quant.tuned import Tuned
from resources.progress import Progress
from resources.studies import Studies
from resources.workers import Job, search

TRIALS = "trials.parquet"  # in the bundle's folder: `Tuned.returns`
BUDGET = {"trials", "seconds"}  # of a study, which a larger budget continues
SAID = {"rank_ic": "rank IC", "ic": "IC", "loss": "loss"}


def tuned(
    plan: Plan, data: Dataset, folds: Sequence[Fold], name: str, studies: Studies, progress: Progress
) -> tuple[Tuned, pl.DataFrame] | None:
    """The search that the horizon's `tuning` asks for and its trials' returns (`Tuned.returns`); None for no search.

    folds: rows of `data`; name: the study's, see `study_name`. A study that was broken off is continued.
    """
    config = plan.horizon.tuning
    if not config.wanted:
        return None
    model, space, budget = plan.horizon.model, config.ranges(), Budget(config.trials, config.seconds)
    learnable = _learnable(plan, data)
    fixed = _fixed(plan, model)
    rule = Rule(
        seed=config.seed,
        folds=len(folds),
        maximize=config.metric != "loss",
        startup=config.startup_trials,
        workers=config.workers,
        start={parameter: getattr(model, parameter) for parameter in space},
    )
    trainer = Trainer(learnable, folds, fixed)
    with studies.opened(name, space, maximize=rule.maximize) as study:

        def report() -> None:
            said = told(within(study.finished(), budget), budget, rule, config.metric)
            progress.says(plan.horizon.name, "model", said)

        report()
        if config.workers == 1:
            tune(study, trainer, space, budget, rule, report=report)
        else:
            search(Job(studies.root, name, space, budget, rule, learnable, folds, fixed), report)
        trials = within(study.finished(), budget)
    found = Tuned(name, config.metric, best(trials, rule), tuple(trials.values()))
    return found, found.returns(trainer.times())


def study_name(horizon: str, digests: Mapping[str, str]) -> str:
    """A study is the same for the same rows, config less BUDGET, source and lock file: see `quant.bundle.identity`."""
    return f"{horizon}-{identity(digests)}"


def told(trials: Mapping[int, Trial], budget: Budget, rule: Rule, metric: str) -> str:
    """Trials, best score and time left, in a line."""
    parts = [f"trial {len(trials)}" + (f" of {budget.trials}" if budget.trials is not None else "")]
    if any(trial.state == "complete" for trial in trials.values()):
        parts.append(f"best {SAID[metric]} {best(trials, rule).value:.4g}")
    remaining = left(trials, budget, rule)
    if remaining is not None:
        parts.append(f"{remaining:,.0f} s left" if remaining < 120 else f"{remaining / 60:,.0f} min left")
    return ", ".join(parts)


def _learnable(plan: Plan, data: Dataset) -> Learnable:
    rows = pl.DataFrame(
        {
            "time": pl.Series(data.timestamp).cast(pl.Datetime("us")).dt.replace_time_zone("UTC"),
            "symbol": pl.Series(data.symbol, dtype=pl.String),
            "outcome": data.y,
        }
    )
    framed_rows = framed(plan, rows).with_columns(time=pl.col("time").dt.replace_time_zone(None))
    return Learnable(data.names, data.X, data.target, data.weight, data.timestamp, framed_rows)


def _fixed(plan: Plan, model: Model) -> Fixed:
    params: dict[str, Any] = model.params()
    rounds = params.pop("n_estimators")
    return Fixed(
        params=params,
        rounds=rounds,
        early_stopping_rounds=model.early_stopping_rounds,
        seed=model.seeds[0],
        metric=plan.horizon.tuning.metric,
        terms=terms(plan),
        steps=steps_of(model),
    )
