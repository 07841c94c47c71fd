"""The prediction log's rows: an answer as the bytes in which it waits, and as rows of predictions/<horizon>."""

import hashlib
from collections.abc import Sequence
from datetime import UTC, date, datetime
from itertools import chain

import msgspec
import numpy as np
import polars as pl

from serving.log_novelty import Measure
from serving.record import Key, Record

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FIRST, LAST = (date.min - EPOCH.date()).days, (date.max - EPOCH.date()).days  # days that Python and the table can hold
INSTANT = pl.Datetime("us", "UTC")
LAYOUT = {"format": "predictions-2"}
SILENT = Measure(None)
SCHEMA: dict[str, pl.DataType] = {
    "signal": pl.String(),
    "request": pl.String(),
    "at": INSTANT,  # when the answer was made
    "route": pl.String(),
    "bundle": pl.String(),
    "number": pl.Int64(),  # entry of the ledger, a canary's and a shadow's: the champion's beside it
    "role": pl.String(),  # champion, canary, or shadow: nobody was told
    "symbol": pl.String(),
    "timestamp": INSTANT,  # the bar's
    "prediction": pl.Float64(),
    "coverage": pl.Float64(),
    "novelty": pl.Float32(),  # null: the bundle does not measure it
    "abstained": pl.Boolean(),  # the prediction was told to be no signal; null where novelty is
    "inputs_hash": pl.String(),  # 16 hex digits of BLAKE2b over the row's float32
    "inputs": pl.List(pl.Float32()),  # the bundle's factors in its order; null where they are not kept
    "seconds": pl.Float64(),  # to the answer; null in shadow
    "partition": pl.String(),  # the UTC day of `at`
}


def table(horizon: str) -> str:
    return f"predictions/{horizon}"


class Line(msgspec.Struct, array_like=True):
    """A record on its way to the table. shadow: the challenger that is to score the same rows, None for none.

    X: float32 [N, F] and values: float64 [N], as they lie in memory.
    """

    request_id: str
    at: datetime
    route: str
    horizon: str
    bundle: str
    number: int
    role: str
    shadow: str | None
    X: bytes
    values: bytes
    keys: Sequence[Key] | None
    seconds: float

    @property
    def size(self) -> int:
        """How many rows it has."""
        return len(self.values) // 8

    @property
    def source(self) -> tuple[str, str, int, str, str | None, int]:
        """What the rows of one frame have in common."""
        return self.horizon, self.bundle, self.number, self.role, self.shadow, len(self.X) // self.size


_encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(Line).decode


def line(record: Record, shadow: str | None = None) -> Line:
    """A record without what cannot be sent: its predictor is named, its arrays are bytes."""
    by = record.predictor
    return Line(
        record.request_id, record.at, record.route, record.horizon, by.bundle.id, by.entry.number, by.role, shadow,
        record.X.tobytes(), record.values.tobytes(), record.keys, record.seconds,
    )  # fmt: skip


def encode(record: Record, shadow: str | None) -> bytes:
    """The bytes in which a record waits; an exception where they cannot be made (a surrogate in a symbol)."""
    return _encode(line(record, shadow))


def matrix(lines: Sequence[Line]) -> np.ndarray:
    """float32 [N, F]: the rows of lines of one source, put together."""
    return np.frombuffer(b"".join(one.X for one in lines), np.float32).reshape(sum(one.size for one in lines), -1)


def frame(lines: Sequence[Line], *, keep: bool, measure: Measure = SILENT) -> pl.DataFrame:
    """Rows of the log for lines of one source. keep: the inputs too; measure: how their bundle tells novelty.

    Built of plain lists: what polars evaluates keeps the event loop from the interpreter, a Python loop does not.
    """
    first, X = lines[0], matrix(lines)
    size = len(X)
    rows = [one for one in lines for _ in range(one.size)]
    keys = list(chain.from_iterable(one.keys or [(None, None)] * one.size for one in lines))
    shadow = first.role == "shadow"
    novelty, abstained = measure.of(X)
    columns: dict[str, Sequence[object] | np.ndarray | pl.Series] = {
        "signal": [f"{one.request_id}.{row}" for one in lines for row in range(one.size)],
        "request": [one.request_id for one in rows],
        "at": [_micros(one.at) for one in rows],
        "route": [one.route for one in rows],
        "bundle": pl.Series([first.bundle]).new_from_index(0, size),
        "number": pl.Series([first.number]).new_from_index(0, size),
        "role": pl.Series([first.role]).new_from_index(0, size),
        "symbol": [symbol for symbol, _ in keys],
        "timestamp": [stamp and _micros(stamp) for _, stamp in keys],
        "prediction": np.frombuffer(b"".join(one.values for one in lines), np.float64),
        "coverage": 1.0 - np.isnan(X).mean(axis=1, dtype=np.float64),
        "novelty": _or_nulls(novelty, size),
        "abstained": _or_nulls(abstained, size),
        "inputs_hash": inputs_hashes(X),
        "inputs": pl.Series(X) if keep else pl.Series([None]).new_from_index(0, size),
        "seconds": pl.Series([None]).new_from_index(0, size) if shadow else [one.seconds for one in rows],
        "partition": [one.at.date().isoformat() for one in rows],
    }
    return pl.DataFrame([_series(name, values) for name, values in columns.items()])


def _or_nulls(values: np.ndarray | None, size: int) -> pl.Series:
    return pl.Series([None]).new_from_index(0, size) if values is None else pl.Series(values)


def inputs_hashes(X: np.ndarray) -> list[str]:
    """Of each row of X float32 [N, F]: 16 hex digits, the same for every NaN."""
    data = memoryview(np.where(np.isnan(X), np.float32(np.nan), X).tobytes())
    size = len(data) // len(X)
    return [hashlib.blake2b(data[at : at + size], digest_size=8).hexdigest() for at in range(0, len(data), size)]


def _series(name: str, values: Sequence[object] | np.ndarray | pl.Series) -> pl.Series:
    kind = SCHEMA[name]
    if isinstance(values, list) and kind != INSTANT:
        return pl.Series(name, values, kind)
    return (pl.Series(name, values, pl.Int64) if kind == INSTANT else pl.Series(name, values)).cast(kind)


def _micros(moment: datetime) -> int:
    """Microseconds since 1970, whatever its zone; OverflowError for one that is outside the years 1 to 9999 in UTC."""
    passed = moment - EPOCH
    if not FIRST <= passed.days <= LAST:
        raise OverflowError(f"{moment} is outside the years 1 to 9999 in UTC")
    return (passed.days * 86_400 + passed.seconds) * 1_000_000 + passed.microseconds
