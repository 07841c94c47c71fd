"""The one place where predictions are made: rows in, answers out, and a record of them for the prediction log."""

import asyncio
import time
from collections.abc import Callable, Sequence

import numpy as np
from opentelemetry.trace import Tracer
from prometheus_client import Counter

from conf.options import Options
from quant.bundle import Bundle
from resources.clock import Clock
from serving.batching import Batcher
from serving.histogram import Child
from serving.limits import Gate
from serving.metrics import Metrics
from serving.predictor import Predictor
from serving.predictors import Predictors
from serving.record import Key, Record, Scored

NOVEL_HERE = 8  # rows whose novelty, 10 µs each, is measured on the event loop; of more on a thread


class Scorer:
    """Predicts rows of every route.

    gate: who may wait for the compute thread. sinks: called with each request's Record on the event loop, right before
    its answer; they must never wait. tracer: None where nobody traces.
    """

    def __init__(
        self,
        predictors: Predictors,
        options: Options,
        metrics: Metrics,
        clock: Clock,
        gate: Gate,
        tracer: Tracer | None = None,
    ) -> None:
        self.sinks: list[Callable[[Record], None]] = []
        self._batcher = Batcher(predictors, options.batching, metrics)
        self._gate = gate
        self._metrics = metrics
        self._clock = clock
        self._tracer = tracer
        self._counted: dict[tuple[str, str], tuple[Counter, Child]] = {}  # binding labels costs more than counting

    async def score(
        self,
        predictor: Predictor,
        X: np.ndarray,
        *,
        route: str,
        request_id: str,
        keys: Sequence[Key] | None = None,
        novel: bool = True,
    ) -> Scored:
        """Predictions of X float32 [N, F], NaN = missing, C-contiguous, which nobody changes afterwards.

        keys: symbol and bar of each row where they are known. novel: whether the answer tells novelty; a model that may
        abstain is asked for it anyway. Raises BundleError for another shape, Problem 503 when too many wait.
        """
        began = time.perf_counter()
        if self._tracer is None:
            values, novelty = await self._answer(predictor, X, novel)
        else:
            bundle = predictor.bundle
            with self._tracer.start_as_current_span("score") as span:
                span.set_attributes({"tenor.bundle": bundle.id, "tenor.horizon": bundle.horizon, "tenor.rows": len(X)})
                values, novelty = await self._answer(predictor, X, novel)
        seconds = time.perf_counter() - began
        self.keep(predictor, X, values, route=route, request_id=request_id, keys=keys, seconds=seconds)
        return Scored(values, request_id, novelty, abstained(predictor.bundle, novelty))

    def inline(self, predictor: Predictor, X: np.ndarray) -> bool:
        """Whether `predict` may be asked for rows: they are few, and a native walk of the forest is fastest."""
        return self._batcher.inline(predictor, len(X))

    def predict(self, predictor: Predictor, X: np.ndarray) -> np.ndarray:
        """Predictions float64 [N] at once, for who keeps them; X as for `score`."""
        return self._batcher.alone(predictor, X)

    def keep(
        self,
        predictor: Predictor,
        X: np.ndarray,
        values: np.ndarray,
        *,
        route: str,
        request_id: str,
        keys: Sequence[Key] | None,
        seconds: float,
    ) -> None:
        """Count an answer, and hand it to the sinks."""
        horizon = predictor.bundle.horizon
        self._count(horizon, route, len(X), seconds)
        record = Record(request_id, self._clock.now(), route, horizon, predictor, X, values, keys, seconds)
        for sink in self.sinks:
            sink(record)

    def shadow(self, record: Record) -> None:
        """Hand the sinks what nobody was told."""
        for sink in self.sinks:
            sink(record)

    async def _answer(self, predictor: Predictor, X: np.ndarray, novel: bool) -> tuple[np.ndarray, np.ndarray | None]:
        """Predictions, and novelty where it is wanted and can be told."""
        bundle = predictor.bundle
        novel = bundle.novelty is not None and (novel or bundle.abstains_above is not None)
        if self._batcher.inline(predictor, len(X)):
            values = await self._batcher.now(predictor, X)
            if novel and len(X) <= NOVEL_HERE:
                return values, bundle.novelty_of(X)
            return values, await asyncio.to_thread(bundle.novelty_of, X) if novel else None
        async with self._gate.waiting(len(X)):
            values = await self._batcher.later(predictor, X)
            return values, await asyncio.to_thread(bundle.novelty_of, X) if novel else None

    def _count(self, horizon: str, route: str, rows: int, seconds: float) -> None:
        if (horizon, route) not in self._counted:
            metrics = self._metrics
            self._counted[horizon, route] = metrics.rows.labels(horizon, route), metrics.score_seconds.labels(horizon)
        counter, histogram = self._counted[horizon, route]
        counter.inc(rows)
        histogram.observe(seconds)


def abstained(bundle: Bundle, novelty: np.ndarray | None) -> np.ndarray | None:
    """Whether each answer is no signal, bool [N], by the bundle's own rule; None where novelty was not asked for."""
    above = bundle.abstains_above
    if novelty is None:
        return None
    return np.zeros(len(novelty), bool) if above is None else novelty > np.float32(above)
