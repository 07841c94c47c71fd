"""features: expressions over one symbol's bars, one row per bar."""

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
from resources.lake import Lake


def rows(plan: Plan, lake: Lake, symbols: Sequence[str], first: date, last: date) -> Iterator[pl.DataFrame]:
    """Feature rows of the sessions first .. last, chunk by chunk; each chunk reads exactly its look-back."""
    program = plan.features
    width = len(symbols) * (len(program.inputs) + len(program.names))
    for chunk in windows(plan, first, last, program.lookback, width):
        bars = read(lake, "bars", plan.horizon.name, chunk.span)
        if bars.is_empty():
            continue
        panel = bar_panel(bars, plan.grid, chunk.slots, symbols, program.inputs, plan.attributes)
        panel = with_elsewhere(plan, lake, program, panel, bars)
        arrived = known_panel(bars, chunk.slots, symbols)
        values = program.run(panel, tail=chunk.asked)
        known = of_values(program, arrived, symbols)[-chunk.asked :]
        yield to_rows(plan, chunk.wanted, symbols, values, known, arrived[-chunk.asked :] > NEVER)


STEP = Derived(
    name="features",
    about="Expressions over one symbol's past; nothing here can look ahead.",
    upstream="bars",
    check=names.FEATURES_VALID,
    program=lambda plan: plan.features,
    entries=lambda plan: plan.feature_entries,
    rows=rows,
)
