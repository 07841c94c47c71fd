"""Market states: each symbol's numbers at a bar as a vector, and the market's own as mean and spread over its members.

A number is a factor against its own past (see `Plan.vectors`); a missing one is 0, its usual value, and coverage says
how many were not missing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from quant.panel import Floats, Instants

MARKET = "market"  # stands where a symbol does
KEYS: dict[str, pl.DataType | type[pl.DataType]] = {
    "symbol": pl.String,
    "timestamp": pl.Datetime("us", "UTC"),
    "known_at": pl.Datetime("us", "UTC"),
    "coverage": pl.Float32,
}


@dataclass(frozen=True)
class States:
    """Vectors sorted by (timestamp, symbol). keys: a row of KEYS each; vectors: float32 [N, D]."""

    keys: pl.DataFrame
    vectors: npt.NDArray[np.float32]


def of_symbols(
    slots: Instants, symbols: Sequence[str], values: Mapping[str, Floats], known: np.ndarray, present: np.ndarray
) -> States:
    """A state per present bar. values: float32 [T, S] by name, NaN = missing; known: int64 [T, S]; present: [T, S]."""
    at, of = np.nonzero(present)
    vectors = np.stack([array[at, of] for array in values.values()], axis=1)
    missing = np.isnan(vectors)
    vectors[missing] = 0
    names = pl.Series(np.asarray(symbols, dtype=object)[of].tolist(), dtype=pl.String)
    return States(_keys(names, slots[at], known[at, of], 1 - missing.mean(axis=1)), vectors)


def of_market(slots: Instants, values: Mapping[str, Floats], known: np.ndarray, present: np.ndarray) -> States:
    """The market's state per slot with a bar: of each number the mean over the members, then of each its spread.

    With z the numbers of the n members that have one: mean = Σz / n, spread = sqrt(Σ(z - mean)² / n), both 0 where
    n = 0. Twice as many numbers as a symbol's state. It is known when the last member's is; coverage is the share of
    the members' numbers that were there. Arguments are those of `of_symbols`.
    """
    kept = np.flatnonzero(present.any(axis=1))
    there = present[kept]
    vectors = np.zeros((len(kept), 2 * len(values)), np.float32)
    counted = np.zeros(len(kept))
    for number, array in enumerate(values.values()):
        z = array[kept].astype(np.float64)
        has = there & ~np.isnan(z)
        z[~has] = 0
        count = has.sum(axis=1)
        mean = z.sum(axis=1) / np.maximum(count, 1)
        apart = np.where(has, z - mean[:, None], 0)
        vectors[:, number] = mean
        vectors[:, len(values) + number] = np.sqrt((apart**2).sum(axis=1) / np.maximum(count, 1))
        counted += count
    share = counted / np.maximum(there.sum(axis=1) * len(values), 1)
    last = np.where(there, known[kept], np.iinfo(np.int64).min).max(axis=1, initial=np.iinfo(np.int64).min)
    return States(_keys(pl.Series([MARKET] * len(kept), dtype=pl.String), slots[kept], last, share), vectors)


def _keys(symbol: pl.Series, slots: Instants, known: np.ndarray, coverage: np.ndarray) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "symbol": symbol,
            "timestamp": pl.Series(slots).cast(pl.Datetime("us")).dt.replace_time_zone("UTC"),
            "known_at": pl.Series(known).cast(pl.Datetime("us")).dt.replace_time_zone("UTC"),
            "coverage": pl.Series(coverage, dtype=pl.Float32),
        }
    )


def apart(slots: Sequence[int], least: int, most: int) -> list[int]:
    """Places of at most `most` of these slots, the first first, any two of them at least `least` slots apart.

    slots: numbers on the grid, the nearest state's first. States a few bars apart read the same bars: they are one
    state, and what followed them is one outcome.
    """
    taken: list[int] = []
    for place, slot in enumerate(slots):
        if all(abs(slot - slots[other]) >= least for other in taken):
            taken.append(place)
            if len(taken) == most:
                break
    return taken
