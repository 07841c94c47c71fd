"""What serves, and what became of a load: the words that the service's parts share."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from quant.bundle import Bundle
from quant.forest import Name
from quant.forest_choice import Choice
from resources.registry import Entry

Status = Literal["serving", "loading", "empty", "refused", "unloaded"]
Role = Literal["champion", "canary", "shadow"]


@dataclass(frozen=True)
class Predictor:
    """A bundle that has proved itself and the ledger entry it serves under.

    since: when it took over the traffic. promoted: when this bundle was first promoted; its age counts
    from there: a rollback brings back an old model, not a young one. choice: how its forest is walked.

    A canary has not been promoted: its entry is that of the champion beside which it stands, and `promoted` is when
    it took its place there. Who answered is always `bundle.id`. A shadow is one that scored for the log alone.
    """

    bundle: Bundle
    entry: Entry
    since: datetime
    promoted: datetime
    choice: Choice
    role: Role = "champion"

    def evaluator_for(self, rows: int) -> Name:
        """The evaluator to predict so many rows with; all give the same bits."""
        return self.choice.of(rows)


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
