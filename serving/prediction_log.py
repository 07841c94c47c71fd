"""Every answer, kept: what was predicted from what by which bundle, in the Delta table predictions/<horizon>.

The event loop puts encoded lines into a bounded queue and never waits. A thread looks at it now and then: while little
is asked it writes the table itself; with the first thousands of rows it starts the helper and hands the lines over, so
that the interpreter is left to the requests. Any number of instances append to one table; each adds files of its own.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

import msgspec

from conf.options import Log
from quant.bundle import Bundle
from resources.lake import Lake
from resources.registry import Registry
from serving.helper import CLOSE, FLUSH, PATIENCE, Helper
from serving.log_novelty import Measures
from serving.log_rows import encode
from serving.log_writer import Tally, Writer
from serving.logs import event, log
from serving.metrics import Metrics
from serving.predictor import Predictor
from serving.record import Record

PAUSE = 0.25  # seconds between looks at the queue
BUSY = 5_000  # rows that wait: from here on writing is the helper's
SLICE = 2**20  # bytes handed over at once: the interpreter is ours for a millisecond of them
RETRY = 5.0  # seconds until a helper that died is started again
IDLE = 600.0  # seconds without a line after which it is ended: it has a quarter of a gigabyte

_pack = msgspec.msgpack.Encoder().encode
_tally = msgspec.msgpack.Decoder(Tally).decode


class PredictionLog:
    """Takes records on the event loop, writes them on a thread of its own or in the helper.

    shadow: the challenger that scores a horizon's requests too, None for none. helper: the process beside the service,
    None while nobody needed it.
    """

    def __init__(self, store: Path, options: Log, metrics: Metrics, shadow: Callable[[str], Predictor | None]) -> None:
        self.problem: str | None = None  # why the newest write failed
        self.helper: Helper | None = None
        self._store = store
        self._registry = Registry(store)
        self._options = options
        self._metrics = metrics
        self._shadow = shadow
        self._queue: deque[tuple[int, bytes]] = deque()  # rows, encoded line
        self._put = 0  # rows: written by the event loop
        self._gone = 0  # rows: written by the thread
        self._there = 0  # rows that the helper has and has not told of
        self._asked: float | None = None  # when the helper was asked to flush, None where it has told
        self._again = 0.0  # when a helper may be started
        self._sent = 0.0  # when the helper was last sent a line
        self._writer = Writer(
            Lake(f"{store}/lake"), self._challenger, Measures(self._registry).get, inputs=options.inputs
        )
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="prediction-log")
        metrics.log_waiting.set_function(lambda: self._waiting)
        metrics.helper_memory.set_function(lambda: self.helper.memory() if self.helper else 0)

    def start(self) -> None:
        self._thread.start()

    def put(self, record: Record) -> None:
        """Keep a record, or count its rows as dropped where too many wait. On the event loop; never waits."""
        rows = len(record.values)
        if self._put - self._gone + rows > self._options.rows:
            self._metrics.log_dropped.inc(rows)
            return
        try:
            line = encode(record, self._beside(record))
        except Exception:  # a value that nothing can hold (a symbol that is no text) costs its own record
            log.exception("an answer cannot be logged", extra={"fields": {"request": record.request_id}})
            self._metrics.log_dropped.inc(rows)
            return
        self._put += rows
        self._queue.append((rows, line))

    def close(self) -> None:
        """Write what waits and stop; what cannot be written is lost, and the log says how many rows."""
        self._closing.set()
        self._thread.join()
        if lost := self._waiting:
            log.error(f"{lost} answers are not in the prediction log: {self.problem}")

    @property
    def _waiting(self) -> int:
        return self._put - self._gone

    def _beside(self, record: Record) -> str | None:
        """The challenger that is to score the same rows; None where none stands beside this champion."""
        challenger = self._shadow(record.horizon)
        # The challenger of another champion may read other inputs.
        if challenger is None or record.predictor.role != "champion" or challenger.entry != record.predictor.entry:
            return None
        return challenger.bundle.id

    def _challenger(self, horizon: str, id: str) -> Bundle:
        standing = self._shadow(horizon)
        return standing.bundle if standing and standing.bundle.id == id else self._registry.load(horizon, id)

    def _run(self) -> None:
        flushed = time.perf_counter()
        while True:
            ending = self._closing.wait(PAUSE)
            full = self._waiting > self._options.rows // 4
            now = time.perf_counter()
            due = ending or full or now - flushed >= self._options.flush_seconds
            if self.helper is None and self._waiting > BUSY and now >= self._again and not ending:
                self._start()
            if self.helper is not None:
                self._hand_over(self.helper, due, ending or (not self._waiting and now - self._sent > IDLE))
            if due:
                flushed = now
            if due and (self.helper is None or self._writer.holding):
                self._write_here()
            if ending:
                return

    def _write_here(self) -> None:
        if self.helper is None:
            self._writer.take([self._queue.popleft()[1] for _ in range(len(self._queue))])
        self._writer.flush()
        self._settle(self._writer.told())

    def _settle(self, tally: Tally) -> None:
        """Count what became of rows."""
        self.problem = tally.problem
        self._gone += tally.gone
        self._metrics.log_dropped.inc(tally.dropped)
        self._metrics.shadow_failures.inc(tally.shadow_failures)
        self._metrics.log_failures.inc(tally.failures)
        for role, count in tally.written.items():
            self._metrics.log_rows.labels(role).inc(count)

    # -- the helper ----------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        try:
            self.helper = Helper(self._store, inputs=self._options.inputs)
        except OSError:  # no process to be had: the thread writes on
            log.exception("the helper cannot be started; the service writes the prediction log itself")
            self._again = time.perf_counter() + RETRY
        else:
            self._sent = time.perf_counter()
            event(logging.INFO, "the helper is started", pid=self.helper.pid)

    def _hand_over(self, helper: Helper, due: bool, ending: bool) -> None:
        """Send what waits, and hear what became of what was sent; at the end wait for all of it."""
        try:
            while self._queue:  # nearly never twice: a slice is more than comes in a pause
                self._send(helper)
            if ending:
                helper.tell(CLOSE)
            elif self._asked is not None:
                if time.perf_counter() - self._asked > PATIENCE:
                    raise TimeoutError  # it hangs
            elif due:
                helper.tell(FLUSH)
                self._asked = time.perf_counter()
            while helper.log.poll(PATIENCE if ending else 0.0):
                tally = _tally(helper.log.recv_bytes())
                self._there -= tally.gone
                self._asked = None
                self._settle(tally)
        except (EOFError, OSError):
            self._ended(helper, ending)
        else:
            if ending:
                self._ended(helper, ending)

    def _send(self, helper: Helper) -> None:
        lines, size = [], 0
        while self._queue and size < SLICE:
            rows, line = self._queue.popleft()
            self._there += rows
            size += len(line)
            lines.append(line)
        helper.give(_pack(lines))
        self._sent = time.perf_counter()

    def _ended(self, helper: Helper, ending: bool) -> None:
        """The helper is gone: what it had not told of is lost, and the log says how much."""
        self.helper = None
        status = helper.wait(PATIENCE if ending else 1.0)
        lost, self._there, self._asked = self._there, 0, None
        if ending and not status:
            return  # what it could not write, `close` tells
        self._gone += lost
        self._metrics.log_dropped.inc(lost)
        self._again = time.perf_counter() + RETRY
        log.error(f"the helper ended with status {status}: {lost} answers are not in the prediction log")
