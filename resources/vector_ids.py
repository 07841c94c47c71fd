"""Ids of vectors: version-1 UUIDs of a bar's start and its symbol, as timescale-vector partitions by time."""

import hashlib
from collections.abc import Iterable
from uuid import UUID

import numpy as np
import numpy.typing as npt
import polars as pl

EPOCH = 0x01B21DD213814000  # 100 ns intervals from 1582-10-15, where UUIDs begin, to 1970-01-01 (RFC 9562)


def ids(timestamp: pl.Series, symbol: pl.Series) -> npt.NDArray[np.uint64]:
    """One id per row as two big-endian words [N, 2], the same for the same (timestamp, symbol) on every machine.

    The time takes the 60 bits that RFC 9562 gives it; the 62 of clock sequence and node are of the symbol's
    SHA-256. ValueError if two symbols share them (one chance in 10^10 for ten thousand symbols).
    """
    names = symbol.unique().to_list()
    bits = {name: int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 2 for name in names}
    if len(set(bits.values())) < len(names):
        raise ValueError("two symbols have the same id: rename one of them in the source")
    interval = timestamp.dt.epoch("us").to_numpy().astype(np.uint64) * np.uint64(10) + np.uint64(EPOCH)
    first = (
        (interval & np.uint64(0xFFFFFFFF)) << np.uint64(32)
        | (interval >> np.uint64(32) & np.uint64(0xFFFF)) << np.uint64(16)
        | np.uint64(0x1000)
        | interval >> np.uint64(48) & np.uint64(0x0FFF)
    )
    last = symbol.replace_strict(bits, return_dtype=pl.UInt64).to_numpy() | np.uint64(1 << 63)
    return np.stack([first, last], axis=1).astype(">u8")


def timestamps(made: Iterable[UUID]) -> pl.Series:
    """The bar starts that ids were made of, as Datetime(us, UTC)."""
    return pl.Series([(one.time - EPOCH) // 10 for one in made], dtype=pl.Int64).cast(pl.Datetime("us", "UTC"))
