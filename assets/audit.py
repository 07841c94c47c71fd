"""What `tenor verify` reads: a bounded, stated sample of a horizon's bars, computed again in every way there is."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import cached_property

import numpy as np
import polars as pl

from assets import factors, features, names
from assets.plan import Plan
from assets.rejects import Screen
from assets.window import read, span, window, windows, with_elsewhere
from conf.errors import ConfigError
from quant.audit_columns import Columns
from quant.audit_laws import Subject
from quant.inputs import BARS, CALENDAR, bar_panel
from quant.inputs import names as names_of_bars
from quant.panel import Panel, instants
from quant.program import Program
from quant.recipe import Recipe
from quant.universe import member_rows
from resources.lake import Lake

# Bounds of the sample, so that an audit takes seconds to a couple of minutes whatever the lake holds.
LAW_SYMBOLS = 12  # that the laws are tried on, and those that expressions read by name
LAW_SLOTS = 400
LAW_CELLS = 4_000_000  # slots x symbols x columns that a law computes
TABLE_SESSIONS = 10  # of a stretch whose table rows are computed again
TABLE_CELLS = 4_000_000
SCALE_SLOTS = 60  # computed again from doubled prices
TAILS = 3  # newest bars of sections computed as serving does
COLUMN_CELLS = 16_000_000  # rows x columns that are held against the label
COLUMN_ROWS = 250_000


@dataclass(frozen=True)
class Audit:
    """The sample of one horizon. Raises ConfigError where its bars do not reach beyond its look-back."""

    plan: Plan
    lake: Lake

    def __post_init__(self) -> None:
        held = self._bars.collect_schema()
        wanted = {*self.plan.features.inputs, *self.plan.factors.inputs, *self.plan.label.inputs}
        extras = wanted.intersection(self.plan.columns).difference(names_of_bars())
        if lacking := sorted(extras.difference(held)):
            raise ConfigError(
                f"horizon {self.horizon}",
                f"the bars in the store were written without the column {lacking[0]}, which the sets read",
                fix="Materialize the bars again, with that column among source.extras",
            )

    @property
    def horizon(self) -> str:
        return self.plan.horizon.name

    @cached_property
    def symbols(self) -> tuple[str, ...]:
        """Every symbol with a bar, in the section's order."""
        return tuple(self._bars.select(pl.col("symbol").unique().sort()).collect()["symbol"])

    @cached_property
    def stamps(self) -> np.ndarray:
        """Every slot with a bar, in order: datetime64[us]."""
        return instants(self._bars.select(pl.col("timestamp").unique().sort()).collect()["timestamp"])

    @cached_property
    def recipe(self) -> Recipe:
        """From bars to factor rows, as a bundle would carry it to the service."""
        return self.plan.recipe(self.symbols, self.plan.members)

    @cached_property
    def sessions(self) -> list[date]:
        """Sessions whose every slot has a full look-back of slots behind it."""
        first, last = self.plan.grid.session_dates(self.stamps[[0, -1]]).tolist()
        slots = self.plan.grid.slots(first, last)
        start = int(np.searchsorted(slots, self.stamps[0])) + self.recipe.lookback
        if start < len(slots):
            day, before = self.plan.grid.session_dates(slots[[start, max(0, start - 1)]]).tolist()
            found = self.plan.grid.dates(day, last).tolist()
            found = found[1:] if day == before and start else found
            if found:
                return found
        raise ConfigError(
            f"horizon {self.horizon}",
            f"its bars cover {len(slots):,} slots, and its factors look back {self.recipe.lookback}: not one session "
            "can be verified",
            fix="Bring more bars, or shorten the windows of the sets",
        )

    @cached_property
    def stretches(self) -> list[tuple[date, date]]:
        """First and last session of the stretches of tables that are computed again: oldest, middle and newest."""
        fit = min(TABLE_SESSIONS, TABLE_CELLS // (self._width * self._slots_per_session), len(self.sessions) // 3)
        size = max(1, fit)  # a third of the sessions at most: no two stretches share one
        middle = (len(self.sessions) - size) // 2
        runs = [self.sessions[:size], self.sessions[middle : middle + size], self.sessions[-size:]]
        return sorted({(run[0], run[-1]) for run in runs})

    def subjects(self) -> tuple[Subject, Subject]:
        """Features and factors, each on a panel of the newest bars."""
        return self._features(), self._factors()

    def stored(self, step: str, first: date, last: date) -> pl.DataFrame:
        """Rows of a step's table in the sessions first .. last."""
        return read(self.lake, step, self.horizon, span(self.plan.grid.slots(first, last)))

    def features_again(self, first: date, last: date) -> pl.DataFrame:
        """Feature rows as the `features` step makes them from the present bars, less those that it rejects."""
        screen = Screen(self.horizon, "features", self.plan.feature_entries)
        made = features.rows(self.plan, self.lake, self.symbols, first, last)
        return pl.concat(screen.passed(frame) for frame in made)

    def factors_of_table(self, first: date, last: date) -> pl.DataFrame:
        """Factor rows as the `factors` step makes them from the present features table, less those that it rejects."""
        screen = Screen(self.horizon, "factors", self.plan.factor_entries)
        made = factors.rows(self.plan, self.lake, self.symbols, first, last)
        return pl.concat(screen.passed(frame) for frame in made)

    def factors_again(self, first: date, last: date) -> pl.DataFrame:
        """Factor rows as serving makes them from the present bars: (timestamp, symbol, factors)."""
        return pl.concat(self._recomputed(first, last))

    def newest_one_by_one(self) -> tuple[pl.DataFrame, pl.DataFrame]:
        """The newest sections each computed as the last bar, from bars that end with it; and the same in one go."""
        stops = self.stamps[-TAILS:]
        ones = pl.concat(self._rows(stop, 1) for stop in stops)
        slots = self.plan.grid.slots(*self.plan.grid.session_dates(stops[[0, -1]]).tolist())
        asked = int(((slots >= stops[0]) & (slots <= stops[-1])).sum())
        whole = self._rows(stops[-1], asked)
        return ones, whole.filter(pl.col("timestamp").is_in(ones["timestamp"].unique().implode()))

    def doubled(self) -> tuple[pl.DataFrame, dict[str, pl.DataFrame]]:
        """Factor rows of the newest bars as they are, and as they would be with every price or volume twice as high.

        A further column of the source is a price where it mostly lies within half and twice the close.
        """
        asked = min(SCALE_SLOTS, int((self._all_slots >= self.plan.grid.slots(*[self.sessions[0]] * 2)[0]).sum()))
        extras = [name for name in self.plan.columns if name in self._bars.collect_schema() and name not in BARS]
        of_close = self._bars.select(
            pl.len(), *((pl.col(name) / pl.col("close")).median() for name in extras)
        ).collect()
        prices = [*BARS[:4], *(name for name in extras if 0.5 < (of_close[name].item() or 0.0) < 2)]
        twice = {"price": prices, "volume": BARS[4:]}
        stop = self.stamps[-1]
        made = {what: self._rows(stop, asked, pl.col(list(names)) * 2) for what, names in twice.items()}
        return self._rows(stop, asked), made

    def columns(self) -> Columns:
        """The newest factor rows, computed from bars, beside their label and the label that has just become known."""
        rows = min(COLUMN_ROWS, COLUMN_CELLS // len(self.recipe.factors))
        chosen = self.sessions[-max(1, rows // (len(self.symbols) * self._slots_per_session)) :]
        frame = self.factors_again(chosen[0], chosen[-1])
        frame = frame.join(self._outcomes(chosen), on=["timestamp", "symbol"], how="inner")
        described = self.plan.factors.describe().select("name", "inputs").rows()
        of_features = dict(self.plan.features.describe().select("name", "inputs").iter_rows())
        reads = {
            name: {read for column in inputs for read in of_features.get(column, [column])}
            for name, inputs in described
        }
        extras = set(getattr(self.plan.horizon.source, "extras", ()))
        return Columns(
            frame.rename({"timestamp": "time"}).sort("time", "symbol"),
            tuple(self.recipe.factors),
            self.plan.label.lookahead,
            frozenset(name for name, columns in reads.items() if columns <= set(CALENDAR)),
            {name: self._declared(name) for name in self.recipe.factors},
            frozenset(name for name, columns in reads.items() if columns & extras),
        )

    # -- panels of the laws ------------------------------------------------------------------------------------

    def _features(self) -> Subject:
        program = self.plan.features
        slots = self._newest_slots(program.lookback, len(self._few) * len(program.names))
        return self._subject("features", program, self._panel(program, slots, program.inputs, self._bars_in(slots)))

    def _factors(self) -> Subject:
        program, of = self.plan.factors, self.plan.features
        width = len(self._few) * (len(program.names) + len(of.names))
        slots = self._newest_slots(of.lookback + program.lookback, width)
        near = slots[of.lookback :]
        bars = self._bars_in(slots)
        values = of.run(self._panel(of, slots, of.inputs, bars), tail=len(near))
        members = member_rows(self._bars_in(near), self.plan.members, self.plan.grid)
        absent = np.isnan(bar_panel(members, self.plan.grid, near, self._few, ["close"]).columns["close"])
        held = {name: values[name] for name in program.inputs if name in values}
        for array in held.values():
            array[absent] = np.nan
        panel = self._panel(program, near, [name for name in program.inputs if name not in held], members)
        return self._subject("factors", program, panel.joined(Panel(near, self._few, held)))

    def _subject(self, title: str, program: Program, panel: Panel) -> Subject:
        entries = {**self.plan.feature_entries, **self.plan.factor_entries}
        return Subject(title, program, panel, {name: entries[name].file for name in program.names})

    def _newest_slots(self, lookback: int, width: int) -> np.ndarray:
        """The newest slots up to the last bar: a look-back, and as many after it as the bounds allow."""
        day = self.plan.grid.session_dates(self.stamps[[-1]]).tolist()[0]
        wanted = max(32, min(LAW_SLOTS, LAW_CELLS // max(1, width)))
        found = window(self.plan, day, day, lookback + wanted).slots
        found = found[(found <= self.stamps[-1]) & (found >= self.stamps[0])]
        return found[-lookback - wanted :]

    def _bars_in(self, slots: np.ndarray) -> pl.DataFrame:
        """Bars of the few symbols that laws are tried on."""
        return read(self.lake, "bars", self.horizon, span(slots)).filter(pl.col("symbol").is_in(self._few))

    def _panel(self, program: Program, slots: np.ndarray, inputs: Sequence[str], bars: pl.DataFrame) -> Panel:
        """The panel [slots, few] of `inputs`, and of what the program reads of other horizons."""
        panel = bar_panel(bars, self.plan.grid, slots, self._few, inputs, self.plan.attributes)
        return with_elsewhere(self.plan, self.lake, program, panel, bars)

    # -- factor rows from bars ---------------------------------------------------------------------------------

    def _recomputed(self, first: date, last: date) -> Iterator[pl.DataFrame]:
        """Factor rows of the sessions first .. last through the recipe, chunk by chunk."""
        for chunk in windows(self.plan, first, last, self.recipe.lookback, self._width):
            held = self.stamps[(self.stamps >= chunk.wanted[0]) & (self.stamps <= chunk.wanted[-1])]
            if len(held):
                asked = int((chunk.wanted <= held[-1]).sum())
                yield self._rows(held[-1], asked)

    def _rows(self, stop: np.datetime64, asked: int, *changed: pl.Expr) -> pl.DataFrame:
        """Factor rows of the `asked` slots that end at `stop`, a slot with a bar, from bars that end there too.

        changed: what stands in the place of columns of the bars.
        """
        upto = self._all_slots[: int(np.searchsorted(self._all_slots, stop, side="right"))]
        start = upto[max(0, len(upto) - self.recipe.lookback - asked)]
        # The recipe counts slots from the first bar that it is given: begin at one.
        start = self.stamps[max(0, int(np.searchsorted(self.stamps, start, side="right")) - 1)]
        bars = read(self.lake, "bars", self.horizon, (_aware(start), _aware(stop))).with_columns(*changed)
        absent = sorted(set(self.symbols) - set(bars["symbol"]))
        others = {
            horizon: read(self.lake, "bars", horizon, span(slots)).with_columns(*changed)
            for horizon, slots in self.recipe.needs(bars, asked).items()
        }
        keys, values = self.recipe.rows(bars, asked, absent, others)
        made = {name: pl.Series(values[:, place], dtype=pl.Float32) for place, name in enumerate(self.recipe.factors)}
        return keys.with_columns(pl.col("timestamp").dt.cast_time_unit("us"), **made).with_columns(
            pl.col(list(made)).fill_nan(None)
        )

    def _outcomes(self, sessions: Sequence[date]) -> pl.DataFrame:
        """(timestamp, symbol, label, past) of some sessions; past: the label of `lookahead` slots before."""
        ahead, program = self.plan.label.lookahead, self.plan.label
        slots = self._all_slots
        first, last = np.searchsorted(slots, self.plan.grid.slots(sessions[0], sessions[-1])[[0, -1]]).tolist()
        low = max(0, first - ahead - program.lookback)
        slots = slots[low : last + 1 + ahead]
        bars = read(self.lake, "bars", self.horizon, span(slots))
        panel = bar_panel(bars, self.plan.grid, slots, self.symbols, program.inputs, self.plan.attributes)
        label = program.run(panel).value.astype(np.float32)
        past = np.full_like(label, np.nan)
        past[ahead:] = label[: len(label) - ahead]
        stamps = pl.Series(np.repeat(slots, len(self.symbols))).cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
        return pl.DataFrame(
            {
                "timestamp": stamps,
                "symbol": pl.Series(list(self.symbols) * len(slots), dtype=pl.String),
                "label": pl.Series(label.ravel(), nan_to_null=True),
                "past": pl.Series(past.ravel(), nan_to_null=True),
            }
        )

    # -- bounds ------------------------------------------------------------------------------------------------

    @property
    def _bars(self) -> pl.LazyFrame:
        return self.lake.scan(names.table("bars", self.horizon))

    @cached_property
    def _all_sessions(self) -> list[date]:
        return self.plan.grid.dates(*self.plan.grid.session_dates(self.stamps[[0, -1]]).tolist()).tolist()

    @cached_property
    def _all_slots(self) -> np.ndarray:
        """The grid from the first bar to the last."""
        slots = self.plan.grid.slots(self._all_sessions[0], self._all_sessions[-1])
        return slots[(slots >= self.stamps[0]) & (slots <= self.stamps[-1])]

    @property
    def _few(self) -> tuple[str, ...]:
        """At most LAW_SYMBOLS symbols, spread over the alphabet, and those that expressions read by name.

        A smaller section is a section too: laws hold for it.
        """
        chosen = set(self.symbols[:: -(-len(self.symbols) // LAW_SYMBOLS)]) | (self.recipe.named & set(self.symbols))
        return tuple(symbol for symbol in self.symbols if symbol in chosen)

    @property
    def _width(self) -> int:
        """Cells per slot of all that is computed between bars and factors."""
        return len(self.symbols) * (len(self.recipe.features) + len(self.recipe.factors))

    @property
    def _slots_per_session(self) -> int:
        return max(1, len(self._all_slots) // len(self._all_sessions))

    def _declared(self, name: str) -> str:
        """Where a factor comes from: its file and expression, and those of the feature that it passes through."""
        entry = self.plan.factor_entries[name]
        if entry.text in self.plan.feature_entries:
            entry = self.plan.feature_entries[entry.text]
        return f"{entry.file}: {entry.text}"


def _aware(slot: np.datetime64) -> datetime:
    return slot.astype("datetime64[us]").item().replace(tzinfo=UTC)
