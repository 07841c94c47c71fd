"""Why a model was trained: tags of the run that asked for it, kept beside the bundle."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import dagster as dg

CAUSE, WHY, URL, REPORT = "tenor/cause", "tenor/why", "tenor/cause_url", "tenor/cause_report"
BY_HAND = "by hand"
LONGEST = 500  # characters of a reason, as a tag


@dataclass(frozen=True)
class Cause:
    """What warranted a training (first, drift, decay, age, schedule, or by hand), why, and where the evidence is.

    url: the check that failed. It shows its newest result first: what it found then is on the page `report`.
    """

    kind: str
    why: str = ""
    url: str = ""
    report: str = ""

    @classmethod
    def of(cls, tags: Mapping[str, str]) -> "Cause":
        """What the tags of a run say."""
        return cls(tags.get(CAUSE, BY_HAND), tags.get(WHY, ""), tags.get(URL, ""), tags.get(REPORT, ""))

    @classmethod
    def kept(cls, provenance: Mapping[str, Any]) -> "Cause | None":
        """What lies beside a bundle; None for one of before it was recorded."""
        found = provenance.get("cause")
        return cls(**found) if found else None

    def tags(self) -> dict[str, str]:
        """Tags of a run, as `of` reads them."""
        told = {CAUSE: self.kind, WHY: self.why[:LONGEST], URL: self.url, REPORT: self.report}
        return {tag: text for tag, text in told.items() if text}

    def to_dict(self) -> dict[str, str]:
        """JSON values, as `kept` reads them."""
        return asdict(self)

    def metadata(self) -> dict[str, Any]:
        """What the step of a model tells of it."""
        told: dict[str, Any] = {"cause": self.kind}
        if self.why:
            told["cause, why"] = self.why
        if self.url:
            told["caused by"] = dg.MetadataValue.url(self.url)
        if self.report:
            told["caused by, report"] = dg.MetadataValue.url(self.report)
        return told
