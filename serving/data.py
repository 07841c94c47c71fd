"""`POST /bars`, `GET /signals/{horizon}`, `GET /api/data/{symbol}` and `GET /api/features/{symbol}`."""

import asyncio
from collections.abc import Callable
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query, Request, Response

from serving import live_read
from serving.live_messages import Moment, PushBars, Pushed, Series, Signals
from serving.live_read import Page, Window
from serving.problems import LISTED, Problem, documented, field_error, refuse_fields

JSON = "application/json"

router = APIRouter()

Limit = Annotated[int, Query(ge=1, description="rows of one answer, the newest of the range")]
From = Annotated[Moment | None, Query(description="bars that start at this time or later")]
To = Annotated[Moment | None, Query(description="bars that start before this time")]
Cursor = Annotated[Moment | None, Query(description="`next` of the answer before: the rows before that one's")]
Columns = Annotated[list[str] | None, Query(description="only these columns; repeatable")]


@router.post("/bars", tags=["live"], responses=documented(400, 404, 409, 413, 415, 422, 503))
async def push(request: Request, body: PushBars) -> Pushed:
    """Push bars that have closed. Once answered they are on the disk, whatever happens to the service.

    Each is held to the rules of the bars step; those refused are named, the others are taken; 422 where all are
    refused. A section closes when all members have arrived, or at its deadline.
    """
    state = request.app.state
    most = state.options.limits.bars
    if len(body.bars) > most:
        why = f"{len(body.bars):,} are more than the {most:,} of one request: send several"
        raise refuse_fields("too-large", [field_error(["bars"], why)])
    taken, pushed = await state.live.push(body.horizon, body.bars)
    if len(pushed.refused) == len(body.bars):
        raise refuse_fields("wrong-bars", pushed.refused)
    return Pushed(
        horizon=body.horizon,
        **vars(taken),
        refused=pushed.refused[:LISTED],
        refused_count=len(pushed.refused),
    )


@router.get("/signals/{horizon}", tags=["live"], response_model=Signals, responses=documented(404, 422, 503))
async def signals(
    request: Request,
    horizon: str,
    symbol: Annotated[list[str] | None, Query(description="only these symbols; repeatable")] = None,
    sections: Annotated[int, Query(ge=1, le=1000, description="how many of the newest sections")] = 1,
) -> Response:
    """The newest closed sections, as their signals were sent: a late bar restates features, never a signal."""
    live = request.app.state.live
    held = live.horizon(horizon)
    live.require([horizon], symbol or [])
    wanted = frozenset(symbol or ())
    newest = list(held.sections)[: -sections - 1 : -1]
    found = [section.to_dict(wanted, held.feed.restated.get(section.slot)) for section in newest]
    return Response(msgspec.json.encode({"horizon": horizon, "sections": found}), media_type=JSON)


@router.get("/api/data/{symbol}", tags=["live"], response_model=Series, responses=documented(404, 422, 503))
async def data(
    request: Request,
    symbol: str,
    horizon: str,
    start: From = None,
    end: To = None,
    limit: Limit = 500,
    cursor: Cursor = None,
    columns: Columns = None,
) -> Response:
    """Bars of one symbol, raw, with their cumulative adjustment factors: the newest `limit` of a range."""
    page = Page(symbol, _window(start, end, cursor, limit), tuple(columns or ()))
    return await _answer(request, "data", horizon, page, live_read.bars_in_memory, live_read.bars_of_table)


@router.get("/api/features/{symbol}", tags=["live"], response_model=Series, responses=documented(404, 422, 503))
async def features(
    request: Request,
    symbol: str,
    horizon: str,
    start: From = None,
    end: To = None,
    limit: Limit = 100,
    cursor: Cursor = None,
    columns: Columns = None,
) -> Response:
    """Features of one symbol as the model that serves computes them: the newest `limit` bars of a range."""
    page = Page(symbol, _window(start, end, cursor, limit), tuple(columns or ()))
    return await _answer(request, "features", horizon, page, live_read.features_in_memory, live_read.features_of_table)


def _window(start: Any, end: Any, cursor: Any, limit: int) -> Window:
    ends = [moment for moment in (end, cursor) if moment is not None]
    return Window(start, min(ends) if ends else None, limit)


async def _answer(
    request: Request, route: str, horizon: str, page: Page, in_memory: Callable[..., Any], of_table: Callable[..., Any]
) -> Response:
    """From the encoded answers, or from memory; where it does not reach back far enough, from the tables too."""
    state = request.app.state
    live, cache, counted = state.live, state.cache, state.metrics.cache
    most = state.options.live.rows
    if page.window.limit > most:
        raise Problem(422, "too-many-rows", f"limit: at most {most} rows at once; page with `cursor`", limit=most)
    held = live.horizon(horizon)
    live.require([horizon], [page.symbol])
    source = in_memory(live, held, page)
    key = (route, horizon, page, source.version)
    answer = cache.get(key)
    hit = answer is not None
    if answer is None:
        found = source.read()
        hit = found.whole
        if not hit:
            older = await asyncio.to_thread(of_table, live, held, page, found)
            found = older.before(found, page.window)
        answer = msgspec.json.encode({"horizon": horizon, "symbol": page.symbol, **found.to_dict()})
        cache.put(key, answer)
    counted.labels(route, "hit" if hit else "miss").inc()
    return Response(answer, media_type=JSON)
