"""The application: predictors of one registry behind routes, limits, logs and problem documents."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles

from conf.options import Options
from resources.clock import Clock, SystemClock
from resources.lake import Lake
from resources.registry import Registry
from serving import data, openapi, predict, problems, routes, stream, tracing, v2
from serving import options as written
from serving.access import Access
from serving.access_lines import AccessLines
from serving.audit_log import AuditLog
from serving.cache import Cache
from serving.evaluators import Evaluators
from serving.guard import Guard
from serving.keys import KeyRing
from serving.limits import BodyLimit, Gate
from serving.live import LiveService
from serving.metrics import Metrics
from serving.observe import Observe
from serving.prediction_log import PredictionLog
from serving.predictors import Predictors
from serving.scoring import Scorer
from serving.state import State
from serving.stream import Hub
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
    without one, and no other.
    """
    clock = clock or SystemClock()
    options = options or written.read()
    metrics = Metrics()
    audit = AuditLog(store_root, clock)
    registry, evaluators = Registry(store_root, clock), Evaluators(store_root, options.evaluator)
    predictors = Predictors(registry, horizons, clock, evaluators, audit, options.beside)
    metrics.registry.register(State(predictors, clock))
    predictors.observers.append(metrics.swapped)
    access = Access(keys, options.auth.requests_per_second)
    gate = Gate(options.limits, metrics)
    lines = AccessLines(options.access_lines, clock)
    traces = tracing.provider()
    tracer = traces.get_tracer("tenor.serving") if traces else None
    scorer = Scorer(predictors, options, metrics, clock, gate, tracer)
    kept: PredictionLog | None = None
    if options.log.predictions:
        kept = PredictionLog(Lake(f"{store_root}/lake"), options.log, metrics, predictors.challengers.in_shadow)
        scorer.sinks.append(kept.put)
    hub = Hub(options.live.queue, metrics)
    live = LiveService(Path(store_root).resolve(), predictors, scorer, clock, options.live, metrics, hub)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await live.start()  # before the first model comes: it brings its live state with it
        pause = options.follow_seconds
        followers = [asyncio.create_task(one.follow(pause)) for one in (predictors, access)]
        if kept is not None:
            kept.start()
        yield
        for follower in followers:
            follower.cancel()
            with suppress(asyncio.CancelledError):
                await follower
        await live.close()
        predictors.close()
        if kept is not None:
            await asyncio.to_thread(kept.close)
        lines.flush()
        if traces is not None:
            await asyncio.to_thread(traces.shutdown)

    app = FastAPI(
        title="Tenor",
        summary="Inference service",
        description=DESCRIPTION,
        version="0.1.0",
        lifespan=lifespan,
        # Prometheus has the metrics and standard error the log, whoever traces.
        telemetry={"tracing": traces is not None, "tracer_provider": traces, "metrics": False, "logs": False},
    )
    app.state.options = options
    app.state.metrics = metrics
    app.state.predictors = predictors
    app.state.gate = gate
    app.state.audit = audit
    app.state.scorer = scorer
    app.state.live = live
    app.state.hub = hub
    app.state.cache = Cache(options.live.cache_mib * 2**20)
    app.state.prediction_log = kept
    app.state.store = Path(store_root).resolve()
    app.state.clock = clock
    app.state.started_at = clock.now()
    # Each is added around the ones before: the last sees every answer.
    app.add_middleware(Infer, service=app)
    app.add_middleware(BodyLimit, limits=options.limits)
    app.add_middleware(Guard, access=access)
    app.add_middleware(Observe, metrics=metrics, lines=lines, traced=traces is not None)
    problems.install(app)
    app.include_router(routes.router)
    app.include_router(predict.router)
    app.include_router(v2.router)
    app.include_router(data.router)
    app.include_router(stream.router)
    document(app)
    openapi.install(app)
    # Drift and evaluation pages that the pipeline wrote: a link from the Dagster UI ends here.
    reports = Path(store_root).resolve() / "reports"
    app.mount("/reports", StaticFiles(directory=reports, html=True, check_dir=False), name="reports")
    return app
