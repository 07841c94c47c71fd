"""Every answer, kept: what was predicted from what by which bundle, in the Delta table predictions/<horizon>.

The event loop puts records into a bounded queue and never waits; one thread takes them out now and then, adds what the
challenger says of the same rows, and appends to the table. Any number of instances append to one table; each adds files
of its own.
"""

import hashlib
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime
from itertools import chain

import numpy as np
import polars as pl

from conf.options import Log
from resources.lake import Lake
from serving.logs import log
from serving.metrics import Metrics
from serving.predictor import Predictor
from serving.record import Record

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FIRST, LAST = (date.min - EPOCH.date()).days, (date.max - EPOCH.date()).days  # days that Python and the table can hold
INSTANT = pl.Datetime("us", "UTC")
LAYOUT = {"format": "predictions-1"}
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
    "inputs_hash": pl.String(),  # 16 hex digits of BLAKE2b over the row's float32
    "inputs": pl.List(pl.Float32()),  # the bundle's factors in its order; null where they are not kept
    "seconds": pl.Float64(),  # to the answer; null in shadow
    "partition": pl.String(),  # the UTC day of `at`
}
PAUSE = 1.0  # seconds between looks at the queue
YIELD = 0.001  # seconds between slices, in which the event loop has the interpreter to itself
SLICE = 4096  # records turned into a frame at once: fewer would cost more, more would hold up the event loop


def table(horizon: str) -> str:
    return f"predictions/{horizon}"


class PredictionLog:
    """Takes records on the event loop, writes them on a thread of its own.

    shadow: the challenger that scores a horizon's requests too, None for none.
    """

    def __init__(self, lake: Lake, options: Log, metrics: Metrics, shadow: Callable[[str], Predictor | None]) -> None:
        self.problem: str | None = None  # why the newest write failed
        self._lake = lake
        self._options = options
        self._metrics = metrics
        self._shadow = shadow
        self._queue: deque[Record] = deque()
        self._put = 0  # rows: written by the event loop
        self._gone = 0  # rows: written by the thread
        self._frames: dict[str, list[pl.DataFrame]] = {}  # by horizon, taken and not yet written
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="prediction-log")
        metrics.log_waiting.set_function(lambda: self._put - self._gone)

    def start(self) -> None:
        self._thread.start()

    def put(self, record: Record) -> None:
        """Keep a record, or count its rows as dropped where too many wait. On the event loop; never waits."""
        rows = len(record.X)
        if self._put - self._gone + rows > self._options.rows:
            self._metrics.log_dropped.inc(rows)
            return
        self._put += rows
        self._queue.append(record)

    def close(self) -> None:
        """Write what waits and stop; what cannot be written is lost, and the log says how many rows."""
        self._closing.set()
        self._thread.join()
        if lost := self._put - self._gone:
            log.error(f"{lost} answers are not in the prediction log: {self.problem}")

    def _run(self) -> None:
        flushed = time.perf_counter()
        while True:
            ending = self._closing.wait(PAUSE)
            self._take()
            full = self._put - self._gone > self._options.rows // 4
            if ending or full or time.perf_counter() - flushed >= self._options.flush_seconds:
                self._flush()
                flushed = time.perf_counter()
            if ending:
                return

    def _take(self) -> None:
        """Turn what waits into frames."""
        while self._queue:
            taken = [self._queue.popleft() for _ in range(min(SLICE, len(self._queue)))]
            groups: dict[int, list[Record]] = {}
            for record in taken:
                groups.setdefault(id(record.predictor), []).append(record)
            for records in groups.values():
                self._add(records)
            time.sleep(YIELD)

    def _add(self, records: Sequence[Record]) -> None:
        """Add the frame of records of one predictor, and of its challenger's answers."""
        X = np.concatenate([record.X for record in records])
        try:
            made = frame(records, X, keep=self._options.inputs)
        except Exception:  # a value that no table can hold costs its own record, never the log
            if len(records) > 1:
                for record in records:
                    self._add([record])
                return
            log.exception("an answer cannot be logged", extra={"fields": {"request": records[0].request_id}})
            self._metrics.log_dropped.inc(len(X))
            self._gone += len(X)
            return
        found = [made, self._beside(records[0], X, made)]
        self._frames.setdefault(records[0].horizon, []).extend(one for one in found if one is not None)

    def _beside(self, record: Record, X: np.ndarray, made: pl.DataFrame) -> pl.DataFrame | None:
        """What the challenger says of the same rows; None where none stands beside this champion."""
        challenger = self._shadow(record.horizon)
        # The challenger of another champion may read other inputs.
        if challenger is None or record.predictor.role != "champion" or challenger.entry != record.predictor.entry:
            return None
        try:
            values = challenger.bundle.predict_rows(X)
        except Exception:  # a challenger's trouble must not cost the champion's log
            self._metrics.shadow_failures.inc(len(X))
            log.exception("the challenger could not score a request", extra={"fields": {"horizon": record.horizon}})
            return None
        return made.with_columns(
            bundle=pl.lit(challenger.bundle.id),
            role=pl.lit("shadow"),
            prediction=pl.Series(values),
            seconds=pl.lit(None, pl.Float64),
            inputs=pl.lit(None, SCHEMA["inputs"]),  # they are the champion's
        )

    def _flush(self) -> None:
        """Append what was taken; a table that fails keeps its rows for the next time."""
        self.problem = None
        for horizon, frames in self._frames.items():
            if not frames:
                continue
            rows = pl.concat(frames)
            try:
                self._lake.append(table(horizon), rows, LAYOUT)
            except Exception as error:  # whatever is wrong with the table, the service must keep answering
                self.problem = f"predictions of {horizon} cannot be written: {error}"
                self._metrics.log_failures.inc()
                log.exception(self.problem, extra={"fields": {"rows": rows.height}})
                continue
            frames.clear()
            counted = dict(rows.group_by("role").len().iter_rows())
            for role, count in counted.items():
                self._metrics.log_rows.labels(role).inc(count)
            self._gone += rows.height - counted.get("shadow", 0)


