"""A turn of the event loop that has worked for long refuses the rest of its requests, but never a probe."""

import asyncio

import pytest
from starlette.types import Receive, Scope, Send

from serving.metrics import Metrics
from serving.problems import Problem
from serving.turn import BUDGET, Shedding, Turn


class Worker:
    """An application of which each request takes a quarter of a turn's budget."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.answered: list[str] = []
        monkeypatch.setattr("serving.turn.time.thread_time", lambda: self.now)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.now += BUDGET / 4
        self.answered.append(scope["path"])


async def _nothing() -> None:
    raise AssertionError("nobody reads or writes here")


def ask(turn: Shedding, path: str) -> asyncio.Task[None]:
    return asyncio.ensure_future(turn({"type": "http", "path": path}, _nothing, _nothing))


def test_what_comes_at_once_beyond_the_budget_is_refused_and_the_next_turn_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    worker, metrics = Worker(monkeypatch), Metrics()

    async def flood() -> None:
        turn = Shedding(worker, Turn(), metrics)
        paths = ["/predict", "/ready"] * 10
        told = await asyncio.gather(*(ask(turn, path) for path in paths), return_exceptions=True)
        refused = [path for path, problem in zip(paths, told, strict=True) if isinstance(problem, Problem)]
        assert worker.answered.count("/ready") == 10
        assert worker.answered.count("/predict") == 3  # a probe took the budget's other two quarters
        assert refused == ["/predict"] * 7
        [first] = {str(problem.headers) for problem in told if isinstance(problem, Problem)}
        assert "retry-after" in first
        await asyncio.sleep(0)
        await ask(turn, "/predict")

    asyncio.run(flood())
    assert b'tenor_shed_total{why="turn"} 7.0' in metrics.text()


def test_requests_one_after_the_other_are_all_answered_however_long_each_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = Worker(monkeypatch)

    async def follow() -> None:
        turn = Shedding(worker, Turn(), Metrics())
        for _ in range(100):
            await ask(turn, "/predict")
            await asyncio.sleep(0)

    asyncio.run(follow())
    assert len(worker.answered) == 100
