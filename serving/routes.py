"""The HTTP routes: health, models, predictions."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import HTMLResponse

from serving import bars, rows, views
from serving.messages import (
    Health,
    Live,
    Loaded,
    Model,
    PredictBody,
    Predictions,
    PredictRows,
    Ready,
)
from serving.page import render
from serving.predictors import Predictors
from serving.problems import documented

router = APIRouter()


def _predictors(request: Request) -> Predictors:
    return request.app.state.predictors


def _health(request: Request, predictors: Predictors) -> Health:
    state = request.app.state
    return views.health(predictors, state.store, state.started_at, state.clock.now())


Serving = Annotated[Predictors, Depends(_predictors)]


@router.get("/", response_class=HTMLResponse, include_in_schema=False)
async def page(request: Request, predictors: Serving) -> str:
    """What serves, for people."""
    return render(_health(request, predictors))


@router.get("/health", tags=["health"])
@router.get("/api/health", include_in_schema=False)
async def health(request: Request, predictors: Serving) -> Health:
    """Whether the process lives, and per horizon: bundle, since when, age of the model. Always 200."""
    return _health(request, predictors)


@router.get("/v2/health/live", tags=["health"])
async def live() -> Live:
    """200 while the process lives (Open Inference Protocol)."""
    return Live(live=True)


@router.get("/v2/health/ready", tags=["health"], responses={503: {"model": Ready}})
@router.get("/ready", tags=["health"], responses={503: {"model": Ready}})
async def ready(predictors: Serving, response: Response) -> Ready:
    """200 once the loads of the start are through and at least one bundle serves, else 503."""
    if not predictors.ready():
        response.status_code = 503
    return Ready(ready=predictors.ready())


@router.get("/models", tags=["models"])
async def models(predictors: Serving) -> list[Model]:
    """Every horizon: what serves, under which ledger entry, its factors, look-back and scores."""
    return [views.model(predictors, horizon) for horizon in predictors.horizons()]


@router.get("/models/{horizon}", tags=["models"], responses=documented(404, 422))
async def model(horizon: str, predictors: Serving) -> Model:
    """One horizon: what serves, under which ledger entry, its factors, look-back and scores."""
    return views.model(predictors, horizon)


@router.post("/models/{horizon}/load", tags=["models"], responses=documented(404, 409, 422))
async def load(horizon: str, predictors: Serving) -> Loaded:
    """Serve what the promotion ledger says; idempotent.

    The bundle replays its golden data beside the old one. If it fails, the old one serves on and the answer
    says why.
    """
    swap = await predictors.load(horizon)
    return Loaded(
        horizon=horizon,
        bundle=swap.now.entry.id,
        number=swap.now.entry.number,
        changed=swap.changed,
        previous=swap.before.entry.id if swap.before else None,
    )


@router.get("/models/{horizon}/example", tags=["models"], responses=documented(404, 422, 503))
async def example(horizon: str, predictors: Serving, section: bool = False) -> PredictRows:
    """A body that `POST /predict` accepts: the newest factor row of the bundle's golden data.

    section: all symbols of that row's section.
    """
    return rows.example(horizon, predictors.serving(horizon).bundle, section)


@router.post("/predict", tags=["predictions"], responses=documented(400, 404, 413, 415, 422, 503))
async def predict(body: PredictBody, predictors: Serving) -> Predictions:
    """Predict from factor rows, or from raw bars with the bundle's own expressions.

    From bars: send every symbol where factors compare a section (`needs_section` in `GET /models`), and bars
    that reach `look_back` slots before the first predicted one; where `at` in `GET /models` names other horizons,
    theirs too. Less is refused: it would silently give other values than those the model was trained on.
    """
    predictor = predictors.serving(body.horizon)
    answer = rows.predict if isinstance(body, PredictRows) else bars.predict
    predictions = await predictors.compute(answer, predictor.bundle, body)
    return Predictions(
        horizon=body.horizon,
        bundle=predictor.entry.id,
        number=predictor.entry.number,
        predictions=predictions,
    )
