"""The application: the service's parts behind routes, limits, logs and problem documents."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import Depends, FastAPI
from fastapi.staticfiles import StaticFiles

from conf.options import Options
from resources.clock import Clock, clock_of_environment
from serving import analogs, data, openapi, predict, problems, routes, stream, v2
from serving import options as written
from serving.guard import Guard
from serving.keys import KeyRing
from serving.limits import BodyLimit, PlainBody
from serving.observe import Observe
from serving.page import FOLDER
from serving.query import only_known
from serving.service import build
from serving.turn import Shedding
from serving.v2_infer import Infer, document

DESCRIPTION = """Predictions from the champions of a Tenor registry, exactly as they were trained.

Send factor values or raw bars to `POST /predict`; `GET /models/{horizon}/example` gives a body to try.
Errors are RFC 9457 problem documents that name the field and the row."""


def create_app(
    store_root: Path,
    horizons: Sequence[str] = (),
    *,
    options: Options | None = None,
    keys: KeyRing | None = None,
    clock: Clock | None = None,
) -> FastAPI:
    """The service over the registry under `store_root`.

    horizons: names answered with 503 instead of 404 before their first bundle; others appear with their
    folder in the registry. options: None: what conf/serving/local.yaml states. keys: None: this machine is let in
    without one, and no other. clock: None: the one that the environment names, so that a service is replayed too.
    """
    store = Path(store_root).resolve()
    parts = build(store, tuple(horizons), options or written.read(), keys, clock or clock_of_environment())

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await parts.start()
        yield
        await parts.close()

    app = FastAPI(
        title="Tenor",
        summary="Inference service",
        description=DESCRIPTION,
        version="0.1.0",
        lifespan=lifespan,
        docs_url=None,  # ours: FastAPI's load their scripts from elsewhere
        redoc_url=None,
        dependencies=[Depends(only_known)],
        # Prometheus has the metrics and standard error the log, whoever traces.
        telemetry={
            "tracing": parts.traces is not None,
            "tracer_provider": parts.traces,
            "metrics": False,
            "logs": False,
        },
    )
    for name, part in vars(parts).items():
        setattr(app.state, name, part)
    # Each is added around the ones before: the last sees every answer.
    app.add_middleware(PlainBody)
    app.add_middleware(Infer, service=app)
    app.add_middleware(BodyLimit, limits=parts.options.limits)
    app.add_middleware(Guard, access=parts.access)
    app.add_middleware(Shedding, turn=parts.turn, metrics=parts.metrics)
    app.add_middleware(Observe, metrics=parts.metrics, lines=parts.lines, traced=parts.traces is not None)
    problems.install(app)
    for routed in (routes, predict, v2, data, analogs, stream):
        app.include_router(routed.router)
    document(app)
    openapi.install(app)
    app.mount("/pages", StaticFiles(directory=FOLDER), name="pages")
    # Drift and evaluation pages that the pipeline wrote: a link from the Dagster UI ends here.
    app.mount("/reports", StaticFiles(directory=store / "reports", html=True, check_dir=False), name="reports")
    return app
