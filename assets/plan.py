"""What one horizon's config implies: its grid, programs, look-backs and partitions. Nothing here reads data."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import polars as pl

from conf.errors import ConfigError, nearest
from conf.files import home
from conf.origin import place
from conf.schema import Calendar, Horizon
from quant import inputs
from quant.across import Other
from quant.attributes import Attribute
from quant.bounds import bounds_of
from quant.expression import Names, UnknownName
from quant.grid import CalendarSpec, Grid
from quant.labels import Label, label_of
from quant.program import Program
from quant.recipe import Recipe
from quant.sets import Entry, expand
from resources.sources.attributes import read_attributes
from resources.sources.members import read_members

MOST_DIMENSIONS = 64  # of a vector


def declared_in(group: str, choice: str) -> str:
    """The file of a choice, as messages name it."""
    return place(home() / group / f"{choice}.yaml")


def grid_of(calendar: Calendar, interval: str) -> Grid:
    return Grid(CalendarSpec(**calendar.spec()), interval)


@dataclass(frozen=True)
class Plan:
    """A horizon, and all that is derived from its config. Errors of its expressions name the file and the entry."""

    horizon: Horizon

    @cached_property
    def grid(self) -> Grid:
        return grid_of(self.horizon.calendar, self.horizon.interval)

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Columns of the bars, and calendar fields."""
        return inputs.names(getattr(self.horizon.source, "extras", ()))

    @cached_property
    def attributes(self) -> dict[str, Attribute]:
        """What the universe declares of its symbols; ConfigError for one that has the name of a column."""
        declared = read_attributes(self.horizon.universe.attributes)
        for name in declared:
            if name in self.columns:
                raise ConfigError(
                    f"horizon {self.horizon.name}",
                    f"universe.attributes declares {name}, which is a column of the bars",
                    fix="Rename the attribute",
                )
        return declared

    @cached_property
    def bar_names(self) -> tuple[str, ...]:
        """Names that an expression over bars may use."""
        return (*self.columns, *self.attributes)

    @cached_property
    def feature_entries(self) -> dict[str, Entry]:
        return expand(self.horizon.features, file_of=lambda name: declared_in("features", name))

    @cached_property
    def features(self) -> Program:
        """One symbol's past: no section, no look-ahead."""
        program = self._compiled(self.feature_entries, section=False, others=self._other_names)
        if self.horizon.universe.reference is None and str(None) in program.symbols:
            raise ConfigError(
                f"horizon {self.horizon.name}",
                f"a set of {', '.join(self.horizon.features)} compares with universe.reference, which is absent",
                fix="Name the symbol that stands for the market: universe.reference=SPY",
            )
        return program

    @cached_property
    def factor_entries(self) -> dict[str, Entry]:
        names = {"features": list(self.feature_entries)}
        return expand(self.horizon.factors, file_of=lambda name: declared_in("factors", name), names=names)

    @cached_property
    def factors(self) -> Program:
        """Inputs of the model, over bar columns and features; may mix the section."""
        return self._compiled(self.factor_entries, self.feature_entries, others=self._other_names)

    @cached_property
    def others(self) -> dict[str, Other]:
        """The horizons that features and factors read with at("…", x)."""
        return {
            name: Other(
                calendar=grid_of(other.calendar, other.interval).calendar,
                interval=other.interval,
                columns=inputs.names(other.extras),
                features=expand(other.features, file_of=lambda name: declared_in("features", name)),
                attributes=read_attributes(other.attributes),
                derived=other.derived,
            )
            for name, other in (self.horizon.at or {}).items()
        }

    @cached_property
    def _other_names(self) -> dict[str, Names]:
        return {name: other.names for name, other in self.others.items()}

    @cached_property
    def label(self) -> Label:
        """What is predicted; the only thing that may look ahead."""
        label = self.horizon.label
        return label_of(label.model_dump(), self._compiled, declared_in("label", label.name))

    def _compiled(self, entries: Mapping[str, Entry], further: Iterable[str] = (), **how: Any) -> Program:
        """The program of entries over names of bars, and `further` ones; an unknown name is told how to declare it."""
        try:
            return Program.compile(entries, (*self.bar_names, *further), derived=self.horizon.source.derived, **how)
        except UnknownName as error:
            if error.horizon:
                raise
            columns, attributes = ", ".join(self.columns), ", ".join(self.attributes) or "none"
            advice = (
                f"There are the columns {columns}; attributes: {attributes}. A further column of the source is "
                f"declared with source.extras=[{error.name}], one that follows from the others with "
                f"source.derived.{error.name}=<expression>, what is known of a symbol with universe.attributes"
            )
            raise UnknownName(f"{error}\n  {advice}", error.name) from None

    @cached_property
    def vector_names(self) -> tuple[str, ...]:
        """The factors that make a market state."""
        chosen = self.horizon.vectors.columns or sorted(self.factor_entries)[:MOST_DIMENSIONS]
        for name in chosen:
            if name not in self.factor_entries:
                raise ConfigError(
                    f"horizon {self.horizon.name}",
                    f"vectors.columns names {name}, which is no factor",
                    nearest=nearest(name, self.factor_entries),
                )
        return tuple(chosen)

    @cached_property
    def vector_texts(self) -> dict[str, str]:
        """Each of these factors against its own past: a z-score over the last `vectors.window` bars, point in time."""
        window = self.horizon.vectors.window
        return {
            name: f"clip(({name} - mean({name}, {window})) / std({name}, {window}), -5, 5)"
            for name in self.vector_names
        }

    @cached_property
    def market_texts(self) -> dict[str, str]:
        """What the market's state is made of, as `quant.states.of_market` orders it."""
        return {
            f"{what}_{name}": f"{what} over the members of {text}"
            for what in ("mean", "spread")
            for name, text in self.vector_texts.items()
        }

    @cached_property
    def vectors(self) -> Program:
        """The numbers of a state, `<factor>_state` each."""
        texts = {f"{name}_state": text for name, text in self.vector_texts.items()}
        return Program.compile(texts, self.vector_names)

    @cached_property
    def members(self) -> pl.DataFrame | None:
        """Declared membership by date (symbol, start, end), or None where every symbol is always a member."""
        path = self.horizon.universe.members
        return read_members(path) if path else None

    @property
    def finer(self) -> str | None:
        """The horizon whose bars are resampled, or None where bars come from a source."""
        return None if self.horizon.bars.from_ == "source" else self.horizon.bars.from_

    @property
    def reads(self) -> tuple[str, ...]:
        """The horizons whose bars it reads."""
        return (*((self.finer,) if self.finer else ()), *(self.horizon.at or ()))

    def recipe(self, symbols: tuple[str, ...], members: pl.DataFrame | None) -> Recipe:
        """All that is needed to go from bars to factor rows without this config."""
        return Recipe(
            calendar=self.grid.calendar,
            interval=self.horizon.interval,
            symbols=symbols,
            columns=self.columns,
            features=_texts(self.feature_entries),
            factors=_texts(self.factor_entries),
            members=None if members is None else tuple(members.select("symbol", "start", "end").iter_rows()),
            feature_bounds=bounds_of(self.feature_entries),
            factor_bounds=bounds_of(self.factor_entries),
            attributes={name: held.only(symbols) for name, held in self.attributes_read.items()},
            others={name: other.of_symbols(symbols) for name, other in self.others.items()},
            derived=self.horizon.source.derived,
        )

    @cached_property
    def attributes_read(self) -> dict[str, Attribute]:
        """The attributes that features or factors read."""
        read = {*self.features.inputs, *self.factors.inputs}
        return {name: held for name, held in self.attributes.items() if name in read}


def _texts(entries: Mapping[str, Entry]) -> dict[str, str]:
    return {name: entry.text for name, entry in entries.items()}
