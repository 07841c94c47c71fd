"""features: expressions over one symbol's bars, computed in MLX, one row per bar."""

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
from resources.lake import Lake
from resources.progress import Progress
from resources.settings import Settings


def rows(plan: Plan, lake: Lake, symbols: Sequence[str], first: date, last: date) -> Iterator[pl.DataFrame]:
    """Feature rows of the sessions first .. last, chunk by chunk; each chunk reads exactly its look-back."""
    program = plan.features
    width = len(symbols) * (len(program.inputs) + len(program.names))
    for chunk in windows(plan, first, last, program.lookback, width):
        bars = read(lake, "bars", plan.horizon.name, chunk.span)
        if bars.is_empty():
            continue
        panel = bar_panel(bars, plan.grid, chunk.slots, symbols, program.inputs)
        arrived = known_panel(bars, chunk.slots, symbols)
        values = program.run(panel, tail=chunk.asked)
        known = of_values(program, arrived, symbols)[-chunk.asked :]
        yield to_rows(plan, chunk.wanted, symbols, values, known, arrived[-chunk.asked :] > NEVER)


def build(plan: Plan, parts: dg.TimeWindowPartitionsDefinition) -> dg.AssetsDefinition:
    """The `features` step of one horizon."""
    horizon = plan.horizon.name
    step = Derived(horizon, "features", "bars", names.FEATURES_VALID)

    @dg.asset(
        **step.spec(plan, parts, plan.features.lookback, plan.feature_entries),
        kinds={"mlx", "deltalake"},
    )
    def features(
        context: dg.AssetExecutionContext,
        settings: Settings,
        lake: dg.ResourceParam[Lake],
        progress: dg.ResourceParam[Progress],
    ):
        """Expressions over one symbol's past, computed in MLX; nothing here can look ahead."""
        run = Plan(settings.horizon(horizon))
        return materialize_table(context, run, lake, progress, step, run.feature_entries, rows)

    return features
