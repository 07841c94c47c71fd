"""`POST /bars`, `GET /signals/{horizon}`, `GET /api/data/{symbol}` and `GET /api/features/{symbol}`."""

import asyncio
from collections.abc import Callable
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query, Request, Response

from quant.panel import moment
from serving import bodies, json_rows, live_read, live_tables
from serving.live import LiveService
from serving.live_horizon import LiveHorizon
from serving.live_messages import Asked, PushBars, Pushed, PushedBar, Series, Signals
from serving.live_read import Page, Rows, Source, Window
from serving.problems import LISTED, Faults, documented, field_error, refuse_fields

JSON = "application/json"

router = APIRouter()

Limit = Annotated[int, Query(ge=1, description="rows of one answer, the newest of the range")]
From = Annotated[Asked | None, Query(description="bars that start at this time or later; UTC unless it has an offset")]
To = Annotated[Asked | None, Query(description="bars that start before this time; UTC unless it has an offset")]
Cursor = Annotated[Asked | None, Query(description="`next` of the answer before: the rows before that one's")]
Columns = Annotated[list[str] | None, Query(description="only these columns; repeatable")]


@router.post(
    "/bars",
    tags=["live"],
    responses=documented(400, 404, 408, 409, 413, 415, 422, 503),
    openapi_extra=bodies.documented(PushBars),
)
async def push(request: Request) -> Pushed:
    """Push bars that have closed. Once answered they are on the disk, whatever happens to the service.

    Each is held to the rules of the bars step; those refused are named, the others are taken; 422 where all are
    refused. A section closes when all members have arrived, or at its deadline.
    """
    state = request.app.state
    horizon, sent = await state.bodies.read(request, read, state.options.limits.bars)
    if not sent.good:
        raise refuse_fields("wrong-bars", list(_first(sent).values()), sent.total)
    with state.pushing.place(len(sent.good)):
        taken, pushed = await state.live.push(horizon, sent.good)
    state.metrics.pushed.labels(horizon, "refused").inc(sent.total - len(sent.good))
    refused = {error["row"]: error for error in pushed.refused} | _first(sent)
    told = [refused[row] for row in sorted(refused)]
    count = len(pushed.refused) + sent.total - len(sent.good)
    if count == sent.total:
        raise refuse_fields("wrong-bars", told, count)
    return Pushed(horizon=horizon, **vars(taken), refused=told[:LISTED], refused_count=count)


def read(body: bytes, most: int) -> tuple[str, json_rows.Items]:
    """The horizon and its bars, those that are none among them; 400 or 422 where the rest is wrong."""
    found, faults = json_rows.members(body), Faults()
    values: dict[str, Any] = dict(found)
    sent = json_rows.items(found["bars"], PushedBar, ["bars"], most) if "bars" in found else None
    if sent is not None:
        values["bars"] = list(sent.good.values())[:1] or [PushedBar.model_construct()] * min(sent.total, 1)
    asked = json_rows.message(PushBars, values, faults)
    assert sent is not None  # or the message had been refused
    return asked.horizon, sent


def _first(sent: json_rows.Items) -> dict[int, dict[str, Any]]:
    """By row, the first thing that is wrong with a bar that is none."""
    return {row: errors[0] for row, errors in sent.wrong.items()}


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
    told = [(section, held.feed.restated.get(section.slot)) for section in newest]

    def encoded() -> bytes:  # each section by itself: the event loop goes on between them
        found = [msgspec.Raw(msgspec.json.encode(section.to_dict(wanted, at))) for section, at in told]
        return msgspec.json.encode({"horizon": horizon, "sections": found})

    if len(told) == 1:
        return Response(encoded(), media_type=JSON)
    async with request.app.state.reading.waiting(len(told)):
        return Response(await asyncio.to_thread(encoded), media_type=JSON)


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
    return await _answer(request, "data", horizon, page, live_read.bars_in_memory, live_tables.bars_of_table)


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
    return await _answer(
        request, "features", horizon, page, live_read.features_in_memory, live_tables.features_of_table
    )


def _window(start: Any, end: Any, cursor: Any, limit: int) -> Window:
    ends = [moment for moment in (end, cursor) if moment is not None]
    return Window(start, min(ends) if ends else None, limit)


async def _answer(
    request: Request,
    route: str,
    horizon: str,
    page: Page,
    in_memory: Callable[[LiveService, LiveHorizon, Page], Source],
    of_table: Callable[[LiveService, LiveHorizon, Page], Rows],
) -> Response:
    """From the encoded answers, or from memory; where it does not reach back far enough, from the tables too.

    What lies before the memory is kept as rows beside it: the next bar makes a new answer, and reads no table.
    """
    state = request.app.state
    live, cache, counted = state.live, state.cache, state.metrics.cache
    most = state.options.live.rows
    if page.window.limit > most:
        why = f"{page.window.limit:,} are more than the {most:,} rows of one answer: page with `cursor`"
        raise refuse_fields("too-many-rows", [field_error(["query", "limit"], why)])
    held = live.horizon(horizon)
    live.require([horizon], [page.symbol])
    source = in_memory(live, held, page)
    past = page.window.end is not None and source.since is not None and page.window.end <= moment(source.since)
    key = (route, horizon, page, source.past, None if past else source.version)
    answer, hit = cache.get(key), True
    if answer is None:
        found = source.read()
        if not found.whole:
            earlier = page.before(found.time[0] if len(found.time) else found.since)
            rows_key = (route, horizon, earlier, source.past)
            older = cache.get(rows_key)
            if older is None:
                async with state.reading.waiting(page.window.limit):
                    hit, older = False, await asyncio.to_thread(of_table, live, held, earlier)
                cache.put(rows_key, older, older.size)
            answer = await asyncio.to_thread(_encoded, horizon, page, found, older)
        else:
            answer = _encoded(horizon, page, found, None)
        cache.put(key, answer, len(answer))
    counted.labels(route, "hit" if hit else "miss").inc()
    return Response(answer, media_type=JSON)


def _encoded(horizon: str, page: Page, found: Rows, older: Rows | None) -> bytes:
    rows = found if older is None else older.before(found, page.window)
    return msgspec.json.encode({"horizon": horizon, "symbol": page.symbol, **rows.to_dict()})
