"""Micro-batching: rows of concurrent requests to one bundle are predicted in one pass.

Nobody waits for company. Small requests that the event loop read in one turn are predicted together at its end, on the
event loop: that takes microseconds. Larger ones go to the compute thread, and what arrives while it is busy makes its
next batch. A forest sums integers, so a row's prediction has the same bits in any batch.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from conf.options import Batching
from serving.metrics import Metrics
from serving.predictors import Predictor, Predictors


@dataclass
class Batch:
    """Requests to one predictor that are answered together."""

    predictor: Predictor
    parts: list[np.ndarray] = field(default_factory=list)
    answers: list[asyncio.Future[np.ndarray]] = field(default_factory=list)
    rows: int = 0

    def add(self, X: np.ndarray, answer: asyncio.Future[np.ndarray]) -> None:
        self.parts.append(X)
        self.answers.append(answer)
        self.rows += len(X)

    def compute(self) -> np.ndarray:
        """Predictions float64 of all rows."""
        X = self.parts[0] if len(self.parts) == 1 else np.concatenate(self.parts)
        return self.predictor.bundle.predict_rows(X, self.predictor.evaluator_for(self.rows))

    def settle(self, outcome: np.ndarray | Exception) -> None:
        """Give each request its rows, or all of them the error; who stopped waiting is passed over."""
        first = 0
        for X, answer in zip(self.parts, self.answers, strict=True):
            if not answer.done():
                if isinstance(outcome, Exception):
                    answer.set_exception(outcome)
                else:
                    answer.set_result(outcome[first : first + len(X)])
            first += len(X)


class Batcher:
    """Predicts rows for concurrent requests. Lives on the event loop."""

    def __init__(self, predictors: Predictors, options: Batching, metrics: Metrics) -> None:
        self._predictors = predictors
        self._options = options
        self._turn: dict[int, Batch] = {}  # by bundle: what this turn of the event loop brought
        self._queue: deque[Batch] = deque()  # for the compute thread
        self._busy: asyncio.Task[None] | None = None
        self._rows_here = metrics.batch_rows.labels("event loop")
        self._requests_here = metrics.batch_requests.labels("event loop")
        self._rows_there = metrics.batch_rows.labels("compute thread")
        self._requests_there = metrics.batch_requests.labels("compute thread")

    def inline(self, predictor: Predictor, rows: int) -> bool:
        """Whether so many rows are predicted on the event loop."""
        return rows <= self._options.inline_rows and predictor.evaluator_for(rows) == "native"

    def now(self, predictor: Predictor, X: np.ndarray) -> asyncio.Future[np.ndarray]:
        """Predict at the end of this turn of the event loop, with what else came in it."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[np.ndarray] = loop.create_future()
        batch = self._turn.get(id(predictor.bundle))
        if batch is None:
            batch = self._turn[id(predictor.bundle)] = Batch(predictor)
            loop.call_soon(self._end_of_turn, id(predictor.bundle))
        batch.add(X, answer)
        return answer

    def later(self, predictor: Predictor, X: np.ndarray) -> asyncio.Future[np.ndarray]:
        """Predict on the compute thread when it is free."""
        answer: asyncio.Future[np.ndarray] = asyncio.get_running_loop().create_future()
        fits = (
            batch
            for batch in self._queue
            if batch.predictor.bundle is predictor.bundle and batch.rows + len(X) <= self._options.max_rows
        )
        batch = next(fits, None)
        if batch is None:
            batch = Batch(predictor)
            self._queue.append(batch)
        batch.add(X, answer)
        if self._busy is None:
            self._busy = asyncio.create_task(self._drain())
        return answer

    def _end_of_turn(self, bundle: int) -> None:
        batch = self._turn.pop(bundle)
        self._rows_here.observe(batch.rows)
        self._requests_here.observe(len(batch.parts))
        batch.settle(_attempt(batch.compute))

    async def _drain(self) -> None:
        try:
            while self._queue:
                batch = self._queue.popleft()
                self._rows_there.observe(batch.rows)
                self._requests_there.observe(len(batch.parts))
                batch.settle(await self._predictors.compute(_attempt, batch.compute))
        finally:
            self._busy = None


def _attempt(work: Callable[[], np.ndarray]) -> np.ndarray | Exception:
    """The result, or the error as a value: every request of the batch must hear of it."""
    try:
        return work()
    except Exception as error:
        return error
