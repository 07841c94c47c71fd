"""From bars to factor rows: what a bundle carries, so that serving cannot differ from the pipeline."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import date
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np
import polars as pl

from quant.across import Other, needed, reach, with_others
from quant.attributes import Attribute
from quant.bounds import Bounds, outside
from quant.expression import Names
from quant.grid import CalendarSpec, Grid
from quant.inputs import bar_panel
from quant.panel import Instants, Panel, instants, moment
from quant.program import Program
from quant.universe import member_rows, session_of

NO_BARS: Mapping[str, pl.DataFrame] = MappingProxyType({})


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
    attributes: Mapping[str, Attribute] = field(default_factory=dict)  # of symbols: names that expressions may use too
    others: Mapping[str, Other] = field(default_factory=dict)  # horizons that at("…", x) may read
    feature_bounds: Bounds = field(default_factory=dict)  # a row with a feature or a factor outside is no row
    factor_bounds: Bounds = field(default_factory=dict)
    derived: Mapping[str, str] = field(default_factory=dict)  # names that stand for expressions over columns

    @cached_property
    def grid(self) -> Grid:
        return Grid(self.calendar, self.interval)

    @cached_property
    def feature_program(self) -> Program:
        return Program.compile(
            self.features,
            (*self.columns, *self.attributes),
            section=False,
            others=self._names,
            derived=self.derived,
        )

    @cached_property
    def factor_program(self) -> Program:
        return Program.compile(
            self.factors,
            (*self.columns, *self.attributes, *self.features),
            others=self._names,
            derived=self.derived,
        )

    @cached_property
    def _names(self) -> dict[str, Names]:
        return {horizon: other.names for horizon, other in self.others.items()}

    @cached_property
    def reach(self) -> dict[str, int]:
        """For each other horizon in `reads`, slots of its grid before the newest that had ended at a bar."""
        return reach([*self.feature_program.outputs.values(), *self.factor_program.outputs.values()])

    @property
    def reads(self) -> tuple[str, ...]:
        """The other horizons whose bars are needed too."""
        return tuple(self.reach)

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
        self,
        bars: pl.DataFrame,
        last: int | None = None,
        absent: Collection[str] = (),
        others: Mapping[str, pl.DataFrame] = NO_BARS,
    ) -> tuple[pl.DataFrame, np.ndarray]:
        """Factor rows of the newest `last` slots that have bars, all slots with a full look-back if None.

        bars: valid rows of the bars table, on the grid; reaching the look-back of every slot asked for.
        absent: symbols known to have no bar here. others: bars of each horizon in `reads`, all there are of those that
        `enough` asks for. Returns the keys (symbol, timestamp), sorted by (timestamp, symbol), one row per member with
        a bar and all values within their bounds, and X float32 [rows, factors]. Raises RecipeError otherwise.
        """
        if unsent := [horizon for horizon in self.reads if horizon not in others]:
            raise RecipeError(f"factors read the bars of horizon {_some(unsent)} too: send them")
        slots, asked = self._slots(bars, last)
        symbols = self._section(bars, absent)
        near = slots[-asked - self.factor_program.lookback :]
        panel = bar_panel(bars, self.grid, slots, symbols, self.feature_program.inputs, self.attributes)
        panel = with_others(panel, self.feature_program, self.others, self.grid, bars, lambda name, _: others[name])
        values = self.feature_program.run(panel, tail=len(near))

        # Factors find a feature where its table has a row and its symbol was a member: elsewhere it is NaN.
        members = member_rows(bars.filter(pl.col("timestamp") >= moment(near[0])), self.membership, self.grid)
        if self.feature_bounds:  # … and its row was not rejected
            rejected = np.asarray(outside(values, self.feature_bounds))
            members = members.filter(~pl.Series(rejected[places(members, near, symbols)]))
        present = np.zeros((len(near), len(symbols)), bool)
        present[places(members, near, symbols)] = True
        of_bars = [name for name in self.factor_program.inputs if name not in self.features]
        inputs = bar_panel(members, self.grid, near, symbols, of_bars, self.attributes)
        held = {
            name: np.where(present, values[name], np.float32(np.nan))
            for name in self.factor_program.inputs
            if name in self.features
        }
        panel = Panel(near, symbols, {**inputs.columns, **held})
        panel = with_others(panel, self.factor_program, self.others, self.grid, members, lambda name, _: others[name])
        factors = self.factor_program.run(panel, tail=asked)
        at, of = np.nonzero(present[-asked:] & ~outside(factors, self.factor_bounds))
        keys = pl.DataFrame(
            {
                "symbol": pl.Series([symbols[column] for column in of.tolist()], dtype=pl.String),
                "timestamp": pl.Series(slots[-asked:][at]).dt.replace_time_zone("UTC"),
            }
        )
        return keys, np.stack([factors[name][at, of] for name in self.factors], axis=1)

    def needs(self, bars: pl.DataFrame, last: int | None = None) -> dict[str, Instants]:
        """The slots of each other horizon that predicting the newest `last` slots of bars depends on."""
        slots, asked = self._slots(bars, last)
        found: dict[str, Instants] = {}
        for program, back in (
            (self.factor_program, self.factor_program.lookback),
            (self.feature_program, self.lookback),
        ):
            ends = self.grid.ends(slots[-asked - back :])
            for horizon, part in program.others.items():
                theirs = needed(part, self.others[horizon].grid, ends)
                found[horizon] = max(theirs, found.get(horizon, theirs), key=len)
        return found

    def enough(
        self, bars: pl.DataFrame, others: Mapping[str, pl.DataFrame], last: int | None, absent: Collection[str]
    ) -> None:
        """Raise RecipeError unless the other horizons' bars reach from the first to the newest slot they must."""
        for horizon, slots in self.needs(bars, last).items():
            span = f"from {slots[0]} to {slots[-1]}"
            if horizon not in others or others[horizon].is_empty():
                raise RecipeError(f"factors read the bars of horizon {horizon} too: send them, {span}")
            stamps = instants(others[horizon]["timestamp"])
            if stamps.min() > slots[0] or slots[-1] not in stamps:
                raise RecipeError(
                    f"factors read the bars of horizon {horizon} {span}, the newest that had closed; those sent are "
                    f"{len(np.unique(stamps))} slots from {stamps.min()} to {stamps.max()}"
                )
            sent = set(others[horizon]["symbol"])
            if lacking := sorted(set(bars["symbol"]) - sent - set(absent)):
                raise RecipeError(
                    f"bars of horizon {horizon} are missing for {_some(lacking)}; send them, or name those without a "
                    "bar as absent"
                )

    def to_dict(self) -> dict[str, Any]:
        """The recipe as JSON values."""
        return asdict(replace(self, attributes={}, others={})) | {
            "members": self.members and [[symbol, str(a), b and str(b)] for symbol, a, b in self.members],
            "attributes": {name: attribute.to_dict() for name, attribute in self.attributes.items()},
            "others": {
                name: asdict(replace(other, attributes={}))
                | {"attributes": {name: attribute.to_dict() for name, attribute in other.attributes.items()}}
                for name, other in self.others.items()
            },
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Recipe":
        """Read what `to_dict` gave, also after JSON."""
        members = values["members"]
        return cls(
            calendar=calendar_of(values["calendar"]),
            interval=values["interval"],
            symbols=tuple(values["symbols"]),
            columns=tuple(values["columns"]),
            features=dict(values["features"]),
            factors=dict(values["factors"]),
            members=members and tuple((s, date.fromisoformat(a), b and date.fromisoformat(b)) for s, a, b in members),
            attributes={name: Attribute.from_dict(found) for name, found in values.get("attributes", {}).items()},
            others={
                name: Other(
                    calendar_of(found["calendar"]),
                    found["interval"],
                    tuple(found["columns"]),
                    found["features"],
                    {name: Attribute.from_dict(held) for name, held in found["attributes"].items()},
                    found.get("derived", {}),
                )
                for name, found in values.get("others", {}).items()
            },
            feature_bounds=_pairs(values.get("feature_bounds", {})),
            factor_bounds=_pairs(values.get("factor_bounds", {})),
            derived=values.get("derived", {}),
        )

    @cached_property
    def membership(self) -> pl.DataFrame | None:
        """symbol, first and last day as members; None where every symbol always is one."""
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
        if self.membership is None:
            return set(self.symbols)
        days = session_of(bars["timestamp"], self.grid)
        active = self.membership.filter(
            pl.col("start") <= days.max(), pl.col("end").is_null() | (pl.col("end") >= days.min())
        )
        return set(active["symbol"]) & set(self.symbols)


def places(bars: pl.DataFrame, slots: np.ndarray, symbols: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Each bar's row and column in a panel [slots, symbols]."""
    place = {symbol: index for index, symbol in enumerate(symbols)}
    columns = bars["symbol"].replace_strict(place, return_dtype=pl.Int64).to_numpy()
    return np.searchsorted(slots, bars["timestamp"].dt.replace_time_zone(None).to_numpy()), columns


def calendar_of(values: Mapping[str, Any]) -> CalendarSpec:
    """A calendar's definition from JSON values."""
    return CalendarSpec(**{name: _tuples(value) for name, value in values.items()})


def _tuples(value: Any) -> Any:
    """JSON's lists as the tuples they were."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _pairs(bounds: Mapping[str, Sequence[float | None]]) -> Bounds:
    return {name: (low, high) for name, (low, high) in bounds.items()}


def _some(names: Sequence[str], most: int = 10) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
