"""factors: the table that models read, from features passed through and expressions across the section."""

from collections.abc import Iterator, Sequence
from datetime import date

import dagster as dg
import polars as pl

from assets import names
from assets.derived import Derived, materialize_table
from assets.plan import Plan
from assets.values import to_rows
from assets.window import read, windows
from quant.inputs import bar_panel
from quant.known import NEVER, known_panel, of_values
from quant.panel import Panel
from quant.universe import member_rows
from resources.lake import Lake
from resources.progress import Progress
from resources.settings import Settings


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
        if of_bars:
            bars = member_rows(read(lake, "bars", plan.horizon.name, chunk.span), plan.members, plan.grid)
            panel = panel.joined(bar_panel(bars, plan.grid, chunk.slots, symbols, of_bars))
        arrived = known_panel(features, chunk.slots, symbols)
        values = program.run(panel, tail=chunk.asked)
        known = of_values(program, arrived, symbols)
        present = arrived[-chunk.asked :] > NEVER
        yield to_rows(plan, chunk.wanted, symbols, values, known[-chunk.asked :], present)


def build(plan: Plan, parts: dg.TimeWindowPartitionsDefinition) -> dg.AssetsDefinition:
    """The `factors` step of one horizon."""
    horizon = plan.horizon.name
    step = Derived(horizon, "factors", "features", names.FACTORS_VALID)

    @dg.asset(
        **step.spec(plan, parts, plan.factors.lookback, plan.factor_entries),
        kinds={"mlx", "deltalake"},
    )
    def factors(
        context: dg.AssetExecutionContext,
        settings: Settings,
        lake: dg.ResourceParam[Lake],
        progress: dg.ResourceParam[Progress],
    ):
        """The model's inputs: features passed through, and ranks and scores across the section."""
        run = Plan(settings.horizon(horizon))
        return materialize_table(context, run, lake, progress, step, run.factor_entries, rows)

    return factors
