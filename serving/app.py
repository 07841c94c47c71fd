"""The application: predictors of one registry behind routes, limits, logs and problem documents."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles

from resources.clock import Clock, SystemClock
from resources.registry import Registry
from serving import problems, routes
from serving.limits import BodyLimit
from serving.messages import MAX_BODY
from serving.observe import Observe
from serving.predictors import Predictors

DESCRIPTION = """Predictions from the champions of a Tenor registry, exactly as they were trained.

Send factor values or raw bars to `POST /predict`; `GET /models/{horizon}/example` gives a body to try.
Errors are RFC 9457 problem documents that name the field and the row."""


def create_app(
    store_root: Path,
    horizons: Sequence[str] = (),
    *,
    clock: Clock | None = None,
    follow_seconds: float = 5.0,
) -> FastAPI:
    """The service over the registry under `store_root`.

    horizons: names answered with 503 instead of 404 before their first bundle; others appear with their
    folder in the registry. follow_seconds: pause between looks at the promotion ledger.
    """
    clock = clock or SystemClock()
    predictors = Predictors(Registry(store_root, clock), horizons, clock)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        follower = asyncio.create_task(predictors.follow(follow_seconds))
        yield
        follower.cancel()
        with suppress(asyncio.CancelledError):
            await follower
        predictors.close()

    app = FastAPI(
        title="Tenor",
        summary="Inference service",
        description=DESCRIPTION,
        version="0.1.0",
        lifespan=lifespan,
    )
    app.state.predictors = predictors
    app.state.store = Path(store_root).resolve()
    app.state.clock = clock
    app.state.started_at = clock.now()
    app.add_middleware(BodyLimit, limit=MAX_BODY)
    app.add_middleware(Observe)  # added last, so outermost: it sees every answer
    problems.install(app)
    app.include_router(routes.router)
    # Drift and evaluation pages that the pipeline wrote: a link from the Dagster UI ends here.
    reports = Path(store_root).resolve() / "reports"
    app.mount("/reports", StaticFiles(directory=reports, html=True, check_dir=False), name="reports")
    return app
