"""What vectors are tested with: a real embedded server, and made-up states of a few symbols, bar by bar."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from quant.states import KEYS, States
from resources.database import Database
from resources.vectors import Stored, Vectors

START = datetime(2024, 1, 2, 14, 30, tzinfo=UTC)
END = START + timedelta(days=1)
SESSION = 20
SYMBOLS = ("AAPL", "BRK.B", "Ünï,\"code'", "SPY")


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vectors]:
    patch = pytest.MonkeyPatch()
    patch.delenv("TENOR_DATABASE_URL", raising=False)
    database = Database(tmp_path_factory.mktemp("store"))
    yield Vectors(database)
    database.release()
    patch.undo()


def columns(count: int) -> dict[str, str]:
    return {f"factor_{number}": f"expression {number}" for number in range(count)}


def bars(count: int, dimensions: int = 4, seed: int = 0) -> pl.DataFrame:
    """`count` five-minute bars of each symbol from START on, known when they end: KEYS and a `vector`."""
    random = np.random.default_rng(seed)
    rows = count * len(SYMBOLS)
    return (
        pl.DataFrame(
            {
                "timestamp": [START + timedelta(minutes=5 * (row // len(SYMBOLS))) for row in range(rows)],
                "symbol": [SYMBOLS[row % len(SYMBOLS)] for row in range(rows)],
                "vector": random.normal(size=(rows, dimensions)).astype(np.float32).tolist(),
                "coverage": random.random(rows).astype(np.float32),
            }
        )
        .with_columns(known_at=pl.col("timestamp") + pl.duration(minutes=5))
        .with_columns(pl.col(name).cast(kind) for name, kind in KEYS.items())
        .sort("timestamp", "symbol")
    )


def grid(count: int, start: datetime = START) -> tuple[np.ndarray, np.ndarray]:
    """The slots of `count` bars from `start` on, and the session of each: SESSION bars make one."""
    number = (start - START) // timedelta(minutes=5) + np.arange(count)
    slots = np.datetime64(START.replace(tzinfo=None), "us") + number * np.timedelta64(5, "m")
    return slots, np.datetime64("2024-01-02") + number // SESSION


def states(rows: pl.DataFrame) -> States:
    vectors = np.array(rows["vector"].to_list(), np.float32) if len(rows) else np.zeros((0, 4), np.float32)
    return States(rows.select(KEYS.keys()), vectors)


def write(
    vectors: Vectors, table: str, rows: pl.DataFrame, count: int, *, start: datetime = START, dimensions: int = 4
) -> Stored:
    """Make `rows` the states of `count` bars from `start` on."""
    return vectors.write(table, states(rows), *grid(count, start), columns=columns(dimensions))
