"""Live serving: pushed bars become durable and live, and the live state follows the models and the tables.

Bars and sections live on the event loop, states on a thread of their own (`Sections`). A world of larger or other
states is made on the loader's thread beside the one that runs, and replaces it between two sections.
"""

import asyncio
import contextlib
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
import polars as pl

from conf.options import Live
from quant.panel import instants, moment
from quant.validate import ready
from resources.arrivals import Journal
from resources.clock import Clock
from resources.hours import Hours
from resources.journal import JournalError
from serving.live_bars import LiveBars
from serving.live_feed import Taken
from serving.live_horizon import LiveHorizon
from serving.live_load import Store
from serving.live_messages import PushedBar
from serving.live_published import Published
from serving.live_push import Jumps, Pushed, check
from serving.live_sections import Current, Sections
from serving.live_world import World, build, follow, needs
from serving.logs import log
from serving.metrics import Metrics
from serving.predictor import Predictor, Swap
from serving.predictors import Predictors
from serving.problems import Problem, nearest
from serving.scoring import Scorer
from serving.stream import Hub

MOMENT = 0.02  # seconds between looks whether the models of the start serve
MANY = 2_000  # bars: more are checked beside the event loop
PIECE = 20_000  # rows of a table taken at once: readers wait as long

Serving = dict[str, Predictor]  # by horizon


