"""Rows of concurrent requests are predicted together, and nobody can tell from the answers."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conf.options import Batching
from quant.bundle import Bundle
from quant.forest_choice import fixed
from resources.registry import Entry
from serving.batching import Batcher
from serving.metrics import Metrics
from serving.predictor import Predictor

NOW = datetime(2026, 11, 20, tzinfo=UTC)


class Thread:
    """The compute thread alone."""

    def __init__(self) -> None:
        self.pool = ThreadPoolExecutor(1)

    async def compute(self, work: Callable[..., Any], *arguments: object) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self.pool, work, *arguments)


def predictor(bundle: Bundle) -> Predictor:
    entry = Entry(1, "5m", bundle.id, "promote", "first", NOW)
    return Predictor(bundle, entry, NOW, NOW, fixed("native"))


def batching(work: Callable[[Batcher], Awaitable[None]], *, inline: int = 4, most: int = 32) -> Metrics:
    """Run `work` on an event loop with a batcher; its metrics."""
    metrics = Metrics()

    async def run() -> None:
        thread = Thread()
        try:
            made = Batcher(thread, Batching(inline_rows=inline, max_rows=most), metrics)  # type: ignore[arg-type]
            await work(made)
        finally:
            thread.pool.shutdown()

    asyncio.run(run())
    return metrics


def batches(metrics: Metrics, where: str) -> tuple[float, float]:
    """How many batches there were, and how many rows in all of them."""
    sample = metrics.registry.get_sample_value
    told = {"where": where}
    return sample("tenor_batch_rows_count", told) or 0, sample("tenor_batch_rows_sum", told) or 0


@settings(max_examples=25)
@given(sizes=st.lists(st.integers(1, 40), min_size=1, max_size=12), inline=st.integers(1, 40), seed=st.integers(0, 99))
def test_a_prediction_has_the_same_bits_in_whatever_batch_it_is_made(
    bundles: list[Bundle], sizes: list[int], inline: int, seed: int
) -> None:
    chance = np.random.default_rng(seed)
    parts = [chance.normal(size=(size, 3)).astype(np.float32) for size in sizes]
    alone = [np.concatenate([bundles[0].predict_rows(row[None]) for row in X]).tobytes() for X in parts]

    async def work(batcher: Batcher) -> None:
        one = predictor(bundles[0])
        asked = [batcher.now(one, X) if batcher.inline(one, len(X)) else batcher.later(one, X) for X in parts]
        assert [values.tobytes() for values in await asyncio.gather(*asked)] == alone

    batching(work, inline=inline)


def test_of_one_turn_of_the_event_loop_the_first_is_answered_at_once_and_the_others_in_a_batch_per_bundle(
    bundles: list[Bundle],
) -> None:
    rows = np.zeros((2, 3), np.float32)

    async def work(batcher: Batcher) -> None:
        for _ in range(3):
            await asyncio.gather(*(batcher.now(predictor(bundle), rows) for bundle in bundles * 5))

    assert batches(batching(work), "event loop") == (9, 60)


class Held:
    """A computation that waits for `go_on`, and how many rows each one had."""

    def __init__(self, predict: Callable[..., np.ndarray]) -> None:
        self.begun, self.go_on = threading.Event(), threading.Event()
        self.seen: list[int] = []
        self.predict = predict

    async def first(self, batcher: Batcher, by: Predictor) -> asyncio.Future[np.ndarray]:
        """Five rows that keep the compute thread busy."""
        asked = batcher.later(by, np.zeros((5, 3), np.float32))
        await asyncio.to_thread(self.begun.wait, 10)
        return asked


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Held:
    made = Held(Bundle.predict_rows)

    def predict(self: Bundle, X: np.ndarray, *given: Any) -> np.ndarray:
        made.begun.set()
        assert made.go_on.wait(10)
        made.seen.append(len(X))
        return made.predict(self, X, *given)

    monkeypatch.setattr(Bundle, "predict_rows", predict)
    return made


def test_what_arrives_while_the_compute_thread_is_busy_makes_its_next_batches_of_bounded_size(
    bundles: list[Bundle], held: Held
) -> None:
    async def work(batcher: Batcher) -> None:
        one = predictor(bundles[0])
        first = await held.first(batcher, one)
        rest = [batcher.later(one, np.full((10, 3), at, np.float32)) for at in range(7)]
        held.go_on.set()
        assert len(await first) == 5
        found = await asyncio.gather(*rest)
        for at, values in enumerate(found):
            expected = held.predict(bundles[0], np.full((10, 3), at, np.float32))
            assert values.tobytes() == expected.tobytes()

    assert batches(batching(work), "compute thread") == (1 + 3, 75)  # 10s in batches of at most 32: 30, 30, 10
    assert max(held.seen) <= 32


@pytest.mark.parametrize("where", ["now", "later"])
def test_an_error_reaches_every_request_of_the_batch_and_no_later_one(
    bundles: list[Bundle], monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    predict = Bundle.predict_rows
    monkeypatch.setattr(Bundle, "predict_rows", lambda *_: 1 / 0)

    async def work(batcher: Batcher) -> None:
        one, rows = predictor(bundles[0]), np.zeros((2, 3), np.float32)
        ask = getattr(batcher, where)
        found = await asyncio.gather(ask(one, rows), ask(one, rows), return_exceptions=True)
        assert [type(error) for error in found] == [ZeroDivisionError] * 2
        monkeypatch.setattr(Bundle, "predict_rows", predict)
        assert len(await ask(one, rows)) == 2

    batching(work)


def test_who_stopped_waiting_takes_nothing_from_the_others(bundles: list[Bundle]) -> None:
    async def work(batcher: Batcher) -> None:
        one = predictor(bundles[0])
        X = [np.full((2, 3), at, np.float32) for at in range(3)]
        asked = [asyncio.create_task(batcher.now(one, rows)) for rows in X]
        await asyncio.sleep(0)
        assert [answer.done() for answer in asked] == [True, False, False]
        asked[1].cancel()
        assert (await asked[0]).tobytes() == bundles[0].predict_rows(X[0]).tobytes()
        assert (await asked[2]).tobytes() == bundles[0].predict_rows(X[2]).tobytes()

    batching(work)


def test_nothing_is_computed_for_who_stopped_waiting_in_the_queue(bundles: list[Bundle], held: Held) -> None:
    async def work(batcher: Batcher) -> None:
        one = predictor(bundles[0])
        first = await held.first(batcher, one)
        gone, stays = (batcher.later(one, np.zeros((rows, 3), np.float32)) for rows in (6, 7))
        gone.cancel()
        held.go_on.set()
        assert (len(await first), len(await stays)) == (5, 7)

    batching(work)
    assert held.seen == [5, 7]


def test_a_compute_thread_that_has_ended_leaves_nobody_waiting(bundles: list[Bundle]) -> None:
    async def work(batcher: Batcher) -> None:
        batcher._predictors.pool.shutdown()  # type: ignore[attr-defined]
        with pytest.raises(RuntimeError, match="after shutdown"):
            await batcher.later(predictor(bundles[0]), np.zeros((5, 3), np.float32))

    batching(work)
