"""`POST /predict`: from factor rows or raw bars to answers, in JSON as people write it."""

from typing import Annotated

import msgspec
import numpy as np
from fastapi import APIRouter, Body, Request, Response

from serving import bars, rows
from serving.limits import check_sizes
from serving.messages import PredictBody, Predictions, PredictRows
from serving.predictor import Predictor
from serving.problems import documented
from serving.record import Key, Scored

ROUTE = "/predict"

router = APIRouter()


@router.post(
    ROUTE, tags=["predictions"], response_model=Predictions, responses=documented(400, 404, 408, 413, 415, 422, 503)
)
async def predict(request: Request, body: Annotated[PredictBody, Body()]) -> Response:
    """Predict from factor rows, or from raw bars with the bundle's own expressions.

    From bars: send every symbol where factors compare a section (`needs_section` in `GET /models`), and bars
    that reach `look_back` slots before the first predicted one; where `at` in `GET /models` names other horizons,
    theirs too. Less is refused: it would silently give other values than those the model was trained on.
    """
    state = request.app.state
    check_sizes(state.options.limits, body)
    predictor = state.predictors.choose(body.horizon)
    if isinstance(body, PredictRows) and len(body.rows) <= state.options.batching.inline_rows:
        keys, X = rows.rows_of(predictor.bundle, body)
    else:
        rows_of = rows.rows_of if isinstance(body, PredictRows) else bars.rows_of
        async with state.gate.waiting():
            keys, X = await state.predictors.compute(rows_of, predictor.bundle, body)
    scored = await state.scorer.score(predictor, X, route=ROUTE, request_id=request.state.request_id, keys=keys)
    return Response(_answer(predictor, keys, X, scored), media_type="application/json")


def _answer(predictor: Predictor, keys: list[Key], X: np.ndarray, scored: Scored) -> bytes:
    """`Predictions` as JSON. Not through pydantic: ten thousand rows would hold up everybody else."""
    coverage = 1.0 - np.isnan(X).mean(axis=1, dtype=np.float64)
    told = zip(keys, scored.signals, scored.values.tolist(), coverage.tolist(), strict=True)
    return msgspec.json.encode(
        {
            "horizon": predictor.bundle.horizon,
            "bundle": predictor.bundle.id,
            "number": predictor.entry.number,
            "predictions": [
                {"signal": signal, "symbol": symbol, "timestamp": stamp, "prediction": value, "coverage": share}
                for (symbol, stamp), signal, value, share in told
            ],
        }
    )
