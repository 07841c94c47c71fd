"""factors: the table that models read, from features passed through and expressions across the section."""

from collections.abc import Iterator, Sequence
from datetime import date

import polars as pl

from assets import names
from assets.derived import Derived
from assets.plan import Plan
from assets.values import to_rows
from assets.window import read, windows, with_elsewhere
from quant.inputs import bar_panel
from quant.known import NEVER, known_panel, of_values
from quant.panel import Panel
from quant.universe import member_rows
from resources.lake import Lake


def rows(plan: Plan, lake: Lake, symbols: Sequence[str], first: date, last: date) -> Iterator[pl.DataFrame]:
    """Factor rows of the sessions first .. last; a section holds only its members, so only they have rows."""
    program = plan.factors
    passed = [name for name in program.inputs if name in plan.feature_entries]
    of_bars = [name for name in program.inputs if name not in plan.feature_entries]
    width = len(symbols) * (len(program.inputs) + len(program.names))
    for chunk in windows(plan, first, last, program.lookback, width):
        features = member_rows(read(lake, "features", plan.horizon.name, chunk.span), plan.members, plan.grid)
        if features.is_empty():
            continue
        panel = Panel.from_frame(features, chunk.slots, symbols, passed)
        if of_bars or program.others:
            # A bar whose feature row was rejected is none here either: it may not move the others of its section.
            bars = read(lake, "bars", plan.horizon.name, chunk.span)
            bars = bars.join(features, on=["symbol", "timestamp"], how="semi")
            panel = panel.joined(bar_panel(bars, plan.grid, chunk.slots, symbols, of_bars, plan.attributes))
            panel = with_elsewhere(plan, lake, program, panel, bars)
        arrived = known_panel(features, chunk.slots, symbols)
        values = program.run(panel, tail=chunk.asked)
        known = of_values(program, arrived, symbols)
        present = arrived[-chunk.asked :] > NEVER
        yield to_rows(plan, chunk.wanted, symbols, values, known[-chunk.asked :], present)


STEP = Derived(
    name="factors",
    about="The model's inputs: features passed through, and ranks and scores across the section.",
    upstream="features",
    check=names.FACTORS_VALID,
    program=lambda plan: plan.factors,
    entries=lambda plan: plan.factor_entries,
    rows=rows,
)
