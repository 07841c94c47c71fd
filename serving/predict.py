"""`POST /predict`: from factor rows or raw bars to answers, in JSON as people write it."""

from typing import Any

import msgspec
import numpy as np
from fastapi import APIRouter, Request, Response

from conf.options import Limits
from serving import bars, bodies, json_rows, rows
from serving.messages import Bar, FactorRow, PredictBars, PredictBody, Predictions, PredictRows
from serving.predictor import Predictor
from serving.problems import Faults, documented, field_error, refuse_fields
from serving.record import Key, Scored

ROUTE = "/predict"

router = APIRouter()


@router.post(
    ROUTE,
    tags=["predictions"],
    response_model=Predictions,
    responses=documented(400, 404, 408, 413, 415, 422, 503),
    openapi_extra=bodies.documented(PredictBody),
)
async def predict(request: Request) -> Response:
    """Predict from factor rows, or from raw bars with the bundle's own expressions.

    From bars: send every symbol where factors compare a section (`needs_section` in `GET /models`), and bars
    that reach `look_back` slots before the first predicted one; where `at` in `GET /models` names other horizons,
    theirs too. Less is refused: it would silently give other values than those the model was trained on.
    """
    state = request.app.state
    body = await state.bodies.read(request, read, state.options.limits)
    predictor = state.predictors.choose(body.horizon)
    if isinstance(body, PredictRows) and len(body.rows) <= state.options.batching.inline_rows:
        keys, X = rows.rows_of(predictor.bundle, body)
    else:
        rows_of = rows.rows_of if isinstance(body, PredictRows) else bars.rows_of
        async with state.gate.waiting():
            keys, X = await state.predictors.compute(rows_of, predictor.bundle, body)
    scored = await state.scorer.score(predictor, X, route=ROUTE, request_id=request.state.request_id, keys=keys)
    if isinstance(body, PredictBars) and predictor.role == "champion":
        state.bars_shadow.offer(body, ROUTE, request.state.request_id, keys)
    return Response(_answer(predictor, keys, X, scored), media_type="application/json")


def read(body: bytes, limits: Limits) -> PredictRows | PredictBars:
    """The request; 400 or 422 with every field that is wrong, and for more rows, bars or slots than it may have."""
    found, faults = json_rows.members(body), Faults()
    if ("rows" in found) == ("bars" in found):
        raise refuse_fields(
            "invalid-request", [field_error([], 'send either "rows" (factor values) or "bars" (raw bars)')]
        )
    values: dict[str, Any] = dict(found)
    if "rows" in found:
        values["rows"] = json_rows.listed(found, "rows", FactorRow, ["rows"], limits.rows, faults)
        return json_rows.message(PredictRows, values, faults)
    values["bars"] = json_rows.listed(found, "bars", Bar, ["bars"], limits.bars, faults)
    if others := json_rows.nested(found.get("at")):
        values["at"] = {name: json_rows.listed(others, name, Bar, ["at", name], limits.bars, faults) for name in others}
    asked = json_rows.message(PredictBars, values, faults)
    if asked.last > limits.last:
        why = f"{asked.last:,} are more than the {limits.last:,} of one request: send several"
        raise refuse_fields("too-large", [field_error(["last"], why)])
    return asked


def _answer(predictor: Predictor, keys: list[Key], X: np.ndarray, scored: Scored) -> bytes:
    """`Predictions` as JSON. Not through pydantic: ten thousand rows would hold up everybody else."""
    coverage = 1.0 - np.isnan(X).mean(axis=1, dtype=np.float64)
    told = zip(keys, scored.told(), coverage.tolist(), strict=True)
    return msgspec.json.encode(
        {
            "horizon": predictor.bundle.horizon,
            "bundle": predictor.bundle.id,
            "number": predictor.entry.number,
            "predictions": [
                {
                    "signal": signal,
                    "symbol": symbol,
                    "timestamp": stamp,
                    "prediction": value,
                    "coverage": share,
                    "novelty": novelty,
                    "abstained": abstained,
                }
                for (symbol, stamp), (signal, value, novelty, abstained), share in told
            ],
        }
    )
