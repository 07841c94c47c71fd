"""The parts of one running service: made together, started and ended in their order."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from conf.options import Options
from resources.clock import Clock
from resources.registry import Registry
from serving import tracing
from serving.access import Access
from serving.access_lines import AccessLines
from serving.audit_log import AuditLog
from serving.bodies import Bodies
from serving.cache import Cache
from serving.evaluators import Evaluators
from serving.keys import KeyRing
from serving.limits import Gate
from serving.live import LiveService
from serving.live_relog import Relog
from serving.live_shadow import BarsShadow
from serving.memory import Memory
from serving.metrics import Metrics
from serving.prediction_log import PredictionLog
from serving.predictors import Predictors
from serving.proofs import Prover
from serving.scoring import Scorer
from serving.state import State
from serving.stream import Hub
from serving.turn import Turn

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

PUSHERS = 2_000  # pushes that wait for the disk, which they share
READERS = 64  # questions that wait for the tables: more than these would wait for longer than a second


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
    turn: Turn
    reading: Gate
    pushing: Gate
    bodies: Bodies
    lines: AccessLines
    traces: "TracerProvider | None"  # None: nobody traces
    scorer: Scorer
    prediction_log: PredictionLog | None  # None: nothing is kept
    hub: Hub
    live: LiveService
    relog: Relog
    bars_shadow: BarsShadow
    cache: Cache
    memory: Memory
    _followers: list[asyncio.Task[None]] = field(default_factory=list)

    async def start(self) -> None:
        """Begin to follow the ledger and to write what is predicted."""
        await self.live.start()  # before the first model comes: it brings its live state with it
        following = (self.predictors.follow(self.options.follow_seconds), self.access.follow(), self.relog.run())
        self._followers = [asyncio.create_task(one) for one in following]
        if self.prediction_log is not None:
            self.prediction_log.start()

    async def close(self) -> None:
        """End each part before those that it needs; what is kept is written."""
        for follower in self._followers:
            follower.cancel()
            with suppress(asyncio.CancelledError):
                await follower
        self.bodies.close()
        await self.live.close()
        await self.bars_shadow.close()
        self.predictors.close()
        if self.prediction_log is not None:
            await asyncio.to_thread(self.prediction_log.close)
        await asyncio.to_thread(self.memory.close)
        self.lines.flush()
        if self.traces is not None:
            await asyncio.to_thread(self.traces.shutdown)


def build(store: Path, horizons: tuple[str, ...], options: Options, keys: KeyRing | None, clock: Clock) -> Service:
    """The parts of a service over the store; nothing runs before `start`.

    Raises EvaluatorError and TracingError where the options or the environment ask for what this machine has not.
    """
    metrics, audit = Metrics(), AuditLog(store, clock)
    evaluators = Evaluators(store, options.evaluator)
    kept: PredictionLog | None = None
    registry = Registry(store, clock)
    prover = Prover(registry, lambda: kept.helper if kept else None)
    predictors = Predictors(registry, horizons, clock, evaluators, audit, options.beside, prover)
    predictors.observers.append(metrics.swapped)
    metrics.registry.register(State(predictors, clock))
    limits, body = options.limits, options.limits.body_mib * 2**20
    gate = Gate(
        limits.waiting, limits.waiting_rows, "rows", limits.seconds, metrics, (metrics.waiting, metrics.waiting_rows)
    )
    # All that waits to be parsed is no more than one request may be: about a fifth of a second of it.
    parsing = Gate(limits.waiting, body, "bytes", limits.seconds, metrics, (metrics.bodies, metrics.body_bytes))
    reading = Gate(
        READERS, READERS * options.live.rows, "rows", limits.seconds, metrics, (metrics.reads, metrics.read_rows)
    )
    # No time limit: what is on the disk must become live. A feed may send each symbol's bar by itself.
    pushing = Gate(PUSHERS, limits.waiting_rows, "bars", limits.seconds, metrics, (metrics.pushes, metrics.push_bars))
    traces = tracing.provider()
    tracer = traces.get_tracer("tenor.serving") if traces else None
    scorer = Scorer(predictors, options, metrics, clock, gate, tracer)
    if options.log.predictions:
        kept = PredictionLog(store, options.log, metrics, predictors.challengers.in_shadow)
        scorer.sinks.append(kept.put)
    hub = Hub(options.live.queue, metrics)
    live = LiveService(store, predictors, scorer, clock, options.live, metrics, hub)
    access = Access(keys, options.auth.requests_per_second)
    access.observers.append(hub.end_uninvited)
    return Service(
        options=options,
        clock=clock,
        store=store,
        started_at=clock.now(),
        metrics=metrics,
        audit=audit,
        predictors=predictors,
        access=access,
        gate=gate,
        turn=Turn(),
        reading=reading,
        pushing=pushing,
        bodies=Bodies(parsing),
        lines=AccessLines(options.access_lines, clock),
        traces=traces,
        scorer=scorer,
        prediction_log=kept,
        hub=hub,
        live=live,
        relog=Relog(store, registry, live, clock, options.log, options.live.keep, metrics),
        bars_shadow=BarsShadow(predictors.challengers, scorer, clock, metrics),
        cache=Cache(options.live.cache_mib * 2**20),
        memory=Memory(store),
    )
