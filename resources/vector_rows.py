"""States as Postgres reads them fastest, COPY's binary form; and what tells a session's states from others."""

import hashlib
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import polars as pl

from quant.panel import Instants, instants
from quant.states import KEYS, States
from resources.vector_ids import ids

MOST_DIMENSIONS = 128  # of a market's state: mean and spread of 64 numbers
HEADER, TRAILER = b"PGCOPY\n\xff\r\n\0" + bytes(8), b"\xff\xff"
COLUMNS = "id, metadata, embedding"  # timescale-vector's `contents` stays null: the metadata has the symbol


def digests(states: States, day: npt.NDArray[np.datetime64]) -> dict[np.datetime64, bytes]:
    """SHA-256 of the states of each session that has any. day: the session date of each state [N], not decreasing."""
    if not len(day):
        return {}
    starts = np.flatnonzero(np.concatenate([[True], day[1:] != day[:-1]]))
    keys = states.keys
    numbers = keys.select(
        pl.col("timestamp", "known_at").dt.epoch("us"), pl.col("coverage").cast(pl.Float64).reinterpret(signed=True)
    ).to_numpy()
    found = {}
    for start, end in zip(starts, [*starts[1:], len(day)], strict=True):
        digest = hashlib.sha256("\n".join(keys["symbol"][int(start) : int(end)].to_list()).encode())
        digest.update(np.ascontiguousarray(numbers[start:end]).data)
        digest.update(np.ascontiguousarray(states.vectors[start:end]).data)
        found[day[start]] = digest.digest()
    return found


def copied(states: States) -> bytes:
    """The rows of COLUMNS for COPY … WITH (FORMAT binary): fields as length and big-endian content.

    All rows are of one size: metadata is JSON, which may end in spaces.
    """
    keys, dimensions = states.keys, states.vectors.shape[1]
    written = pl.col("known_at").dt.to_string("%Y-%m-%dT%H:%M:%S%.6f+00:00")
    metadata = keys.select(pl.struct("symbol", written, "coverage").struct.json_encode()).to_series()
    width = int(metadata.str.len_bytes().max() or 0)  # type: ignore[arg-type]
    text = np.array([one.encode().ljust(width) for one in metadata], dtype=f"S{max(width, 1)}")
    row = np.dtype(
        [
            ("fields", ">i2"),
            ("id_size", ">i4"), ("id", ">u8", 2),
            ("metadata_size", ">i4"), ("version", "u1"), ("metadata", f"S{max(width, 1)}"),
            ("embedding_size", ">i4"), ("dimensions", ">i2"), ("unused", ">i2"), ("embedding", ">f4", dimensions),
        ]
    )  # fmt: skip
    rows = np.zeros(len(keys), row)
    rows["fields"], rows["id_size"], rows["id"] = 3, 16, ids(keys["timestamp"], keys["symbol"])
    rows["metadata_size"], rows["version"], rows["metadata"] = 1 + width, 1, text
    rows["embedding_size"], rows["dimensions"], rows["embedding"] = 4 + 4 * dimensions, dimensions, states.vectors
    return HEADER + rows.tobytes() + TRAILER


def checked(table: str, states: States, slots: Instants, days: Instants, columns: Mapping[str, str]) -> Instants:
    """The session of each state [N]; ValueError names the first row, or the setting, that cannot be stored."""
    if not 1 <= len(columns) <= MOST_DIMENSIONS:
        raise ValueError(f"vectors of {table} would have {len(columns)} numbers: 1 to {MOST_DIMENSIONS} are possible")
    keys, vectors = states.keys, states.vectors
    if dict(keys.schema) != KEYS or vectors.shape != (len(keys), len(columns)) or vectors.dtype != np.float32:
        raise ValueError(
            f"vectors of {table}: the states are {dict(keys.schema)} with {vectors.dtype} {vectors.shape}, not "
            f"{KEYS} with float32 {(len(keys), len(columns))}"
        )
    stamps = instants(keys["timestamp"])
    place = np.minimum(np.searchsorted(slots, stamps), max(len(slots) - 1, 0))
    outside = np.asarray(slots[place] != stamps if len(slots) else np.ones(len(stamps), bool))
    troubles: dict[str, np.ndarray] = {
        "is outside the sessions to replace": outside,
        "holds a number that is missing or not finite": np.asarray(~np.isfinite(vectors).all(axis=1)),
        "is there twice": keys.select("symbol", "timestamp").is_duplicated().to_numpy(),
        "lacks a symbol, a known_at or a coverage": keys.select(
            pl.any_horizontal(pl.col("symbol", "known_at", "coverage").is_null())
        )
        .to_series()
        .to_numpy(),
        "is earlier than the row before it": np.concatenate([[False], stamps[1:] < stamps[:-1]])[: len(stamps)],
    }
    for trouble, wrong in troubles.items():
        if wrong.any():
            row = keys.row(int(np.argmax(wrong)), named=True)
            raise ValueError(f"vectors of {table}: the row of {row['symbol']} at {row['timestamp']} {trouble}")
    return days[place]
