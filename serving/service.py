"""The parts of one running service: made together, started and ended in their order."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from conf.options import Options
from resources.clock import Clock
from resources.lake import Lake
from resources.registry import Registry
from serving import tracing
from serving.access import Access
from serving.access_lines import AccessLines
from serving.audit_log import AuditLog
from serving.cache import Cache
from serving.evaluators import Evaluators
from serving.keys import KeyRing
from serving.limits import Gate
from serving.live import LiveService
from serving.metrics import Metrics
from serving.prediction_log import PredictionLog
from serving.predictors import Predictors
from serving.scoring import Scorer
from serving.state import State
from serving.stream import Hub

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider


@dataclass
class Service:
    """What the routes find on `app.state`, by these names."""

    options: Options
    clock: Clock
    store: Path
    started_at: datetime
    metrics: Metrics
    audit: AuditLog
    predictors: Predictors
    access: Access
    gate: Gate
    lines: AccessLines
    traces: "TracerProvider | None"  # None: nobody traces
    scorer: Scorer
    prediction_log: PredictionLog | None  # None: nothing is kept
    hub: Hub
    live: LiveService
    cache: Cache
    _followers: list[asyncio.Task[None]] = field(default_factory=list)

    async def start(self) -> None:
        """Begin to follow the ledger and to write what is predicted."""
        await self.live.start()  # before the first model comes: it brings its live state with it
        pause = self.options.follow_seconds
        self._followers = [asyncio.create_task(one.follow(pause)) for one in (self.predictors, self.access)]
        if self.prediction_log is not None:
            self.prediction_log.start()

    async def close(self) -> None:
        """End each part before those that it needs; what is kept is written."""
        for follower in self._followers:
            follower.cancel()
            with suppress(asyncio.CancelledError):
                await follower
        await self.live.close()
        self.predictors.close()
        if self.prediction_log is not None:
            await asyncio.to_thread(self.prediction_log.close)
        self.lines.flush()
        if self.traces is not None:
            await asyncio.to_thread(self.traces.shutdown)


def build(store: Path, horizons: tuple[str, ...], options: Options, keys: KeyRing | None, clock: Clock) -> Service:
    """The parts of a service over the store; nothing runs before `start`.

    Raises EvaluatorError and TracingError where the options or the environment ask for what this machine has not.
    """
    metrics, audit = Metrics(), AuditLog(store, clock)
    evaluators = Evaluators(store, options.evaluator)
    predictors = Predictors(Registry(store, clock), horizons, clock, evaluators, audit, options.beside)
    predictors.observers.append(metrics.swapped)
    metrics.registry.register(State(predictors, clock))
    gate, traces = Gate(options.limits, metrics), tracing.provider()
    tracer = traces.get_tracer("tenor.serving") if traces else None
    scorer = Scorer(predictors, options, metrics, clock, gate, tracer)
    kept: PredictionLog | None = None
    if options.log.predictions:
        kept = PredictionLog(Lake(f"{store}/lake"), options.log, metrics, predictors.challengers.in_shadow)
        scorer.sinks.append(kept.put)
    hub = Hub(options.live.queue, metrics)
    return Service(
        options=options,
        clock=clock,
        store=store,
        started_at=clock.now(),
        metrics=metrics,
        audit=audit,
        predictors=predictors,
        access=Access(keys, options.auth.requests_per_second),
        gate=gate,
        lines=AccessLines(options.access_lines, clock),
        traces=traces,
        scorer=scorer,
        prediction_log=kept,
        hub=hub,
        live=LiveService(store, predictors, scorer, clock, options.live, metrics, hub),
        cache=Cache(options.live.cache_mib * 2**20),
    )
