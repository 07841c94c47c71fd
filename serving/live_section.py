"""The signals of a closed section, as they were sent: encoded once for all who ask alike."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec
import numpy as np

from serving.record import Scored


@dataclass(frozen=True)
class SectionSignals:
    """symbols: of each row; shares: of its factors that had a value, float64 [N]."""

    horizon: str
    slot: np.datetime64
    closed_at: datetime
    bundle: str
    number: int
    coverage: float
    complete: bool
    symbols: Sequence[str]
    scored: Scored
    shares: np.ndarray

    def to_dict(self, symbols: frozenset[str] = frozenset(), restated_at: datetime | None = None) -> dict[str, Any]:
        """The section as JSON values; only these symbols' signals, all where the set is empty."""
        told = zip(self.scored.told(), self.symbols, self.shares.tolist(), strict=True)
        return {
            "horizon": self.horizon,
            "timestamp": self.slot.astype("datetime64[us]").item().replace(tzinfo=UTC),
            "closed_at": self.closed_at,
            "bundle": self.bundle,
            "number": self.number,
            "coverage": self.coverage,
            "complete": self.complete,
            "restated_at": restated_at,
            "signals": [
                {
                    "signal": signal,
                    "symbol": symbol,
                    "prediction": value,
                    "coverage": share,
                    "novelty": novelty,
                    "abstained": abstained,
                }
                for (signal, value, novelty, abstained), symbol, share in told
                if not symbols or symbol in symbols
            ],
        }

    def message(self, symbols: frozenset[str]) -> str | None:
        """What a stream's reader of these symbols gets, None where the section has none of them."""
        section = self.to_dict(symbols)
        if symbols and not section["signals"]:
            return None
        return msgspec.json.encode({"type": "section", **section}).decode()
