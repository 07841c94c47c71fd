"""All services of one store: what each serves, and asking each to follow the promotion ledger."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from resources.inference import Inference, InferenceError, ServiceDown

PATIENCE = 60.0  # seconds that a service may take to load and prove a bundle
GLANCE = 3.0  # seconds that it may take to say how it is


@dataclass(frozen=True)
class Served:
    """What one service serves of a horizon: the ledger's `number`, None where it serves nothing or is down."""

    url: str
    bundle: str | None = None
    number: int | None = None
    since: datetime | None = None
    problem: str = ""  # why it does not follow the ledger
    refused: bool = False  # it looked at the bundle, and will not serve it


class Instances:
    """Services by address. Nothing is remembered: each call asks all of them."""

    def __init__(self, urls: Sequence[str]) -> None:
        self.urls = tuple(urls)

    def look(self) -> list[dict[str, Served]]:
        """For each service, what it serves of every horizon that it knows; a service that is down knows none."""
        return [self._look(url) for url in self.urls]

    def serving(self, horizon: str) -> list[Served]:
        """What each service serves of a horizon."""
        return [of(found, url, horizon) for url, found in zip(self.urls, self.look(), strict=True)]

    def load(self, horizon: str) -> list[Served]:
        """Ask each service to serve what the ledger says, and tell what it then serves.

        One that is down is left alone, for it reads the ledger when it starts; and so is one that a person unloaded.
        """
        made = []
        for url, now in zip(self.urls, self.serving(horizon), strict=True):
            if now.problem in (DOWN, UNLOADED):
                made.append(now)
                continue
            problem, refused = "", False
            try:
                with Inference(url, timeout=PATIENCE) as service:
                    service.load(horizon)
            except ServiceDown:
                problem = DOWN
            except InferenceError as error:
                problem, refused = str(error), bool(error.problem)
            now = of(self._look(url), url, horizon)
            made.append(Served(url, now.bundle, now.number, now.since, problem or now.problem, refused))
        return made

    def _look(self, url: str) -> dict[str, Served]:
        try:
            with Inference(url, timeout=GLANCE) as service:
                horizons: Mapping[str, Mapping[str, Any]] = service.health()["horizons"]
        except ServiceDown:
            return {}
        except InferenceError as error:  # it lives and does not answer in time, or does not let us look
            return {ANY: Served(url, problem=str(error))}
        return {name: _served(url, told) for name, told in horizons.items()}


DOWN = "down: it reads the ledger when it starts"
UNLOADED = "unloaded there by somebody: `POST /models/<horizon>/load` serves it again"
ANY = ""  # every horizon of a service that does not say what it serves


def of(found: Mapping[str, Served], url: str, horizon: str) -> Served:
    """What a service that said `found` serves of a horizon."""
    if not found:
        return Served(url, problem=DOWN)
    return found.get(horizon) or found.get(ANY) or Served(url, problem=f"it does not know {horizon} yet")


def _served(url: str, told: Mapping[str, Any]) -> Served:
    since = datetime.fromisoformat(told["since"]).astimezone(UTC) if told["since"] else None
    problem = UNLOADED if told["status"] == "unloaded" else told["problem"] or ""
    return Served(url, told["bundle"], told["number"], since, problem)
