"""Bars as dense arrays in float64: what the live state reads, without a frame on the way."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import polars as pl

from quant.attributes import Attribute, attribute_columns
from quant.bars import KEY, PRICES
from quant.grid import Grid
from quant.inputs import BARS, CALENDAR, RAW, calendar_fields
from quant.known import NEVER, known_panel
from quant.panel import Floats, Instants, Panel


@dataclass(frozen=True)
class DenseBars:
    """Rows of the bars table. values: float64 [T, S] by column, NaN where there is none; known: `known_at` in µs, int64
    [T, S], NEVER where there is no bar."""

    slots: Instants
    symbols: tuple[str, ...]
    values: Mapping[str, npt.NDArray[np.float64]]
    known: npt.NDArray[np.int64]

    @classmethod
    def of(cls, bars: pl.DataFrame, slots: Instants, symbols: Sequence[str]) -> "DenseBars":
        """Those of a frame, all of whose bars are at these slots."""
        known = known_panel(bars, slots, symbols)
        columns = [name for name, kind in bars.schema.items() if kind == pl.Float64()]
        rows, places = np.nonzero(known != NEVER)
        names = pl.Series([symbols[at] for at in places.tolist()], dtype=pl.String)
        keys = pl.DataFrame({"symbol": names, "timestamp": pl.Series(slots[rows]).dt.replace_time_zone("UTC")})
        ordered = keys.join(bars, on=KEY, how="left", maintain_order="left")
        values = {}
        for name in columns:
            values[name] = np.full(known.shape, np.nan)
            values[name][rows, places] = ordered[name].to_numpy()
        return cls(slots, tuple(symbols), values, known)

    @cached_property
    def present(self) -> npt.NDArray[np.bool_]:
        """Where there is a bar."""
        return self.known != NEVER

    @cached_property
    def frame(self) -> pl.DataFrame:
        """The rows of the bars table, by (timestamp, symbol)."""
        at, of = np.nonzero(self.present)
        return pl.DataFrame(
            {
                "symbol": pl.Series([self.symbols[place] for place in of.tolist()], dtype=pl.String),
                "timestamp": pl.Series(self.slots[at]).dt.replace_time_zone("UTC"),
                **{name: pl.Series(held[at, of]) for name, held in self.values.items()},
                "known_at": pl.Series(self.known[at, of].view("datetime64[us]")).dt.replace_time_zone("UTC"),
            }
        )

    def where(self, kept: npt.NDArray[np.bool_]) -> "DenseBars":
        """Only the bars where `kept`, bool [T, S]."""
        values = {name: np.where(kept, held, np.nan) for name, held in self.values.items()}
        return DenseBars(self.slots, self.symbols, values, np.where(kept, self.known, NEVER))

    def panel(self, grid: Grid, inputs: Sequence[str], attributes: Mapping[str, Attribute]) -> Panel:
        """What expressions read, with the bits of `quant.inputs.bar_panel`."""
        columns = {name: self._column(name) for name in inputs if name in self.values or name in RAW}
        if told := [name for name in inputs if name in attributes]:
            at = np.nonzero(self.present)
            for series in attribute_columns(self.frame, grid, attributes, told):
                columns[series.name] = np.full(self.known.shape, np.nan, np.float32)
                columns[series.name][at] = series.to_numpy()
        fields = calendar_fields(grid, self.slots, [name for name in inputs if name in CALENDAR])
        for name, field in fields.items():
            columns[name] = np.ascontiguousarray(np.broadcast_to(field[:, None], self.known.shape))
        return Panel(self.slots, self.symbols, {name: columns[name] for name in inputs if name in columns})

    def _column(self, name: str) -> Floats:
        """One column as float32: prices and volume adjusted in float64 before, `raw_…` as they are."""
        with np.errstate(over="ignore"):  # beyond float32 is infinite: on the same side of every threshold
            if name in RAW:
                return self.values[name.removeprefix("raw_")].astype(np.float32)
            if name in BARS:
                factor = "price_factor" if name in PRICES else "volume_factor"
                return (self.values[name] * self.values[factor]).astype(np.float32)
            return self.values[name].astype(np.float32)
