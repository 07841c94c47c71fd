"""Pushed bars as they arrived: a journal that is on the disk before the sender hears of it.

    arrivals/<horizon>/<UTC day>.<instance>.<number>.jsonl     lines of `<crc32> {"at": µs, "columns": {...}}`

A Delta commit would do as well and costs ten times as much (bench/stream.py), and two instances would refuse each
other's.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from datetime import date, datetime, timedelta
from pathlib import Path

import msgspec
import polars as pl

from quant.bars import INSTANT, PRICES
from resources.journal import Writer, files, micros, records

COLUMNS = ("symbol", "timestamp", *PRICES, "volume", "jump")
Columns = Mapping[str, Sequence[str | int | float | None]]


class _Record(msgspec.Struct):
    at: int
    columns: dict[str, list[str | int | float | None]]


class Journal:
    """What this process takes of one horizon's arrivals. Thread-safe; appends keep the order they were asked for in."""

    def __init__(self, root: Path, horizon: str) -> None:
        self._writer = Writer(Path(root) / "arrivals" / horizon)

    def append(self, at: datetime, columns: Columns) -> "Future[None]":
        """Begin to write rows that arrived at `at`; done once they would survive a power cut.

        columns: equally long lists by name: symbol, timestamp (µs since 1970), and numbers, None where missing; jump: 1
        where the row was told one and refused. That is kept too, for what came later was judged by it.
        The future raises JournalError where the disk refuses; then nothing of this append may be relied on.
        """
        return self._writer.append(at, msgspec.json.encode({"at": micros(at), "columns": columns}))

    def close(self) -> None:
        """Write what was asked for and stop."""
        self._writer.close()


class Arrivals:
    """What was pushed, as the journals below a store's root have it."""

    def __init__(self, root: str | Path) -> None:
        self._root = Path(root) / "arrivals"

    def read(self, horizon: str, since: date | None = None) -> pl.DataFrame:
        """Rows of every instance in order of arrival: symbol, timestamp, known_at (the arrival), jump, Float64 columns.

        jump: whether it was told one and refused, null where nobody judged. since: only what arrived on this UTC day
        or later. JournalError names a line that is damaged.
        """
        return _frame([file for day, file in self.files(horizon) if since is None or day >= since])

    def read_file(self, file: Path) -> pl.DataFrame:
        """The same of one file."""
        return _frame([file])

    def files(self, horizon: str) -> list[tuple[date, Path]]:
        """The journals of every instance, with the UTC days on which their rows arrived, oldest first."""
        return files(self._root / horizon)

    def newest(self, horizon: str) -> datetime | None:
        """The start of the newest bar that was pushed in the last week of arrivals, None where nothing was."""
        days = [day for day, _ in self.files(horizon)]
        if not days:
            return None
        rows = self.read(horizon, days[-1] - timedelta(days=7)).filter(~pl.col("jump").fill_null(False))
        return rows.select(pl.col("timestamp").max()).item()


def _frame(journals: Sequence[Path]) -> pl.DataFrame:
    at: list[int] = []
    found: dict[str, list[str | int | float | None]] = {name: [] for name in COLUMNS}
    decoder = msgspec.json.Decoder(_Record)
    for file in journals:
        for record in map(decoder.decode, records(file)):
            before, rows = len(at), len(record.columns["symbol"])
            at += [record.at] * rows
            for name in dict.fromkeys((*found, *record.columns)):
                held = found.setdefault(name, [None] * before)
                held += record.columns.get(name) or [None] * rows
    numbers = [name for name in found if name not in ("symbol", "timestamp")]
    frame = pl.DataFrame(
        {"known_at": at, **found},
        schema={"known_at": pl.Int64(), "symbol": pl.String(), "timestamp": pl.Int64()}
        | dict.fromkeys(numbers, pl.Float64()),
        strict=False,
    )
    frame = frame.with_columns(jump=pl.col("jump") > 0)
    return frame.cast(dict.fromkeys(("timestamp", "known_at"), INSTANT)).sort("known_at", maintain_order=True)
