"""`GET /analogs`: the past states most like one of a symbol, or of the market, as of a time, and what followed them."""

import asyncio
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request

from resources.analogs import MOST
from serving.live_messages import Asked
from serving.messages import Message
from serving.problems import documented

COST = 500  # rows of a table that one question counts as, among those that wait for the tables

router = APIRouter()


class State(Message):
    """The state that was asked about: the newest one known at that time."""

    timestamp: datetime
    known_at: datetime
    coverage: float


class Analog(Message):
    """A past state, and what followed it as far as that was known then."""

    timestamp: datetime
    known_at: datetime
    coverage: float
    distance: float
    outcome: float | None
    outcome_known_at: datetime | None
    members: int | None


class Followed(Message):
    """What followed the analogs whose outcome was known."""

    known: int
    mean: float | None
    median: float | None
    share_above_zero: float | None


class AnalogsAnswer(Message):
    """The nearest past states, nearest first."""

    horizon: str
    symbol: str
    at: datetime
    state: State
    label: str
    apart: int
    analogs: list[Analog]
    followed: Followed


@router.get("/analogs", tags=["analogs"], responses=documented(404, 409, 422, 503))
async def find(
    request: Request,
    horizon: str,
    symbol: Annotated[str | None, Query(description="none: of the market as a whole")] = None,
    at: Annotated[Asked | None, Query(description="as of this time, UTC unless it has an offset; none: now")] = None,
    k: Annotated[int, Query(ge=1, le=MOST, description="how many")] = 10,
) -> AnalogsAnswer:
    """The past states nearest to the newest one known at a time, and what followed them, as it was known then.

    Nothing that was known later is seen. States are those that the `vectors` step has written: the newest may be
    older than the live state's.
    """
    state = request.app.state
    bundle = state.predictors.serving(horizon).bundle
    moment = at or state.clock.now()
    async with state.reading.waiting(COST):
        found = await asyncio.to_thread(state.memory.ask, bundle, symbol, moment, k)
    told: dict[str, Any] = found.to_dict()
    return AnalogsAnswer.model_validate(told)
