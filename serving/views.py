"""What the predictors are doing, as the messages that clients read."""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from quant.bundle import Bundle
from serving.messages import BesideChampion, Health, HorizonHealth, Loaded, Model, OtherBars
from serving.predictor import Swap
from serving.predictors import Predictors


def health(
    predictors: Predictors,
    store: Path,
    started_at: datetime,
    now: datetime,
    newest: Mapping[str, datetime],
    log_problem: str | None,
    keys_problem: str | None,
) -> Health:
    """`degraded`: something serves, but a newest bundle is refused; `empty`: nothing serves. newest: bar by horizon."""
    horizons = {name: _horizon(predictors, name, now, newest.get(name)) for name in predictors.horizons()}
    if not predictors.settled:
        status = "starting"
    elif not predictors.ready():
        status = "empty"
    else:
        status = "degraded" if any(one.problem for one in horizons.values()) else "serving"
    return Health(
        status=status,  # type: ignore[arg-type]
        store=str(store),
        started_at=started_at,
        uptime_seconds=(now - started_at).total_seconds(),
        horizons=horizons,
        log_problem=log_problem,
        keys_problem=keys_problem,
    )


def model(predictors: Predictors, horizon: str) -> Model:
    """What serves a horizon and what it needs, or why nothing does."""
    refusal = predictors.refusals.get(horizon)
    status, problem = predictors.status(horizon), refusal.why if refusal else None
    predictor = predictors.get(horizon)
    if predictor is None:
        return Model(horizon=horizon, status=status, problem=problem)
    bundle, entry = predictor.bundle, predictor.entry
    return Model(
        horizon=horizon,
        status=status,
        bundle=entry.id,
        number=entry.number,
        why=entry.why,
        loaded_at=predictor.since,
        promoted_at=predictor.promoted,
        evaluator=str(predictor.choice),
        interval=bundle.recipe.interval,
        calendar=bundle.recipe.calendar.name,
        look_back=bundle.recipe.lookback,
        needs_section=bundle.recipe.crosses,
        symbols=list(bundle.recipe.symbols),
        factors=list(bundle.factors),
        columns=list(bundle.columns),
        at={name: _other(bundle, name) for name in bundle.recipe.reads},
        label=dict(bundle.manifest["label"]),
        scores=dict(bundle.scores),
        challenger=_challenger(predictors, horizon),
        problem=problem,
    )


def loaded(horizon: str, swap: Swap) -> Loaded:
    """What a load or a rollback came to."""
    return Loaded(
        horizon=horizon,
        bundle=swap.now.bundle.id,
        number=swap.now.entry.number,
        changed=swap.changed,
        previous=swap.before.bundle.id if swap.before else None,
    )


def _challenger(predictors: Predictors, horizon: str) -> BesideChampion | None:
    found = predictors.challengers.known(horizon)
    if found is None:
        return None
    share = 0.0 if found.problem else predictors.challengers.options.canary
    refused = found.problem and predictors.challengers.apart(horizon) is None
    status = "refused" if refused else "canary" if share else "shadow"
    return BesideChampion(bundle=found.id, status=status, share=share, problem=found.problem)  # type: ignore[arg-type]


def _other(bundle: Bundle, horizon: str) -> OtherBars:
    other = bundle.recipe.others[horizon]
    return OtherBars(
        interval=other.interval,
        calendar=other.calendar.name,
        look_back=bundle.recipe.reach[horizon],
        columns=list(bundle.columns_of(horizon)),
    )


def _horizon(predictors: Predictors, horizon: str, now: datetime, newest: datetime | None) -> HorizonHealth:
    predictor, refusal = predictors.get(horizon), predictors.refusals.get(horizon)
    return HorizonHealth(
        status=predictors.status(horizon),
        bundle=predictor.bundle.id if predictor else None,
        number=predictor.entry.number if predictor else None,
        since=predictor.since if predictor else None,
        model_age_seconds=(now - predictor.promoted).total_seconds() if predictor else None,
        newest_bar=newest,
        data_age_seconds=(now - newest).total_seconds() if newest else None,
        problem=refusal.why if refusal else None,
    )
