"""What the rows of a run look like, in bounded memory: a sample of them, and where values are missing over time."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from quant.correlation import rank_correlation

ROWS = 5_000  # a correlation of so many independent rows is known to within 0.015
SPANS = 60
_SEED = 20


@dataclass
class Sample:
    """At most ROWS rows, and counts of values in at most SPANS spans of equally many slots.

    Which rows are drawn depends on their keys alone, so the same rows give the same sample however a run is cut.
    slots: [T] of the run, sorted. starts: of the spans.
    """

    names: Sequence[str]
    slots: np.ndarray
    drawn: pl.DataFrame | None = None
    starts: np.ndarray = field(init=False)
    sizes: np.ndarray = field(init=False)  # slots by span
    rows: np.ndarray = field(init=False)  # rows by span
    present: np.ndarray = field(init=False)  # values by span and column

    def __post_init__(self) -> None:
        edges = np.unique(np.arange(SPANS) * len(self.slots) // SPANS)[: len(self.slots)]
        self.starts = self.slots[edges]
        self.sizes = np.diff(np.append(edges, len(self.slots)))
        self.rows = np.zeros(len(edges), np.int64)
        self.present = np.zeros((len(edges), len(self.names)), np.int64)

    def take(self, frame: pl.DataFrame) -> None:
        """Take rows (symbol, timestamp, the columns) into account."""
        if frame.is_empty():
            return
        stamps = frame["timestamp"].dt.replace_time_zone(None).to_numpy().astype(self.slots.dtype)
        span = pl.Series("_span", np.searchsorted(self.starts, stamps, side="right") - 1)
        counts = frame.group_by(span).agg(pl.len().alias("_rows"), pl.col(self.names).count())
        at = counts["_span"].to_numpy()
        self.rows[at] += counts["_rows"].to_numpy()
        self.present[at] += counts.select(self.names).to_numpy().astype(np.int64).reshape(len(at), len(self.names))
        draws = frame.select("symbol", "timestamp").hash_rows(_SEED).alias("_draw")
        if self.drawn is not None and self.drawn.height == ROWS:
            draws_kept = pl.concat([self.drawn["_draw"], draws])
        else:
            draws_kept = draws
        keyed = frame.select(*self.names, draws).filter(draws <= draws_kept.bottom_k(ROWS).max())
        self.drawn = pl.concat([keyed] if self.drawn is None else [self.drawn, keyed]).bottom_k(ROWS, by="_draw")

    @property
    def size(self) -> int:
        """Rows in the sample."""
        return 0 if self.drawn is None else self.drawn.height

    def correlation(self) -> np.ndarray:
        """Spearman's rank correlation between the columns over the sample, [F, F]."""
        if self.drawn is None or not self.names:
            return np.full((len(self.names), len(self.names)), np.nan)
        return rank_correlation(self.drawn.select(pl.col(self.names).rank()).to_numpy().astype(float))
