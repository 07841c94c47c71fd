"""From bars to factor rows: what a bundle carries, so that serving cannot differ from the pipeline."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl

from quant.grid import CalendarSpec, Grid
from quant.inputs import bar_panel
from quant.panel import Panel
from quant.program import Program
from quant.universe import member_rows, session_of


class RecipeError(ValueError):
    """Bars that cannot give the factor rows asked for; the message says what is missing."""


@dataclass(frozen=True)
class Recipe:
    """Grid, symbols and expressions of one horizon: everything between bars and the model's rows."""

    calendar: CalendarSpec
    interval: str
    symbols: tuple[str, ...]  # the section's order; sums over a section depend on it
    columns: tuple[str, ...]  # names that expressions over bars may use
    features: Mapping[str, str]  # name -> expression over columns
    factors: Mapping[str, str]  # name -> expression over columns and features, in the model's order
    members: tuple[tuple[str, date, date | None], ...] | None = None  # symbol, first and last day; None: always all

    @cached_property
    def grid(self) -> Grid:
        return Grid(self.calendar, self.interval)

    @cached_property
    def feature_program(self) -> Program:
        return Program.compile(self.features, self.columns, section=False)

    @cached_property
    def factor_program(self) -> Program:
        return Program.compile(self.factors, (*self.columns, *self.features))

    @property
    def lookback(self) -> int:
        """Slots before a row's own that its factors read."""
        return self.feature_program.lookback + self.factor_program.lookback

    @property
    def crosses(self) -> bool:
        """Whether factors read other symbols: then a section must be whole."""
        return self.factor_program.crosses

    @property
    def named(self) -> frozenset[str]:
        """Symbols that expressions read by name: every panel needs them."""
        return frozenset((*self.feature_program.symbols, *self.factor_program.symbols))

    def rows(
        self, bars: pl.DataFrame, last: int | None = None, absent: Collection[str] = ()
    ) -> tuple[pl.DataFrame, np.ndarray]:
        """Factor rows of the newest `last` slots that have bars, all slots with a full look-back if None.

        bars: valid rows of the bars table, on the grid; reaching the look-back of every slot asked for.
        absent: symbols known to have no bar here. Returns the keys (symbol, timestamp), sorted by (timestamp,
        symbol), one row per member with a bar, and X float32 [rows, factors]. Raises RecipeError otherwise.
        """
        slots, asked = self._slots(bars, last)
        symbols = self._section(bars, absent)
        near = slots[-asked - self.factor_program.lookback :]
        panel = bar_panel(bars, self.grid, slots, symbols, self.feature_program.inputs)
        values = self.feature_program.run(panel, tail=len(near))

        # Factors find a feature where its table has a row and its symbol was a member: elsewhere it is NaN.
        members = member_rows(bars.filter(pl.col("timestamp") >= _aware(near[0])), self._membership, self.grid)
        present = _present(members, near, symbols)
        of_bars = [name for name in self.factor_program.inputs if name not in self.features]
        inputs = bar_panel(members, self.grid, near, symbols, of_bars)
        held = {
            name: np.where(present, values[name], np.float32(np.nan))
            for name in self.factor_program.inputs
            if name in self.features
        }
        factors = self.factor_program.run(Panel(near, symbols, {**inputs.columns, **held}), tail=asked)
        at, of = np.nonzero(present[-asked:])
        keys = pl.DataFrame(
            {
                "symbol": pl.Series([symbols[column] for column in of.tolist()], dtype=pl.String),
                "timestamp": pl.Series(slots[-asked:][at]).dt.replace_time_zone("UTC"),
            }
        )
        return keys, np.stack([factors[name][at, of] for name in self.factors], axis=1)

    def to_dict(self) -> dict[str, Any]:
        """The recipe as JSON values."""
        return asdict(self) | {
            "members": self.members and [[symbol, str(a), b and str(b)] for symbol, a, b in self.members]
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Recipe":
        """Read what `to_dict` gave, also after JSON."""
        members = values["members"]
        return cls(
            calendar=CalendarSpec(**{name: _tuples(value) for name, value in values["calendar"].items()}),
            interval=values["interval"],
            symbols=tuple(values["symbols"]),
            columns=tuple(values["columns"]),
            features=dict(values["features"]),
            factors=dict(values["factors"]),
            members=members and tuple((s, date.fromisoformat(a), b and date.fromisoformat(b)) for s, a, b in members),
        )

    @cached_property
    def _membership(self) -> pl.DataFrame | None:
        if self.members is None:
            return None
        schema = {"symbol": pl.String, "start": pl.Date, "end": pl.Date}
        return pl.DataFrame(self.members, schema=schema, orient="row")

    def _slots(self, bars: pl.DataFrame, last: int | None) -> tuple[np.ndarray, int]:
        """The grid's slots from the first bar to the last one, and how many at their end are asked for."""
        if bars.is_empty():
            raise RecipeError("there are no bars to predict from")
        stamps = bars["timestamp"].dt.replace_time_zone(None).unique().sort().to_numpy()
        first, end = self.grid.session_dates(stamps[[0, -1]]).tolist()
        slots = self.grid.slots(first, end)
        slots = slots[(slots >= stamps[0]) & (slots <= stamps[-1])]
        asked = len(slots) - self.lookback if last is None else last
        if asked < 1 or asked + self.lookback > len(slots):
            wanted = "1 slot" if last is None else f"{last} slots"
            raise RecipeError(
                f"the bars cover {len(slots)} slots from {stamps[0]} to {stamps[-1]}; predicting {wanted} "
                f"needs {self.lookback} slots of look-back before: send {self.lookback + (last or 1)} or more"
            )
        return slots, asked

    def _section(self, bars: pl.DataFrame, absent: Collection[str]) -> tuple[str, ...]:
        """Symbols of the panel: all of the universe where factors cross it, else those sent and those read by name."""
        sent = set(bars["symbol"])
        if foreign := sorted(self.named - set(self.symbols)):
            raise RecipeError(f"expressions read {_some(foreign)} with of(…), which the universe of this model lacks")
        if unknown := sorted((sent | set(absent)) - set(self.symbols)):
            raise RecipeError(f"not in the universe of this model: {_some(unknown)}")
        if unsent := sorted(self.named - sent - set(absent)):
            raise RecipeError(f"factors read {_some(unsent)} by name: send its bars too, or name it as absent")
        if not self.crosses:
            return tuple(symbol for symbol in self.symbols if symbol in sent | self.named)
        if missing := sorted(self._members_in(bars) - sent - set(absent)):
            raise RecipeError(
                f"factors compare the symbols of a section, and bars of {len(missing)} of its members are "
                f"missing: {_some(missing)}; send them, or name those without a bar as absent"
            )
        return self.symbols

    def _members_in(self, bars: pl.DataFrame) -> set[str]:
        """Symbols that were members on a day of the bars' span."""
        if self._membership is None:
            return set(self.symbols)
        days = session_of(bars["timestamp"], self.grid)
        active = self._membership.filter(
            pl.col("start") <= days.max(), pl.col("end").is_null() | (pl.col("end") >= days.min())
        )
        return set(active["symbol"]) & set(self.symbols)


def _present(bars: pl.DataFrame, slots: np.ndarray, symbols: Sequence[str]) -> np.ndarray:
    """Where there is a bar, bool [slots, symbols]."""
    present = np.zeros((len(slots), len(symbols)), bool)
    place = {symbol: index for index, symbol in enumerate(symbols)}
    columns = bars["symbol"].replace_strict(place, return_dtype=pl.Int64).to_numpy()
    present[np.searchsorted(slots, bars["timestamp"].dt.replace_time_zone(None).to_numpy()), columns] = True
    return present


def _aware(slot: np.datetime64) -> datetime:
    return slot.astype("datetime64[us]").item().replace(tzinfo=UTC)


def _tuples(value: Any) -> Any:
    """JSON's lists as the tuples they were."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _some(names: Sequence[str], most: int = 10) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
