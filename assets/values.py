"""From a program's dense values to the rows of a table: present bars only, with when each could be known."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from assets.plan import Plan
from quant.known import NEVER


def to_rows(
    plan: Plan,
    slots: np.ndarray,
    symbols: Sequence[str],
    values: Mapping[str, np.ndarray],
    known: np.ndarray,
    present: np.ndarray,
) -> pl.DataFrame:
    """Long rows (symbol, timestamp, known_at, partition, values as Float32) sorted by (timestamp, symbol).

    values, known, present: [slots, symbols]; a row exists where `present`; NaN becomes null.
    """
    at, of = np.nonzero(present)
    stamps = slots[at]
    assert (known[at, of] > NEVER).all(), "a present bar has a known_at"
    columns = {name: pl.Series(name, array[at, of], nan_to_null=True) for name, array in values.items()}
    keys = plan.grid.partition_keys(slots, plan.horizon.partition) if len(slots) else np.empty(0, str)
    return pl.DataFrame(
        {
            "symbol": pl.Series(np.asarray(symbols, dtype=object)[of].tolist(), dtype=pl.String),
            "timestamp": pl.Series(stamps).cast(pl.Datetime("us")).dt.replace_time_zone("UTC"),
            "known_at": pl.Series(known[at, of]).cast(pl.Datetime("us")).dt.replace_time_zone("UTC"),
            **columns,
            "partition": pl.Series(keys[at].tolist(), dtype=pl.String),
        }
    )


@dataclass
class Statistics:
    """Null share and range per column, gathered while rows stream by."""

    names: Sequence[str]
    rows: int = 0
    _nulls: np.ndarray = field(init=False)
    _low: np.ndarray = field(init=False)
    _high: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self._nulls = np.zeros(len(self.names), np.int64)
        self._low = np.full(len(self.names), np.inf)
        self._high = np.full(len(self.names), -np.inf)

    def watch(self, frames: Iterator[pl.DataFrame]) -> Iterator[pl.DataFrame]:
        """Pass frames on unchanged, taking their columns into account."""
        for frame in frames:
            part = frame.select(self.names)
            self.rows += part.height
            self._nulls += np.array(part.null_count().row(0) if part.width else [], dtype=np.int64)
            self._low = np.fmin(self._low, np.array(part.min().row(0), dtype=float))
            self._high = np.fmax(self._high, np.array(part.max().row(0), dtype=float))
            yield frame

    @property
    def empty(self) -> list[str]:
        """Columns without a single value."""
        return [name for name, nulls in zip(self.names, self._nulls, strict=True) if nulls == self.rows]

    def table(self) -> list[tuple[str, str, str, str]]:
        """(name, null share, minimum, maximum) per column, as text."""
        total = max(1, self.rows)
        return [
            (name, f"{nulls / total:.1%}", _number(low), _number(high))
            for name, nulls, low, high in zip(self.names, self._nulls, self._low, self._high, strict=True)
        ]


def _number(value: float) -> str:
    return f"{value:.4g}" if np.isfinite(value) else "–"
