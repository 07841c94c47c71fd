"""From a program's dense values to the rows of a table: present bars only, with when each could be known."""

from collections.abc import Mapping, Sequence
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
    """Null share, range, mean and deviation per column, gathered while rows stream by."""

    names: Sequence[str]
    rows: int = 0
    _count: np.ndarray = field(init=False)
    _low: np.ndarray = field(init=False)
    _high: np.ndarray = field(init=False)
    _mean: np.ndarray = field(init=False)
    _apart: np.ndarray = field(init=False)  # sum of squared distances from the mean

    def __post_init__(self) -> None:
        self._count = np.zeros(len(self.names))
        self._low = np.full(len(self.names), np.inf)
        self._high = np.full(len(self.names), -np.inf)
        self._mean, self._apart = np.zeros(len(self.names)), np.zeros(len(self.names))

    def take(self, frame: pl.DataFrame) -> None:
        """Take rows into account. Moments are merged as Chan, Golub and LeVeque (1983) do."""
        self.rows += frame.height
        if frame.is_empty() or not self.names:
            return
        columns = pl.col(self.names)  # Polars sums float32 in float64
        parts = (columns.count(), columns.min(), columns.max(), columns.mean(), columns.var(ddof=0))
        count, low, high, mean, variance = (np.array(frame.select(part).row(0), dtype=float) for part in parts)
        self._low, self._high = np.fmin(self._low, low), np.fmax(self._high, high)
        total = np.maximum(self._count + count, 1)
        apart = np.nan_to_num(mean) - self._mean
        self._mean = self._mean + np.where(count > 0, apart * count / total, 0)
        between = np.where(count > 0, apart**2 * self._count * count / total, 0)
        self._apart += np.nan_to_num(variance) * count + between
        self._count += count

    @property
    def empty(self) -> list[str]:
        """Columns without a single value."""
        return [name for name, count in zip(self.names, self._count, strict=True) if not count]

    @property
    def nulls(self) -> dict[str, float]:
        """Share of rows without a value, by column."""
        return dict(zip(self.names, (1 - self._count / max(1, self.rows)).tolist(), strict=True))

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Header and rows: a column each, as text."""
        with np.errstate(divide="ignore", invalid="ignore"):
            mean = np.where(self._count > 0, self._mean, np.nan)
            deviation = np.sqrt(np.where(self._count > 1, self._apart / (self._count - 1), np.nan))
        figures = zip(self._low, self._high, mean, deviation, strict=True)
        return ["column", "null", "min", "max", "mean", "std"], [
            [name, f"{share:.1%}", *(_number(figure) for figure in row)]
            for (name, share), row in zip(self.nulls.items(), figures, strict=True)
        ]


def _number(value: float) -> str:
    return f"{value:.4g}" if np.isfinite(value) else "–"
