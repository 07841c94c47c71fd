"""A recipe that goes on slot by slot: from the bars of a section that just closed to its factor rows.

The same steps as `Recipe.rows` over registers instead of a window, so both give the same bits.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from quant.across import with_others
from quant.bounds import outside
from quant.inputs import bar_panel
from quant.panel import Floats, Instants, Panel
from quant.program import Program
from quant.recipe import Recipe, places
from quant.universe import member_rows

BarsOf = Callable[[str, Instants], pl.DataFrame]


@dataclass(frozen=True)
class LiveRows:
    """What some consecutive slots gave. features: float32 [T, S] by name; rows: bool [T, S], where the features table
    has a row; factors: the same by name; members: where the factors table has one, and so the model an input."""

    slots: Instants
    features: dict[str, Floats]
    rows: npt.NDArray[np.bool_]
    factors: dict[str, Floats]
    members: npt.NDArray[np.bool_]

    def matrix(self, at: int) -> tuple[npt.NDArray[np.intp], np.ndarray]:
        """Of slot `at`: the columns of its members, and their factors float32 [N, F], both in the recipe's order."""
        of = np.flatnonzero(self.members[at])
        return of, np.stack([values[at, of] for values in self.factors.values()], axis=1)


class LiveRecipe:
    """The state of a recipe for all its symbols; at first every bar so far is missing. One thread at a time.

    Give it `recipe.lookback` slots and what follows has the bits of `Recipe.rows`.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        make = _Registers if recipe.feature_program.on_cpu else _Window
        self._features = make(recipe.feature_program, recipe.symbols)
        self._factors = make(recipe.factor_program, recipe.symbols)

    def advance(self, slots: Instants, bars: pl.DataFrame, bars_of: BarsOf) -> LiveRows:
        """Go on by consecutive slots of the grid. bars: their rows of the bars table, of the recipe's symbols alone.

        bars_of: gives the bars of another horizon at some of its slots.
        """
        recipe, symbols = self.recipe, self.recipe.symbols
        program = recipe.feature_program
        panel = bar_panel(bars, recipe.grid, slots, symbols, program.inputs, recipe.attributes)
        panel = with_others(panel, program, recipe.others, recipe.grid, bars, bars_of)
        features = self._features.advance(panel)

        rows = _present(bars, slots, symbols) & ~np.asarray(outside(features, recipe.feature_bounds))
        held = member_rows(bars, recipe.membership, recipe.grid)
        if recipe.feature_bounds:
            held = held.filter(pl.Series(rows[places(held, slots, symbols)], dtype=pl.Boolean))
        present = _present(held, slots, symbols)
        program = recipe.factor_program
        of_bars = [name for name in program.inputs if name not in recipe.features]
        panel = bar_panel(held, recipe.grid, slots, symbols, of_bars, recipe.attributes)
        passed = {
            name: np.where(present, features[name], np.float32(np.nan))
            for name in program.inputs
            if name in recipe.features
        }
        panel = Panel(slots, symbols, {**panel.columns, **passed})
        panel = with_others(panel, program, recipe.others, recipe.grid, held, bars_of)
        factors = self._factors.advance(panel)
        members = present & ~np.asarray(outside(factors, recipe.factor_bounds))
        return LiveRows(slots, features, rows, {name: factors[name] for name in recipe.factors}, members)


class _Registers:
    """A program on a CPU: it keeps registers, not bars."""

    def __init__(self, program: Program, symbols: tuple[str, ...]) -> None:
        self._live = program.live(symbols)

    def advance(self, panel: Panel) -> dict[str, Floats]:
        return self._live.advance(panel)


class _Window:
    """A program on another device: it keeps as many slots as it looks back and computes its newest values from them."""

    def __init__(self, program: Program, symbols: tuple[str, ...]) -> None:
        self._program = program
        self._past: Panel | None = None

    def advance(self, panel: Panel) -> dict[str, Floats]:
        asked = len(panel.time)
        if self._past is not None:
            columns = {name: np.concatenate([self._past.columns[name], held]) for name, held in panel.columns.items()}
            panel = Panel(np.concatenate([self._past.time, panel.time]), panel.symbols, columns)
        self._past = panel.between(max(0, len(panel.time) - self._program.lookback), len(panel.time))
        return self._program.run(panel, tail=asked)


def _present(bars: pl.DataFrame, slots: Instants, symbols: tuple[str, ...]) -> npt.NDArray[np.bool_]:
    found = np.zeros((len(slots), len(symbols)), bool)
    found[places(bars, slots, symbols)] = True
    return found
