"""The bundle that serves each horizon: proved beside the old one, then swapped by one reference."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from datetime import timedelta
from typing import TypeVar

from conf.options import Beside
from quant.bundle import Bundle
from resources.clock import Clock
from resources.registry import Entry, LedgerMoved, Registry
from serving.audit_log import FOLLOWER, AuditLog
from serving.challengers import Challengers
from serving.evaluators import Evaluators
from serving.logs import event, log
from serving.predictor import Predictor, Refusal, Status, Swap
from serving.problems import Problem, nearest
from serving.proofs import Prover

RETRY = timedelta(minutes=1)  # a refused bundle may be one that is still being copied: look again this often

T = TypeVar("T")


class Predictors:
    """All horizons of one registry.

    A request takes its predictor once and keeps it, so those in flight finish on the bundle they began with.
    One thread computes all answers, another proves new bundles beside it; each has its own MLX stream.
    """

    def __init__(
        self,
        registry: Registry,
        horizons: Sequence[str],
        clock: Clock,
        evaluators: Evaluators,
        audit: AuditLog,
        beside: Beside,
        prover: Prover,
    ) -> None:
        self.settled = False  # every horizon was looked at once since the start
        self.refusals: dict[str, Refusal] = {}
        self.observers: list[Callable[[str, Swap], None]] = []  # told of each swap, on the loader thread
        self.challengers = Challengers(registry, clock, evaluators, beside, prover, RETRY)
        self._registry = registry
        self._declared = tuple(horizons)
        self._clock = clock
        self._evaluators = evaluators
        self._audit = audit
        self._prover = prover
        self._serving: dict[str, Predictor] = {}
        self._unloaded: set[str] = set()  # by somebody's word, so the follower lets them be
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
        if horizon in self._unloaded:
            why = f"{horizon} was unloaded from this process: `POST /models/{horizon}/load` serves it again"
            raise Problem(503, "unloaded", why, headers={"retry-after": "60"}, horizon=horizon)
        refusal = self.refusals.get(horizon)
        found = refusal.why if refusal else f"{horizon} has no promoted model yet"
        why = f"{found}; nothing serves {horizon}: train with `tenor run horizon={horizon}`"
        raise Problem(503, "no-bundle-serves", why, headers={"retry-after": "60"}, horizon=horizon)

    def choose(self, horizon: str) -> Predictor:
        """Who answers this request: the champion, or the canary for its share of requests; raises as `serving`."""
        champion = self.serving(horizon)
        return self.challengers.canary(horizon) or champion

    def status(self, horizon: str) -> Status:
        """`serving` wins: a horizon whose newest bundle was refused still serves the one before."""
        if horizon in self._serving:
            return "serving"
        if horizon in self._unloaded:
            return "unloaded"
        if horizon in self.refusals:
            return "refused"
        return "loading" if self._loading == horizon or not self.settled else "empty"

    def ready(self) -> bool:
        """Whether every horizon was looked at and at least one bundle serves."""
        return self.settled and bool(self._serving)

    async def compute(self, work: Callable[..., T], *arguments: object) -> T:
        """Run `work` on the compute thread."""
        return await asyncio.get_running_loop().run_in_executor(self._compute, work, *arguments)

    async def load(self, horizon: str, by: str) -> Swap:
        """Serve what the ledger says. Raises 404 for an unknown horizon, 409 where nothing is promoted or the
        bundle is refused; then the old one serves on."""
        self._require(horizon)
        self._unloaded.discard(horizon)
        return await self._on_loader(self._load, horizon, by)

    async def unload(self, horizon: str, by: str) -> None:
        """Serve `horizon` no more, here, until `load` is called; 404 for an unknown one. The ledger is not touched."""
        self._require(horizon)
        await self._on_loader(self._unload, horizon, by)

    async def rollback(self, horizon: str, why: str, by: str, number: int | None = None) -> Swap:
        """Let the champion before serve again, through the ledger, once it has proved itself.

        number: the entry that the caller wants undone; 409 where the ledger is elsewhere: two people who press the
        button at once go one back, not two. 404 for an unknown horizon, 409 where there is nothing to go back to.
        """
        self._require(horizon)
        self._unloaded.discard(horizon)
        return await self._on_loader(self._roll_back, horizon, why, by, number)

    async def follow(self, seconds: float) -> None:
        """Converge on the ledger every so many seconds, so that all instances serve the same."""
        while True:
            try:
                wanted = [horizon for horizon in self.horizons() if horizon not in self._unloaded]
                for horizon in wanted:
                    # What is refused was logged there; the other horizons load all the same.
                    with suppress(Problem):
                        await self._on_loader(self._load, horizon, FOLLOWER, RETRY)
                self.settled = True  # challengers are proved after that: nobody waits for them
                for horizon in wanted:
                    await self._on_loader(self._look_beside, horizon)
            except OSError:
                log.exception("the registry cannot be read; what serves keeps serving")
                self.settled = True
            await asyncio.sleep(seconds)

    def close(self) -> None:
        """Finish the work begun and stop both threads."""
        self._loader.shutdown(cancel_futures=True)
        self._compute.shutdown()

    async def _on_loader(self, work: Callable[..., T], *arguments: object) -> T:
        """Run on the loader's thread under the correlation id of who asks: the audit log tells it."""
        told = copy_context()
        return await asyncio.get_running_loop().run_in_executor(self._loader, told.run, work, *arguments)

    def _require(self, horizon: str) -> None:
        known = self.horizons()
        if horizon not in known:
            near = nearest(horizon, known)
            hint = f"did you mean {near!r}?" if near else f"known: {', '.join(known) or 'none'}"
            raise Problem(404, "unknown-horizon", f"no horizon {horizon!r}; {hint}", horizon=horizon, nearest=near)

    def _load(self, horizon: str, by: str, patience: timedelta = timedelta(0)) -> Swap:
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
        self.challengers.drop(horizon)  # it stood beside the champion before
        self.refusals.pop(horizon, None)
        swap = Swap(now, before)
        self._tell(horizon, swap, by)
        return swap

    def _unload(self, horizon: str, by: str) -> None:
        """On the loader thread, so that no load is half done."""
        self._unloaded.add(horizon)
        self.challengers.drop(horizon)
        if before := self._serving.pop(horizon, None):
            event(logging.WARNING, "a bundle is unloaded", horizon=horizon, bundle=before.bundle.id, by=by)
            told = {"bundle": before.bundle.id, "number": before.entry.number}
            self._record(by, "unload", told, None, horizon=horizon)

    def _record(self, by: str, what: str, before: object, after: object, **facts: object) -> None:
        try:
            self._audit.record(by, what, before=before, after=after, **facts)
        except OSError:  # it is done, and the log has all of it
            log.exception("the audit log cannot be written")

    def _tell(self, horizon: str, swap: Swap, by: str) -> None:
        """Log and audit a swap, and tell the observers."""
        entry = swap.now.entry
        facts = {"horizon": horizon, "why": entry.why, "ledger_by": entry.by}
        event(logging.INFO, "a bundle serves", bundle=entry.id, number=entry.number, by=by, **facts)
        before = None if swap.before is None else {"bundle": swap.before.bundle.id, "number": swap.before.entry.number}
        self._record(by, "serve", before, {"bundle": entry.id, "number": entry.number}, **facts)
        for observer in self.observers:
            try:
                observer(horizon, swap)
            except Exception:  # the swap is done: who follows it must not undo it, nor end the follower
                log.exception("a swap could not be followed", extra={"fields": {"horizon": horizon}})

    def _roll_back(self, horizon: str, why: str, by: str, number: int | None) -> Swap:
        """On the loader thread."""
        try:
            newest = self._registry.champion(horizon)
            found = newest.number if newest else 0
            if number is not None and number != found:
                raise LedgerMoved(f"the ledger of {horizon} is at number {found}, not {number}: look at it again")
            self._prover.proved(horizon, self._registry.previous(horizon), self._like(horizon))
            self._registry.rollback(horizon, why, by=by, over=found)
        except LedgerMoved as error:
            raise Problem(409, "ledger-moved", str(error), horizon=horizon) from error
        except Exception as error:  # whatever is wrong with a bundle or the ledger, what serves must keep serving
            raise Problem(409, "no-rollback", f"{error}; nothing is changed", horizon=horizon) from error
        return self._load(horizon, by)

    def _prove(self, horizon: str, entry: Entry, before: Predictor | None) -> Predictor:
        """What the entry names, ready to serve."""
        promoted = next(past.at for past in self._registry.ledger(horizon) if past.id == entry.id)
        if before is not None and before.entry.id == entry.id:
            return Predictor(before.bundle, entry, before.since, promoted, before.choice)
        bundle = self._prover.proved(horizon, entry.id, self._like(horizon))
        quiet = not (self.settled and self._serving)
        choice = self._evaluators.choose(bundle.forest, bundle.golden_rows, quiet=quiet)
        return Predictor(bundle, entry, self._clock.now(), promoted, choice)

    def _like(self, horizon: str) -> Bundle | None:
        serving = self._serving.get(horizon)
        return serving.bundle if serving else None

    def _look_beside(self, horizon: str) -> None:
        """On the loader thread, so that no swap comes between."""
        if (champion := self._serving.get(horizon)) is not None:
            self.challengers.look(horizon, champion)

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
