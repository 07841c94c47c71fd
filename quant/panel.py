"""Bars as dense arrays: one row per slot of the grid, one column per symbol, NaN where a bar is missing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt
import polars as pl

Floats = npt.NDArray[np.float32]
Instants = npt.NDArray[np.datetime64]


@dataclass(frozen=True)
class Panel:
    """time: bar starts datetime64[us] [T], UTC, strictly increasing. columns: float32 [T, S], contiguous."""

    time: Instants
    symbols: tuple[str, ...]
    columns: dict[str, Floats]

    def __post_init__(self) -> None:
        if len(self.time) > 1 and not bool((np.diff(self.time) > np.timedelta64(0)).all()):
            raise ValueError("panel: its time is not strictly increasing")
        if len(set(self.symbols)) != len(self.symbols):
            raise ValueError("panel: a symbol appears twice")
        shape = (len(self.time), len(self.symbols))
        for name, values in self.columns.items():
            if values.shape != shape or values.dtype != np.float32 or not values.flags.c_contiguous:
                raise ValueError(
                    f"panel: column {name} is {values.dtype} {values.shape}, not contiguous float32 {shape}"
                )

    @classmethod
    def from_frame(cls, frame: pl.DataFrame, time: Instants, symbols: Sequence[str], columns: Sequence[str]) -> "Panel":
        """The panel of a long frame (symbol, timestamp, columns …); null and absent rows become NaN.

        Raises ValueError for a row whose timestamp is not in `time` or whose symbol is not in `symbols`, and
        for two rows of one symbol and timestamp.
        """
        time = time.astype("datetime64[us]")
        stamps = instants(frame["timestamp"])
        rows = np.searchsorted(time, stamps)
        on_grid = rows < len(time)
        on_grid[on_grid] = time[rows[on_grid]] == stamps[on_grid]
        if not on_grid.all():
            first = frame.row(int(np.argmin(on_grid)), named=True)
            raise ValueError(
                f"{int((~on_grid).sum())} of {len(frame)} rows are off the grid, first {first['symbol']} at"
                f" {first['timestamp']}: keep them apart before making a panel"
            )
        place = {symbol: index for index, symbol in enumerate(symbols)}
        strangers = [symbol for symbol in frame["symbol"].unique() if symbol not in place]
        if strangers:
            raise ValueError(f"symbol {min(strangers)} has rows but is not among the panel's {len(place)} symbols")
        cells = rows * len(place) + frame["symbol"].replace_strict(place, return_dtype=pl.Int64).to_numpy()
        _refuse_twice(frame, cells)
        filled = {name: _scatter(frame[name], cells, (len(time), len(place))) for name in columns}
        return cls(time, tuple(symbols), filled)

    def joined(self, other: "Panel") -> "Panel":
        """Both panels' columns, over the same time and symbols; a column that both have is an error."""
        if self.symbols != other.symbols or not np.array_equal(self.time, other.time):
            raise ValueError("panels to join differ in time or symbols")
        if both := self.columns.keys() & other.columns.keys():
            raise ValueError(f"panels to join both have column {min(both)}")
        return Panel(self.time, self.symbols, {**self.columns, **other.columns})

    def of(self, left: int, right: int) -> "Panel":
        """Symbols left .. right (excluded) as a panel of their own."""
        cut = {name: np.ascontiguousarray(values[:, left:right]) for name, values in self.columns.items()}
        return Panel(self.time, self.symbols[left:right], cut)

    def between(self, start: int, stop: int) -> "Panel":
        """Rows start .. stop (excluded) as a panel of their own."""
        cut = {name: values[start:stop] for name, values in self.columns.items()}
        return Panel(self.time[start:stop], self.symbols, cut)


def to_frame(time: Instants, symbols: Sequence[str], values: Mapping[str, Floats]) -> pl.DataFrame:
    """Dense [T, S] values as a long frame sorted by timestamp, then symbol as ordered in `symbols`.

    A row for every slot and symbol; float32 columns, NaN as null.
    """
    stamps = pl.Series("timestamp", np.repeat(time.astype("datetime64[us]"), len(symbols)))
    frame = pl.DataFrame(
        {
            "symbol": pl.Series(list(symbols) * len(time), dtype=pl.String),
            "timestamp": stamps.cast(pl.Datetime("us")).dt.replace_time_zone("UTC"),
            **{name: pl.Series(name, array.ravel(), dtype=pl.Float32) for name, array in values.items()},
        }
    )
    return frame.with_columns(pl.col(list(values)).fill_nan(None)) if values else frame


def instants(stamps: pl.Series) -> Instants:
    """A Polars Datetime series as datetime64[us] in UTC; a stamp without a zone is taken as UTC."""
    if getattr(stamps.dtype, "time_zone", None) not in (None, "UTC"):
        stamps = stamps.dt.convert_time_zone("UTC")
    return stamps.dt.replace_time_zone(None).dt.cast_time_unit("us").to_numpy().astype("datetime64[us]")


def moment(instant: np.datetime64) -> datetime:
    """An instant as an aware datetime, UTC."""
    found = instant.astype("datetime64[us]").item()
    assert isinstance(found, datetime)
    return found.replace(tzinfo=UTC)


def _scatter(values: pl.Series, cells: npt.NDArray[np.int64], shape: tuple[int, int]) -> Floats:
    dense = np.full(shape, np.nan, np.float32)
    dense.ravel()[cells] = values.cast(pl.Float32).to_numpy()
    return dense


def _refuse_twice(frame: pl.DataFrame, cells: npt.NDArray[np.int64]) -> None:
    taken = np.zeros(cells.max(initial=0) + 1, bool)  # sorting a million cells takes fifty times as long
    taken[cells] = True
    if np.count_nonzero(taken) == len(cells):
        return
    twice = frame.filter(pl.struct("symbol", "timestamp").is_duplicated()).row(0, named=True)
    raise ValueError(f"{twice['symbol']} has more than one row at {twice['timestamp']}")
