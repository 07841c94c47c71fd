"""Beside the champion: the newest bundle that never served, proved like it, for shadow scores and a canary's share."""

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta

from quant.bundle import Bundle
from quant.recipe import Recipe
from resources.clock import Clock
from resources.registry import Registry
from serving.logs import event, log

# What both must agree on for the rows of one to be the rows of the other, and how people call it.
_SAME = {
    "calendar": "calendar",
    "interval": "interval",
    "symbols": "symbols",
    "columns": "bar columns",
    "factors": "factors",
    "features": "features",
    "others": "other horizons",
    "attributes": "attributes of symbols",
    "feature_bounds": "bounds of features",
    "factor_bounds": "bounds of factors",
}


@dataclass(frozen=True)
class Challenger:
    """The newest bundle that never served. bundle: None where `problem` says why it cannot stand in."""

    id: str
    seen: datetime
    bundle: Bundle | None = None
    problem: str | None = None


def differs(champion: Recipe, challenger: Recipe) -> str | None:
    """Why rows made for one are no rows for the other; None where they are the same to the bit."""
    other = [told for name, told in _SAME.items() if getattr(champion, name) != getattr(challenger, name)]
    if not other and list(champion.factors) != list(challenger.factors):
        other = ["order of factors"]
    if not other:
        return None
    return f"it reads other inputs than the champion ({', '.join(other)}), so it cannot answer the same requests"


class Challengers:
    """Finds and proves challengers, on the loader thread; a bundle is proved once."""

    def __init__(self, registry: Registry, clock: Clock, patience: timedelta) -> None:
        self._registry = registry
        self._clock = clock
        self._patience = patience  # a bundle that failed may be one that is still being copied

    def find(self, horizon: str, champion: Bundle, known: Challenger | None) -> Challenger | None:
        """The challenger of `champion` now, None where there is none; `known`: the answer before."""
        bundles, served = self._registry.bundles(horizon), {entry.id for entry in self._registry.ledger(horizon)}
        if not bundles or bundles[-1] in served:
            return None
        id, now = bundles[-1], self._clock.now()
        if known is not None and known.id == id and (known.bundle or now < known.seen + self._patience):
            return known
        try:
            bundle = self._registry.load(horizon, id)
            if why := differs(champion.recipe, bundle.recipe):
                return Challenger(id, now, problem=why)
            bundle.verify()
            bundle.warm()
        except Exception as error:  # whatever is wrong with a challenger, the champion must keep serving
            why = f"challenger {id} of {horizon} is refused: {error}"
            if known is None or known.problem != why:
                log.warning(why, exc_info=error, extra={"fields": {"horizon": horizon}})
            return Challenger(id, now, problem=why)
        event(logging.INFO, "a challenger stands beside the champion", horizon=horizon, bundle=id)
        return Challenger(id, now, bundle)
