"""Micro-batching: rows of concurrent requests to one bundle are predicted in one pass.

Nobody waits for company. Small requests are predicted on the event loop, in microseconds: the first of a turn at once,
those that came in the same turn together at its end. Larger ones go to the compute thread, and what arrives while it is
busy makes its next batch. A forest sums integers, so a row's prediction has the same bits in any batch.
"""

import asyncio
from collections import deque
from dataclasses import dataclass, field

import numpy as np

from conf.options import Batching
from quant.forest import Name
from serving.metrics import Metrics
from serving.predictor import Predictor
from serving.predictors import Predictors


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

    def leave_out_gone(self) -> None:
        """Forget who stopped waiting while the batch did: under load their rows are the first to spare."""
        kept = [(X, answer) for X, answer in zip(self.parts, self.answers, strict=True) if not answer.done()]
        self.parts, self.answers = [X for X, _ in kept], [answer for _, answer in kept]
        self.rows = sum(map(len, self.parts))

    def compute(self, evaluator: Name) -> np.ndarray:
        """Predictions float64 of all rows."""
        X = self.parts[0] if len(self.parts) == 1 else np.concatenate(self.parts)
        return self.predictor.bundle.predict_rows(X, evaluator)

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
        self._turning = False  # whether this turn of the event loop has predicted already
        self._turn: dict[int, Batch] = {}  # by bundle: what else it brought
        self._queue: deque[Batch] = deque()  # for the compute thread
        self._busy: asyncio.Task[None] | None = None
        self._rows_here = metrics.batch_rows.labels("event loop")
        self._requests_here = metrics.batch_requests.labels("event loop")
        self._rows_there = metrics.batch_rows.labels("compute thread")
        self._requests_there = metrics.batch_requests.labels("compute thread")

    def inline(self, predictor: Predictor, rows: int) -> bool:
        """Whether so many rows are predicted on the event loop."""
        return rows <= self._options.inline_rows and predictor.evaluator_for(rows) == "native"

    async def now(self, predictor: Predictor, X: np.ndarray) -> np.ndarray:
        """Predict on the event loop."""
        loop = asyncio.get_running_loop()
        if not self._turning:
            self._turning = True
            loop.call_soon(self._end_of_turn)
            return self.alone(predictor, X)
        batch = self._turn.get(id(predictor.bundle))
        if batch is None:
            batch = self._turn[id(predictor.bundle)] = Batch(predictor)
        answer: asyncio.Future[np.ndarray] = loop.create_future()
        batch.add(X, answer)
        return await answer

    def alone(self, predictor: Predictor, X: np.ndarray) -> np.ndarray:
        """Predict on the event loop, at once."""
        self._rows_here.observe(len(X))
        self._requests_here.observe(1)
        return predictor.bundle.predict_rows(X, "native")

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

    def _end_of_turn(self) -> None:
        self._turning = False
        batches, self._turn = self._turn, {}
        for batch in batches.values():
            self._rows_here.observe(batch.rows)
            self._requests_here.observe(len(batch.parts))
            batch.settle(_attempt(batch, "native"))

    async def _drain(self) -> None:
        try:
            while self._queue:
                batch = self._queue.popleft()
                batch.leave_out_gone()
                if not batch.rows:
                    continue
                self._rows_there.observe(batch.rows)
                self._requests_there.observe(len(batch.parts))
                evaluator = batch.predictor.evaluator_for(batch.rows)
                try:
                    outcome = await self._predictors.compute(_attempt, batch, evaluator)
                except RuntimeError as error:  # the compute thread has ended: the service is stopping
                    outcome = error
                batch.settle(outcome)
        finally:
            self._busy = None


def _attempt(batch: Batch, evaluator: Name) -> np.ndarray | Exception:
    """The predictions, or the error as a value: every request of the batch must hear of it."""
    try:
        return batch.compute(evaluator)
    except Exception as error:
        return error
