"""The bundle that serves each horizon: proved beside the old one, then swapped by one reference."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, TypeVar

from quant.bundle import Bundle
from resources.clock import Clock
from resources.registry import Entry, Registry
from serving.logs import event, log
from serving.problems import Problem, nearest

RETRY = timedelta(minutes=1)  # a refused bundle may be one that is still being copied: look again this often

Status = Literal["serving", "loading", "empty", "refused"]
T = TypeVar("T")


@dataclass(frozen=True)
class Predictor:
    """A bundle that has proved itself and the ledger entry it serves under.

    since: when it took over the traffic. promoted: when this bundle was first promoted; its age counts
    from there: a rollback brings back an old model, not a young one.
    """

    bundle: Bundle
    entry: Entry
    since: datetime
    promoted: datetime


@dataclass(frozen=True)
class Refusal:
    """Why what the ledger says does not serve; number and bundle are None where the ledger cannot be read."""

    number: int | None
    bundle: str | None
    at: datetime
    why: str


@dataclass(frozen=True)
class Swap:
    """What one load did: the predictor that serves now, and the one that served before."""

    now: Predictor
    before: Predictor | None

    @property
    def changed(self) -> bool:
        return self.now is not self.before


class Predictors:
    """All horizons of one registry.

    A request takes its predictor once and keeps it, so those in flight finish on the bundle they began with.
    One thread computes all answers, another proves new bundles beside it; each has its own MLX stream.
    """

    def __init__(self, registry: Registry, horizons: Sequence[str], clock: Clock) -> None:
        self.settled = False  # every horizon was looked at once since the start
        self.refusals: dict[str, Refusal] = {}
        self._registry = registry
        self._declared = tuple(horizons)
        self._clock = clock
        self._serving: dict[str, Predictor] = {}
        self._loading: str | None = None
        self._compute = ThreadPoolExecutor(1, thread_name_prefix="compute")
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="loader")

    def horizons(self) -> list[str]:
        """Declared horizons and those with a folder in the registry, so that a new one needs no restart."""
        return sorted({*self._declared, *self._registry.horizons()})

    def get(self, horizon: str) -> Predictor | None:
        """What serves `horizon` now, None where nothing does; 404 for a horizon that does not exist."""
        predictor = self._serving.get(horizon)
        if predictor is None:
            self._require(horizon)
        return predictor

    def serving(self, horizon: str) -> Predictor:
        """What serves `horizon` now; 404 for an unknown horizon, 503 with what to do while nothing serves."""
        if predictor := self.get(horizon):
            return predictor
        if self.status(horizon) == "loading":
            why = f"the first bundle of {horizon} is being loaded: ask again in a second"
            raise Problem(503, "loading", why, headers={"retry-after": "1"}, horizon=horizon)
        refusal = self.refusals.get(horizon)
        found = refusal.why if refusal else f"{horizon} has no promoted model yet"
        why = f"{found}; nothing serves {horizon}: train with `tenor run horizon={horizon}`"
        raise Problem(503, "no-bundle-serves", why, headers={"retry-after": "60"}, horizon=horizon)

    def status(self, horizon: str) -> Status:
        """`serving` wins: a horizon whose newest bundle was refused still serves the one before."""
        if horizon in self._serving:
            return "serving"
        if horizon in self.refusals:
            return "refused"
        return "loading" if self._loading == horizon or not self.settled else "empty"

    def ready(self) -> bool:
        """Whether every horizon was looked at and at least one bundle serves."""
        return self.settled and bool(self._serving)

    async def compute(self, work: Callable[..., T], *arguments: object) -> T:
        """Run `work` on the compute thread."""
        return await asyncio.get_running_loop().run_in_executor(self._compute, work, *arguments)

    async def load(self, horizon: str) -> Swap:
        """Serve what the ledger says. Raises 404 for an unknown horizon, 409 where nothing is promoted or the
        bundle is refused; then the old one serves on."""
        self._require(horizon)
        return await asyncio.get_running_loop().run_in_executor(self._loader, self._load, horizon)

    async def follow(self, seconds: float) -> None:
        """Converge on the ledger every so many seconds, so that all instances serve the same."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                for horizon in self.horizons():
                    # What is refused was logged there; the other horizons load all the same.
                    with suppress(Problem):
                        await loop.run_in_executor(self._loader, self._load, horizon, RETRY)
            except OSError:
                log.exception("the registry cannot be read; what serves keeps serving")
            self.settled = True
            await asyncio.sleep(seconds)

    def close(self) -> None:
        """Finish the work begun and stop both threads."""
        self._loader.shutdown(cancel_futures=True)
        self._compute.shutdown()

    def _require(self, horizon: str) -> None:
        known = self.horizons()
        if horizon not in known:
            near = nearest(horizon, known)
            hint = f"did you mean {near!r}?" if near else f"known: {', '.join(known) or 'none'}"
            raise Problem(404, "unknown-horizon", f"no horizon {horizon!r}; {hint}", horizon=horizon, nearest=near)

    def _load(self, horizon: str, patience: timedelta = timedelta(0)) -> Swap:
        """On the loader thread. patience: a bundle refused less than this ago is not tried again."""
        try:
            entry = self._registry.champion(horizon)
        except Exception as error:  # whatever is wrong with a ledger, what serves must keep serving
            raise self._refuse(horizon, None, error) from error
        if entry is None:
            why = f"the ledger of {horizon} is empty: train a model with `tenor run horizon={horizon}`"
            raise Problem(409, "nothing-promoted", why, horizon=horizon)
        before = self._serving.get(horizon)
        if before is not None and before.entry == entry:
            self.refusals.pop(horizon, None)
            return Swap(before, before)
        refusal = self.refusals.get(horizon)
        if refusal and refusal.number == entry.number and self._clock.now() < refusal.at + patience:
            raise self._refused(horizon, refusal)
        self._loading = horizon
        try:
            now = self._prove(horizon, entry, before)
        except Exception as error:  # whatever is wrong with a bundle, what serves must keep serving
            raise self._refuse(horizon, entry, error) from error
        finally:
            self._loading = None
        self._serving[horizon] = now
        self.refusals.pop(horizon, None)
        event(
            logging.INFO,
            "a bundle serves",
            horizon=horizon,
            bundle=entry.id,
            number=entry.number,
            why=entry.why,
        )
        return Swap(now, before)

    def _prove(self, horizon: str, entry: Entry, before: Predictor | None) -> Predictor:
        """Load a bundle, replay its golden data from bars to predictions, and ask it once."""
        promoted = next(past.at for past in self._registry.ledger(horizon) if past.id == entry.id)
        if before is not None and before.entry.id == entry.id:
            return Predictor(before.bundle, entry, before.since, promoted)
        bundle = self._registry.load(horizon, entry.id)
        bundle.verify()
        bundle.warm()
        return Predictor(bundle, entry, self._clock.now(), promoted)

    def _refuse(self, horizon: str, entry: Entry | None, error: Exception) -> Problem:
        """Record and log why the ledger's word is not followed."""
        what = f"bundle {entry.id} of {horizon} (ledger {entry.number})" if entry else f"the ledger of {horizon}"
        refusal = Refusal(
            entry.number if entry else None,
            entry.id if entry else None,
            self._clock.now(),
            f"{what} is refused: {error}",
        )
        before, self.refusals[horizon] = self.refusals.get(horizon), refusal
        if before is None or before.why != refusal.why:  # followed every few seconds: one line per reason
            log.warning(refusal.why, exc_info=error, extra={"fields": {"horizon": horizon}})
        return self._refused(horizon, refusal)

    def _refused(self, horizon: str, refusal: Refusal) -> Problem:
        before = self._serving.get(horizon)
        keeps = f"bundle {before.entry.id} serves on" if before else "nothing serves"
        return Problem(
            409,
            "bundle-refused",
            f"{refusal.why}; {keeps}",
            horizon=horizon,
            refused=refusal.bundle,
            serving=before.entry.id if before else None,
        )
