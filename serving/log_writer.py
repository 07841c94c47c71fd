"""Writes the prediction log: waiting lines become frames, with what the challenger says of the same rows, and these are
appended to the tables. Runs in the service while little is asked, else in the process beside it."""

import time
from collections.abc import Callable, Sequence

import msgspec
import polars as pl

from quant.bundle import Bundle
from resources.lake import Lake
from serving.log_novelty import Measure
from serving.log_rows import LAYOUT, SCHEMA, Line, decode, frame, matrix, table
from serving.logs import log

YIELD = 0.001  # seconds between slices, in which the event loop has the interpreter to itself
SLICE = 4096  # lines turned into a frame at once: fewer would cost more, more would hold up the event loop


class Tally(msgspec.Struct):
    """What became of rows since it was last told. gone: rows that wait no more, written or dropped.

    problem: why the newest write failed, None where it did not.
    """

    gone: int = 0
    dropped: int = 0
    written: dict[str, int] = {}  # by role
    shadow_failures: int = 0
    failures: int = 0
    problem: str | None = None


class Writer:
    """Builds and appends the tables' rows.

    challenger: the bundle of an id, to score a horizon's rows in shadow; measure: how one tells novelty.
    """

    def __init__(
        self,
        lake: Lake,
        challenger: Callable[[str, str], Bundle],
        measure: Callable[[str, str], Measure],
        *,
        inputs: bool,
    ) -> None:
        self._lake = lake
        self._challenger = challenger
        self._measure = measure
        self._inputs = inputs
        self._frames: dict[str, list[pl.DataFrame]] = {}  # by horizon, taken and not yet written
        self._taken: dict[str, int] = {}  # rows of them that lines brought
        self._tally = Tally()

    @property
    def holding(self) -> int:
        """Rows that were taken and are not written, but for those of challengers."""
        return sum(self._taken.values())

    def take(self, waiting: Sequence[bytes]) -> None:
        """Turn encoded lines into frames."""
        for start in range(0, len(waiting), SLICE):
            groups: dict[object, list[Line]] = {}
            for one in map(decode, waiting[start : start + SLICE]):
                groups.setdefault(one.source, []).append(one)
            for lines in groups.values():
                self._add(lines)
            time.sleep(YIELD)

    def flush(self) -> None:
        """Append what was taken; a table that fails keeps its rows for the next time."""
        self._tally.problem = None
        for horizon, frames in self._frames.items():
            if not frames:
                continue
            rows = pl.concat(frames)
            try:
                self._lake.append(table(horizon), rows, LAYOUT)
            except Exception as error:  # whatever is wrong with the table, the service must keep answering
                self._tally.problem = f"predictions of {horizon} cannot be written: {error}"
                self._tally.failures += 1
                log.exception(self._tally.problem, extra={"fields": {"rows": rows.height}})
                continue
            frames.clear()
            self._tally.gone += self._taken.pop(horizon)
            for role, count in rows.group_by("role").len().iter_rows():
                self._tally.written[role] = self._tally.written.get(role, 0) + count

    def told(self) -> Tally:
        """What became of rows since the last call."""
        tally, self._tally = self._tally, Tally()
        return tally

    def _add(self, lines: Sequence[Line]) -> None:
        """Add the frame of lines of one source, and of its challenger's answers."""
        try:
            made = frame(lines, keep=self._inputs, measure=self._measure(lines[0].horizon, lines[0].bundle))
        except Exception:  # a value that no table can hold costs its own line, never the log
            if len(lines) > 1:
                for one in lines:
                    self._add([one])
                return
            log.exception("an answer cannot be logged", extra={"fields": {"request": lines[0].request_id}})
            self._tally.dropped += lines[0].size
            self._tally.gone += lines[0].size
            return
        horizon = lines[0].horizon
        self._taken[horizon] = self._taken.get(horizon, 0) + made.height
        found = self._frames.setdefault(horizon, [])
        found.append(made)
        if (beside := self._beside(lines, made)) is not None:
            found.append(beside)

    def _beside(self, lines: Sequence[Line], made: pl.DataFrame) -> pl.DataFrame | None:
        """What the challenger says of the same rows; None where none stands beside this champion."""
        horizon, shadow = lines[0].horizon, lines[0].shadow
        if shadow is None:
            return None
        try:
            X = matrix(lines)
            values = self._challenger(horizon, shadow).predict_rows(X)
            novelty, abstained = self._measure(horizon, shadow).of(X)
        except Exception:  # a challenger's trouble must not cost the champion's log
            self._tally.shadow_failures += made.height
            log.exception("the challenger could not score a request", extra={"fields": {"horizon": horizon}})
            return None
        return made.with_columns(
            bundle=pl.lit(shadow),
            role=pl.lit("shadow"),
            prediction=pl.Series(values),
            novelty=pl.Series(novelty, dtype=pl.Float32) if novelty is not None else pl.lit(None, pl.Float32),
            abstained=pl.Series(abstained) if abstained is not None else pl.lit(None, pl.Boolean),
            seconds=pl.lit(None, pl.Float64),
            inputs=pl.lit(None, SCHEMA["inputs"]),  # they are the champion's
        )