class LiveService:
    """Every horizon that a serving model reads."""

    def __init__(
        self,
        root: Path,
        predictors: Predictors,
        scorer: Scorer,
        clock: Clock,
        options: Live,
        metrics: Metrics,
        hub: Hub,
    ) -> None:
        self.current = Current()
        self.sections = Sections(self.current, predictors, scorer, clock, metrics, hub, Published(Path(root)))
        self.store = Store(Path(root))
        Hours(Path(root)).recall()
        self.problem: str | None = None  # why the models that serve have no live state
        self._predictors, self._clock, self._options = predictors, clock, options
        self._metrics, self._hub = metrics, hub
        self._journals: dict[str, Journal] = {}
        self._making = threading.Lock()
        self._checking = asyncio.Lock()
        self._during: list[tuple[str, pl.DataFrame]] | None = None  # what comes while a world is made
        self._unfit: set[str] = set()  # challengers for which no live state can be made
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tables: asyncio.Task[None] | None = None
        self.warm = asyncio.Event()  # the models of the start have their states, or `problem` says why not
        predictors.observers.append(self._swapped)

    async def start(self) -> None:
        """Begin: once the models of the start serve, warm their states; then follow the bars tables."""
        self._loop = asyncio.get_running_loop()
        self._tables = asyncio.create_task(self._follow_tables())

    async def close(self) -> None:
        """Close no section any more, and write what was pushed."""
        self._loop = None
        if self._tables is not None:
            self._tables.cancel()
            await asyncio.gather(self._tables, return_exceptions=True)
        await self.sections.close()
        self._hub.close()
        for journal in self._journals.values():
            await asyncio.to_thread(journal.close)

    # -- questions -------------------------------------------------------------------------------------------

    @property
    def horizons(self) -> dict[str, LiveHorizon]:
        return self.current.world.horizons

    def horizon(self, name: str) -> LiveHorizon:
        """A live horizon; Problem 404 for an unknown one, 503 while there is no live state."""
        if found := self.horizons.get(name):
            return found
        self._predictors.serving(name)
        why = f"{self.problem or f'the live state of {name} is being made'}: ask again in some seconds"
        raise Problem(503, "no-live-state", why, headers={"retry-after": "5"}, horizon=name)

    def require(self, names: Sequence[str], symbols: Sequence[str]) -> None:
        """Problem 404 for a horizon, or for a symbol of these horizons, that does not exist."""
        for name in names:
            if name not in self.horizons:
                self._predictors.get(name)
        known = {
            symbol for name, one in self.horizons.items() if not names or name in names for symbol in one.bars.place
        }
        for symbol in symbols:
            if known and symbol not in known:
                near = nearest(symbol, sorted(known))
                hint = f"; did you mean {near!r}?" if near else ""
                raise Problem(
                    404, "unknown-symbol", f"no symbol {symbol!r} in {', '.join(names) or 'any horizon'}{hint}"
                )

    def hello(self, names: Sequence[str]) -> str:
        """The first message to a stream's reader: the horizons it hears, and the newest closed section of each."""
        newest = {
            name: None if one.feed.closed is None else moment(one.feed.closed)
            for name, one in sorted(self.horizons.items())
            if not names or name in names
        }
        return msgspec.json.encode({"type": "hello", "horizons": newest}).decode()

    # -- pushed bars -----------------------------------------------------------------------------------------

    async def push(self, name: str, sent: Mapping[int, PushedBar]) -> tuple[Taken, Pushed]:
        """Take bars, by the row they were sent in: durable first, then live.

        Problem 409 for a resampled horizon, 503 where the disk refuses.
        """
        horizon = self.horizon(name)
        if horizon.finer:
            why = f"the bars of {name} are made of those of {horizon.finer}: push these"
            raise Problem(409, "resampled-horizon", why, horizon=name, finer=horizon.finer)
        now = self._clock.now()
        async with self._checking:
            told = (sent, horizon.rules, horizon.bars, horizon.jumps, now)
            pushed = check(*told) if len(sent) <= MANY else await asyncio.to_thread(check, *told)
        if pushed.columns["symbol"]:
            if name not in self._journals:
                self._journals[name] = Journal(self.store.root, name)
            try:
                await asyncio.wrap_future(self._journals[name].append(now, pushed.columns))
            except JournalError as error:
                why = f"{error}; none of these bars was taken: send them again"
                raise Problem(503, "not-durable", why, headers={"retry-after": "5"}) from error
        taken = self._take(name, pushed.frame, now)
        if taken.late:
            await self.sections.published.marked(name)
        for what in ("new", "same", "revised", "late", "old"):
            self._metrics.pushed.labels(name, what).inc(getattr(taken, what))
        self._metrics.pushed.labels(name, "refused").inc(len(pushed.refused))
        return taken, pushed

    def _take(self, name: str, frame: pl.DataFrame, now: datetime) -> Taken:
        """Bars that are durable, into the live state."""
        if frame.is_empty():
            return Taken(0, 0, 0, 0, 0)
        if self._during is not None:
            self._during.append((name, frame))
        if name not in self.horizons:  # its model was unloaded meanwhile: the journal has them
            return Taken(0, 0, 0, 0, frame.height)
        taken = self.horizons[name].feed.put(frame, now)
        if taken.new or taken.revised:
            self.sections.came(name, frame, now)
        return taken

    # -- models ----------------------------------------------------------------------------------------------

    def _swapped(self, horizon: str, swap: Swap) -> None:
        """On the loader's thread: warm what the new model needs beside what runs; at the start, all at once later."""
        if self._predictors.settled:
            self._make(forced=False)

    def _make(self, forced: bool) -> None:
        """A world for the models that serve, unless (and not forced) the present one has all they need."""
        with self._making:
            try:
                serving = {name: one for name in self._predictors.horizons() if (one := self._predictors.get(name))}
                beside = self._beside(serving)
                try:
                    self._make_for(serving, beside, forced)
                except Exception:  # where it is a challenger's trouble, the champions must have their world
                    if not beside:
                        raise
                    log.exception("challengers get no live state", extra={"fields": {"horizons": list(beside)}})
                    self._unfit |= {one.bundle.id for one in beside.values()}
                    self._make_for(serving, {}, forced)
                self.problem = None
            except Exception as error:  # whatever is wrong with the tables, requests with rows are answered
                self._during = None
                self.problem = f"the live state cannot be made: {error}"
                log.exception("no live state", extra={"fields": {"horizons": self._predictors.horizons()}})

    def _make_for(self, serving: Serving, beside: Serving, forced: bool) -> None:
        now, world, models = self._clock.now(), self.current.world, [*serving.values(), *beside.values()]
        specs = needs(self.store, models, self._options, now)
        if not forced and world.covers(specs) and all(world.has(one) for one in models):
            self._call(self._adopt, world, serving, beside)
            return
        self._during = []  # before anything is read: what comes from now on may be missing there
        made = build(self.store, models, specs, self._options, now)
        self._call(self._publish, made, serving, beside)

    def _beside(self, serving: Serving) -> Serving:
        """Challengers that compute inputs of their own."""
        found = {name: self._predictors.challengers.apart(name) for name in serving}
        return {name: one for name, one in found.items() if one is not None and one.bundle.id not in self._unfit}

    def _publish(self, made: World, serving: Serving, beside: Serving) -> None:
        """On the event loop: go on with another world where the present one stands."""
        now, during, self._during = self._clock.now(), self._during or [], None
        for name, horizon in made.horizons.items():
            if before := self.horizons.get(name):
                horizon.feed.continues(before.feed)
                horizon.sections = before.sections
            horizon.feed.on_restated = partial(self.sections.restated, horizon)
            self._metrics.data_age.labels(name).set_function(partial(self._age, horizon.bars))
        self._adopt(made, serving, beside)
        for name, frame in during:
            if name in made.horizons:
                self._take(name, frame, now)

    def _adopt(self, world: World, serving: Serving, beside: Serving) -> None:
        self.current.world, self.current.ready, self.current.beside = world, serving, beside
        for name, predictor in serving.items():
            follow(world.horizons[name], predictor)
        self.sections.follow()

    def _call(self, work, *arguments) -> None:  # type: ignore[no-untyped-def]
        """On the event loop, if the service has not stopped meanwhile."""
        if (loop := self._loop) is not None:
            with contextlib.suppress(RuntimeError):  # the loop closed between these two lines
                loop.call_soon_threadsafe(work, *arguments)

    def _age(self, bars: LiveBars) -> float:
        newest = bars.newest
        return np.nan if newest is None else (self._clock.now() - moment(newest)).total_seconds()

    # -- tables ----------------------------------------------------------------------------------------------

    async def _follow_tables(self) -> None:
        """Take what the pipeline wrote."""
        while not self._predictors.settled:
            await asyncio.sleep(MOMENT)
        await asyncio.to_thread(self._make, False)
        await asyncio.to_thread(self._settle)
        self.warm.set()
        while True:
            await asyncio.sleep(self._options.refresh_seconds)
            try:
                for name in list(self.horizons):
                    await self.refresh(name)
                if _ids(self._beside(self.current.ready)) != _ids(self.current.beside):
                    await asyncio.to_thread(self._make, False)
            except Exception:  # a table being rewritten must not end this
                log.exception("a bars table could not be read; the live state goes on without it")

    def _settle(self) -> None:
        """What nobody's start should wait for: hours for the next one, and what the first checked bars need."""
        try:
            Hours(self.store.root).keep()
        except OSError:
            log.exception("trading hours could not be kept; the next start makes them again")
        ready()

    async def refresh(self, name: str) -> None:
        """Read a horizon's bars table where it has another version than was read."""
        horizon = self.horizons[name]
        version = await asyncio.to_thread(self.store.version, name)
        horizon.features_version = await asyncio.to_thread(self.store.version, name, "features")
        if version == horizon.version:
            return
        spec = horizon.spec
        stored = await asyncio.to_thread(self.store.read, name, spec.grid, spec.keep, horizon.finer)
        if not horizon.fits(stored.bars):
            await asyncio.to_thread(self._make, True)
            return
        horizon.version, horizon.jumps = version, Jumps(horizon.bars, stored.jumps)
        horizon.rules = replace(horizon.rules, actions=stored.actions)
        changed = []
        for piece in stored.bars.sort("timestamp").iter_slices(PIECE):
            change = await asyncio.to_thread(horizon.bars.put, piece)
            changed.append(piece[np.concatenate([change.new, change.revised])])
        came = pl.concat(changed)
        if not came.is_empty():
            now = self._clock.now()
            horizon.feed.read(instants(came["timestamp"]), now, broadcast=True)
            self.sections.came(name, came, now)


def _ids(predictors: Serving) -> dict[str, str]:
    return {name: one.bundle.id for name, one in predictors.items()}
