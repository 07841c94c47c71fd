"""Beside the champion: the newest bundle that never served, proved like it, for shadow scores and a canary's share."""

import logging
import random
from dataclasses import dataclass
from datetime import datetime, timedelta

from conf.options import Beside
from quant.recipe import Recipe
from resources.clock import Clock
from resources.registry import Registry
from serving.evaluators import Evaluators
from serving.logs import event, log
from serving.predictor import Predictor, Role
from serving.proofs import Prover

# What both must agree on for the rows of one to be the rows of the other, and how people call it.
_SAME = {
    "calendar": "calendar",
    "interval": "interval",
    "symbols": "symbols",
    "columns": "bar columns",
    "derived": "derived columns",
    "factors": "factors",
    "features": "features",
    "others": "other horizons",
    "attributes": "attributes of symbols",
    "feature_bounds": "bounds of features",
    "factor_bounds": "bounds of factors",
}


@dataclass(frozen=True)
class Challenger:
    """The newest bundle that never served; `problem` says what of the champion's answers it cannot give, and why."""

    id: str
    problem: str | None = None
    again: datetime | None = None  # when to try once more: it may have been a bundle that is still being copied


def differs(champion: Recipe, challenger: Recipe) -> str | None:
    """Why rows made for one are no rows for the other; None where they are the same to the bit."""
    other = [told for name, told in _SAME.items() if getattr(champion, name) != getattr(challenger, name)]
    if not other and list(champion.factors) != list(challenger.factors):
        other = ["order of factors"]
    if not other:
        return None
    return f"it reads other inputs than the champion ({', '.join(other)}), so it cannot answer the same requests"


class Challengers:
    """Finds and proves challengers on the loader thread, a bundle once; tells anybody who stands beside whom."""

    def __init__(
        self,
        registry: Registry,
        clock: Clock,
        evaluators: Evaluators,
        options: Beside,
        prover: Prover,
        patience: timedelta,
    ) -> None:
        self.options = options
        self._registry = registry
        self._clock = clock
        self._evaluators = evaluators
        self._prover = prover
        self._patience = patience
        self._chance = random.Random()
        self._found: dict[str, tuple[Challenger, Predictor | None]] = {}

    def known(self, horizon: str) -> Challenger | None:
        """The newest bundle that never served, None where there is none or nothing looks for it."""
        return self._found.get(horizon, (None, None))[0]

    def standing(self, horizon: str) -> Predictor | None:
        """The challenger that answers what the champion answers, in shadow or as canary; None where none can."""
        found = self._found.get(horizon, (None, None))[1]
        return found if found is not None and found.role == "canary" else None

    def apart(self, horizon: str) -> Predictor | None:
        """The challenger that reads other inputs, which it computes for itself where there are bars; None for none."""
        found = self._found.get(horizon, (None, None))[1]
        return found if found is not None and found.role == "shadow" else None

    def in_shadow(self, horizon: str) -> Predictor | None:
        """The challenger that scores what the champion answers; None where none does."""
        return self.standing(horizon) if self.options.shadow else None

    def canary(self, horizon: str) -> Predictor | None:
        """The challenger, for its share of the calls; else None.

        By chance and not by turns: clients ask in cycles, and every twentieth request might be one symbol's.
        """
        share = self.options.canary
        return self.standing(horizon) if share and self._chance.random() < share else None

    def drop(self, horizon: str) -> None:
        """Forget the challenger: it stood beside another champion."""
        self._found.pop(horizon, None)

    def look(self, horizon: str, champion: Predictor) -> None:
        """On the loader thread: who stands beside `champion` now. Never raises."""
        if not (self.options.shadow or self.options.canary):
            return
        known, id = self.known(horizon), None
        try:
            id = self._newest(horizon)
            if id is None:
                self.drop(horizon)
                return
            if known is not None and known.id == id and (known.again is None or self._clock.now() < known.again):
                return
            self._found[horizon] = self._prove(horizon, id, champion)
        except Exception as error:  # whatever is wrong with a challenger, the champion must keep serving
            why = f"challenger of {horizon} is refused: {error}"
            if known is None or known.problem != why:  # looked at every few seconds: one line per reason
                log.warning(why, exc_info=error, extra={"fields": {"horizon": horizon}})
            self._found[horizon] = Challenger(id or "unknown", why, self._clock.now() + self._patience), None

    def _newest(self, horizon: str) -> str | None:
        """The newest bundle, where it never served."""
        bundles, served = self._registry.bundles(horizon), {entry.id for entry in self._registry.ledger(horizon)}
        return bundles[-1] if bundles and bundles[-1] not in served else None

    def _prove(self, horizon: str, id: str, champion: Predictor) -> tuple[Challenger, Predictor | None]:
        why = differs(champion.bundle.recipe, self._registry.load(horizon, id).recipe)
        if why and not self.options.shadow:
            return Challenger(id, why), None
        bundle = self._prover.proved(horizon, id, champion.bundle)
        choice = self._evaluators.choose(bundle.forest, bundle.golden_rows, quiet=False)
        now = self._clock.now()
        event(logging.INFO, "a challenger stands beside the champion", horizon=horizon, bundle=id)
        role: Role = "shadow" if why else "canary"
        note = f"{why}; it scores live sections and requests with bars, in shadow only" if why else None
        return Challenger(id, note), Predictor(bundle, champion.entry, now, now, choice, role)