def inputs_hashes(X: np.ndarray) -> list[str]:
    """Of each row of X float32 [N, F]: 16 hex digits, the same for every NaN."""
    data = memoryview(np.where(np.isnan(X), np.float32(np.nan), X).tobytes())
    size = len(data) // len(X)
    return [hashlib.blake2b(data[at : at + size], digest_size=8).hexdigest() for at in range(0, len(data), size)]


def frame(records: Sequence[Record], X: np.ndarray, *, keep: bool) -> pl.DataFrame:
    """Rows of the log for records of one predictor; X float32 [N, F]: theirs, put together. keep: the inputs too.

    Built of plain lists: what polars evaluates keeps the event loop from the interpreter, a Python loop does not.
    """
    predictor, size = records[0].predictor, len(X)
    rows = [record for record in records for _ in range(len(record.X))]
    keys = list(chain.from_iterable(record.keys or [(None, None)] * len(record.X) for record in records))
    columns: dict[str, Sequence[object] | np.ndarray | pl.Series] = {
        "signal": [f"{record.request_id}.{row}" for record in records for row in range(len(record.X))],
        "request": [record.request_id for record in rows],
        "at": [_micros(record.at) for record in rows],
        "route": [record.route for record in rows],
        "bundle": pl.Series([predictor.bundle.id]).new_from_index(0, size),
        "number": pl.Series([predictor.entry.number]).new_from_index(0, size),
        "role": pl.Series([predictor.role]).new_from_index(0, size),
        "symbol": [symbol for symbol, _ in keys],
        "timestamp": [stamp and _micros(stamp) for _, stamp in keys],
        "prediction": np.concatenate([record.values for record in records]),
        "coverage": 1.0 - np.isnan(X).mean(axis=1, dtype=np.float64),
        "inputs_hash": inputs_hashes(X),
        "inputs": pl.Series(np.ascontiguousarray(X)) if keep else pl.Series([None]).new_from_index(0, size),
        "seconds": [record.seconds for record in rows],
        "partition": [record.at.date().isoformat() for record in rows],
    }
    return pl.DataFrame([_series(name, values) for name, values in columns.items()])


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
