"""Sections as they close: one pass for all symbols, one score, then the streams hear of it."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeVar

import numpy as np
import polars as pl

from quant.live_recipe import LiveRows
from quant.panel import instants, moment
from resources.clock import Clock
from resources.journal import JournalError
from serving.live_feed import Closed
from serving.live_horizon import LiveHorizon
from serving.live_published import Published
from serving.live_section import SectionSignals
from serving.live_shadow import of_section
from serving.live_world import World
from serving.logs import fresh_id, log
from serving.metrics import Metrics
from serving.predictor import Predictor
from serving.predictors import Predictors
from serving.problems import Problem
from serving.record import Key, Scored
from serving.scoring import Scorer
from serving.stream import Hub

LOOK = 1.0  # seconds between looks at the clock while a section is open
ATTEMPTS = 3  # to score a section while the service is overloaded

T = TypeVar("T")


@dataclass
class Current:
    """What runs now. ready: the predictors whose states are warm in this world.

    beside: challengers that read other inputs than these; their states are warm too.
    """

    world: World = field(default_factory=lambda: World({}))
    ready: dict[str, Predictor] = field(default_factory=dict)
    beside: dict[str, Predictor] = field(default_factory=dict)


class Sections:
    """Closes the sections of every horizon; on the event loop, with a thread of its own for the states."""

    def __init__(
        self,
        current: Current,
        predictors: Predictors,
        scorer: Scorer,
        clock: Clock,
        metrics: Metrics,
        hub: Hub,
        published: Published,
    ) -> None:
        self.published = published
        self._current = current
        self._predictors, self._scorer, self._clock = predictors, scorer, clock
        self._metrics, self._hub = metrics, hub
        self._wakes: dict[str, asyncio.Event] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="live")

    def follow(self) -> None:
        """Close the sections of the horizons that there are now."""
        for name in self._current.world.horizons:
            if name not in self._tasks:
                self._wakes[name] = asyncio.Event()
                self._tasks[name] = asyncio.create_task(self._follow(name))
            self.wake(name)
        for name in self._tasks.keys() - self._current.world.horizons.keys():
            self._tasks.pop(name).cancel()

    async def close(self) -> None:
        """Close no section any more."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        self._thread.shutdown()
        await asyncio.to_thread(self.published.close)

    def restated(self, horizon: LiveHorizon, slots: Sequence[np.datetime64], at: datetime) -> None:
        """Remember that bars of closed sections changed, also beyond a restart."""
        sent = {section.slot for section in horizon.sections}
        if told := [slot for slot in slots if slot in sent]:
            self.published.restated(horizon.name, told, at)

    def wake(self, name: str) -> None:
        """Look at a horizon's sections now."""
        if name in self._wakes:
            self._wakes[name].set()

    def came(self, name: str, frame: pl.DataFrame, now: datetime) -> None:
        """Bars of a horizon are in its memory: what was made of others in their place is made anew."""
        horizon = self._current.world.horizons[name]
        slots = instants(frame["timestamp"])
        for coarse in self._current.world.derived(name):
            if coarse.feed.closed is not None and slots.min() <= coarse.feed.closed:
                bins = np.unique(coarse.spec.grid.floor(slots))
                self._remake(horizon, coarse, bins[bins <= coarse.feed.closed], now)
        self._mark(name, slots, instants(frame["known_at"]))
        self.wake(name)

    def _mark(self, name: str, slots: np.ndarray, known: np.ndarray) -> None:
        """The states that have gone past these bars are to be made anew."""
        for reader, state in self._current.world.readers(name):
            if state.position is None:
                continue
            # A bar of elsewhere is seen by those that became known no earlier.
            passed = (
                slots.min() <= state.position
                if reader.name == name
                else known.min() <= reader.spec.grid.ends(np.array([state.position]))[0]
            )
            if passed:
                state.stale = True
                self.wake(reader.name)

    def _remake(
        self, horizon: LiveHorizon, coarse: LiveHorizon, bins: np.ndarray, now: datetime, *, broadcast: bool = True
    ) -> None:
        """Make coarser bars of what there is of them."""
        made = coarse.remade(horizon.bars, bins)
        if not made.is_empty():
            changed = coarse.feed.put(made, now, broadcast=broadcast)
            if changed.new or changed.revised:
                self._mark(coarse.name, instants(made["timestamp"]), instants(made["known_at"]))

    async def _follow(self, name: str) -> None:
        wake = self._wakes[name]
        while True:
            until = self._current.world.horizons[name].feed.until()
            wait = None if until is None else min(max((until - self._clock.now()).total_seconds(), 0.0), LOOK)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(wake.wait(), wait)
            wake.clear()
            try:
                await self.close_due(name)
            except Exception:  # whatever is wrong with one section, the next one must close
                self._metrics.section_failures.labels(name).inc()
                log.exception("a section failed", extra={"fields": {"horizon": name}})
                for state in self._current.world.horizons[name].states.values():
                    state.stale = True

    async def close_due(self, name: str) -> None:
        """Close the sections that are due, predict them in one pass, and tell the streams."""
        world, now, began = self._current.world, self._clock.now(), time.perf_counter()
        horizon = world.horizons[name]
        finer = world.horizons.get(horizon.finer or "")
        if finer is not None and finer.feed.closed is not None:
            horizon.feed.ended(finer.spec.grid.ends(np.array([finer.feed.closed]))[0])
        if closed := horizon.feed.due(now):
            slots = np.array([one.slot for one in closed])
            if finer is not None:
                horizon.bars.put(horizon.remade(finer.bars, slots))
            self._feed_coarser(world, horizon, closed, now)
            if predictor := self._predictor(world, name):
                state = world.state_of(predictor)
                pieces = await self._run(state.advance, closed[-1].slot)
                told = await self._signal(horizon, predictor, pieces, closed, now)
                self._metrics.section_seconds.labels(name).observe(time.perf_counter() - began)
                await self._run(state.remember)
                await self._shadow(world, name, told)
        for state in horizon.states.values():
            if state.stale:
                await self._run(state.refresh)

    def _feed_coarser(self, world: World, horizon: LiveHorizon, closed: Sequence[Closed], now: datetime) -> None:
        """Make the coarser bars that have grown; those that have ended close next.

        Before the pass: a feature may read the hour that ends with this bar.
        """
        slots = np.array([one.slot for one in closed])
        for coarse in world.derived(horizon.name):
            self._remake(horizon, coarse, np.unique(coarse.spec.grid.floor(slots)), now, broadcast=closed[-1].broadcast)
            self.wake(coarse.name)

    async def _signal(
        self,
        horizon: LiveHorizon,
        predictor: Predictor,
        pieces: Sequence[LiveRows],
        closed: Sequence[Closed],
        now: datetime,
    ) -> list[SectionSignals]:
        """Predict each section that closed `now`; once they are on the disk, tell the streams."""
        recipe = predictor.bundle.recipe
        found: list[tuple[Closed, SectionSignals]] = []
        for one in closed:
            rows = next((rows for rows in pieces if one.slot in rows.slots), None)
            if rows is None:
                continue  # before what a state that began again computes
            of, X = rows.matrix(int(np.searchsorted(rows.slots, one.slot)))
            stamp = moment(one.slot)
            symbols = [recipe.symbols[column] for column in of.tolist()]
            section = SectionSignals(
                horizon=horizon.name,
                slot=one.slot,
                closed_at=now,
                bundle=predictor.bundle.id,
                number=predictor.entry.number,
                coverage=horizon.feed.coverage(one.slot),
                complete=one.complete,
                symbols=symbols,
                scored=await self._scored(predictor, X, [(symbol, stamp) for symbol in symbols]),
                shares=1.0 - np.isnan(X).mean(axis=1, dtype=np.float64),
            )
            found.append((one, section))
        try:
            await self.published.keep([section for _, section in found])
        except JournalError:  # withheld signals would cost more than ids that a restart does not know
            log.exception(
                "signals are sent that a restart will not remember", extra={"fields": {"horizon": horizon.name}}
            )
        for one, section in found:
            horizon.sections.append(section)
            if one.broadcast:
                self._hub.broadcast(horizon.name, section.message)
            self._metrics.sections.labels(horizon.name, "complete" if one.complete else "deadline").inc()
        return [section for _, section in found]

    async def _shadow(self, world: World, name: str, sections: Sequence[SectionSignals]) -> None:
        """Ask a challenger that reads other inputs, once the streams have been told."""
        challenger = self._current.beside.get(name)
        if challenger is None or not sections or not world.has(challenger):
            return
        state = world.state_of(challenger)
        try:
            pieces = await self._run(state.advance, sections[-1].slot)
            for section in sections:
                record = await self._run(of_section, challenger, pieces, section, self._clock)
                if record is not None:
                    self._scorer.shadow(record)
            await self._run(state.remember)
        except Exception:  # a challenger's trouble is nobody else's
            state.stale = True
            self._metrics.shadow_failures.inc(sum(len(section.symbols) for section in sections))
            log.exception("the challenger could not score a section", extra={"fields": {"horizon": name}})

    async def _scored(self, predictor: Predictor, X: np.ndarray, keys: Sequence[Key]) -> Scored:
        """Scores of a section's rows: it is not shed before the last attempt."""
        for attempt in range(1, ATTEMPTS):
            try:
                return await self._scorer.score(predictor, X, route="live", request_id=fresh_id(), keys=keys)
            except Problem:
                await asyncio.sleep(0.1 * attempt)
        return await self._scorer.score(predictor, X, route="live", request_id=fresh_id(), keys=keys)

    def _predictor(self, world: World, name: str) -> Predictor | None:
        """Who answers for a section: as chosen for any request, once its state is warm; until then who was before."""
        if name not in self._current.ready or self._predictors.get(name) is None:
            return None
        chosen = self._predictors.choose(name)
        return chosen if world.has(chosen) else self._current.ready[name]

    async def _run(self, work: Callable[..., T], *arguments: object) -> T:
        """Run on the states' thread."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)
