"""Novelty for the prediction log: measured where the log is written, off the way of any request."""

from dataclasses import dataclass

import numpy as np

from quant.bundle import NOVELTY
from quant.novelty import Novelty
from quant.recipe import Recipe
from resources.registry import Registry
from serving.logs import log

KEPT = 16  # bundles whose measure is in memory


@dataclass(frozen=True)
class Measure:
    """How a bundle tells novelty: names of its inputs, and above what it abstains. novelty: None where it cannot."""

    novelty: Novelty | None
    names: tuple[str, ...] = ()
    above: float | None = None

    def of(self, X: np.ndarray) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Novelty float32 [N] and whether it abstains [N], None where the bundle cannot say."""
        if self.novelty is None:
            return None, None
        found = self.novelty.of(X, self.names)
        return found, np.zeros(len(X), bool) if self.above is None else found > np.float32(self.above)


class Measures:
    """Measures by bundle, read from the registry when first asked for."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._found: dict[tuple[str, str], Measure] = {}

    def get(self, horizon: str, id: str) -> Measure:
        """The bundle's; one that is gone or damaged tells nothing, which the service's log says once."""
        key = (horizon, id)
        if key not in self._found:
            if len(self._found) >= KEPT:
                self._found.clear()
            try:
                self._found[key] = self._read(horizon, id)
            except Exception:  # what was answered must be logged, whatever became of the bundle
                log.exception("novelty is not logged", extra={"fields": {"horizon": horizon, "bundle": id}})
                self._found[key] = Measure(None)
        return self._found[key]

    def _read(self, horizon: str, id: str) -> Measure:
        manifest = self._registry.manifest(horizon, id)
        if not manifest.get("novelty"):
            return Measure(None)
        novelty = Novelty.loads((self._registry.path(horizon, id) / NOVELTY).read_bytes())
        names = tuple(Recipe.from_dict(manifest["recipe"]).factors)
        return Measure(novelty, names, manifest["novelty"]["abstain_above"])
