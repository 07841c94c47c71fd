"""The HTTP routes for people and operators: health, metrics, models."""

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, PlainTextResponse

from quant.panel import moment
from serving import rows, views
from serving.depends import Serving
from serving.messages import (
    Health,
    Loaded,
    Model,
    PredictRows,
    Ready,
    Rollback,
)
from serving.metrics import CONTENT_TYPE
from serving.page import DOCS, HEADERS, render
from serving.predictors import Predictors
from serving.problems import documented

router = APIRouter()


def _health(request: Request, predictors: Predictors) -> Health:
    state = request.app.state
    newest = {name: moment(one.bars.newest) for name, one in state.live.horizons.items() if one.bars.newest is not None}
    kept = state.prediction_log
    trouble = kept.problem if kept is not None else None
    keys = state.access.ring.trouble if state.access.ring is not None else None
    return views.health(predictors, state.store, state.started_at, state.clock.now(), newest, trouble, keys)


@router.get("/", response_class=HTMLResponse, include_in_schema=False)
async def page(request: Request, predictors: Serving) -> HTMLResponse:
    """What serves, and the signals as they are made, for people."""
    return HTMLResponse(render(_health(request, predictors)), headers=HEADERS)


@router.get("/docs", response_class=HTMLResponse, include_in_schema=False)
async def docs() -> HTMLResponse:
    """The OpenAPI document, for people."""
    return HTMLResponse(DOCS, headers=HEADERS)


@router.get("/health", tags=["health"])
@router.get("/api/health", tags=["health"])
async def health(request: Request, predictors: Serving) -> Health:
    """Whether the process lives, and per horizon: bundle, since when, age of model and data. Always 200."""
    return _health(request, predictors)


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
async def load(horizon: str, request: Request, predictors: Serving) -> Loaded:
    """Serve what the promotion ledger says; idempotent.

    The bundle replays its golden data beside the old one. If it fails, the old one serves on and the answer
    says why.
    """
    return views.loaded(horizon, await predictors.load(horizon, request.state.caller))


@router.post("/models/{horizon}/rollback", tags=["models"], responses=documented(400, 404, 409, 415, 422))
async def rollback(horizon: str, request: Request, predictors: Serving, body: Rollback | None = None) -> Loaded:
    """Let the champion before the present one serve again, through the promotion ledger, which keeps who and why.

    It proves itself first; if it fails, nothing is changed. With `number` only that entry is undone: two people who
    ask at once go one back and not two.
    """
    asked = body or Rollback()
    return views.loaded(horizon, await predictors.rollback(horizon, asked.why, request.state.caller, asked.number))


@router.get("/models/{horizon}/example", tags=["models"], responses=documented(404, 422, 503))
async def example(horizon: str, predictors: Serving, section: bool = False) -> PredictRows:
    """A body that `POST /predict` accepts: the newest factor row of the bundle's golden data.

    section: all symbols of that row's section.
    """
    return rows.example(horizon, predictors.serving(horizon).bundle, section)


@router.get("/metrics", tags=["health"], response_class=PlainTextResponse)
async def metrics(request: Request) -> Response:
    """Counters, gauges and histograms for Prometheus."""
    return Response(request.app.state.metrics.text(), media_type=CONTENT_TYPE)
