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
from quant.dense import DenseBars
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

    def advance(self, bars: DenseBars, bars_of: BarsOf) -> LiveRows:
        """Go on by the bars' slots, consecutive ones of the grid; the symbols are the recipe's.

        bars_of: gives the bars of another horizon at some of its slots.
        """
        recipe = self.recipe
        program = recipe.feature_program
        panel = bars.panel(recipe.grid, program.inputs, recipe.attributes)
        features = self._features.advance(self._with_others(panel, program, bars, bars_of))

        rows = bars.present & ~np.asarray(outside(features, recipe.feature_bounds))
        present = rows & self._are_members(bars)
        held = bars if (present == bars.present).all() else bars.where(present)
        program = recipe.factor_program
        passed = {
            name: np.where(present, features[name], np.float32(np.nan))
            for name in program.inputs
            if name in recipe.features
        }
        panel = held.panel(recipe.grid, program.inputs, recipe.attributes)
        panel = Panel(bars.slots, bars.symbols, {**panel.columns, **passed})
        factors = self._factors.advance(self._with_others(panel, program, held, bars_of))
        members = present & ~np.asarray(outside(factors, recipe.factor_bounds))
        return LiveRows(bars.slots, features, rows, {name: factors[name] for name in recipe.factors}, members)

    def _with_others(self, panel: Panel, program: Program, bars: DenseBars, bars_of: BarsOf) -> Panel:
        if not program.others:
            return panel
        return with_others(panel, program, self.recipe.others, self.recipe.grid, bars.frame, bars_of)

    def _are_members(self, bars: DenseBars) -> npt.NDArray[np.bool_]:
        """Where a symbol with a bar is a member on its session."""
        if self.recipe.membership is None:
            return bars.present
        found = np.zeros(bars.present.shape, bool)
        members = member_rows(bars.frame, self.recipe.membership, self.recipe.grid)
        found[places(members, bars.slots, bars.symbols)] = True
        return found


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
