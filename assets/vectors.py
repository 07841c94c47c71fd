"""vectors: each bar's market state as a vector in Postgres, for “when did the market look like this?”"""

from datetime import timedelta

import dagster as dg
import polars as pl

from assets import names, partitions
from assets.plan import Plan
from assets.values import to_rows
from assets.window import read, span, symbols_of, windows
from quant.known import NEVER, known_panel, latest
from quant.panel import Panel
from resources.lake import Lake
from resources.progress import Progress
from resources.settings import Settings
from resources.vectors import ROWS, Vectors

TICK = timedelta(microseconds=1)  # the store's ranges exclude their end


def build(plan: Plan, parts: dg.TimeWindowPartitionsDefinition) -> dg.AssetsDefinition:
    """The `vectors` step of one horizon."""
    horizon = plan.horizon.name
    overlap = partitions.mapping(plan, plan.vectors.lookback)

    @dg.asset(
        key=names.key(horizon, "vectors"),
        deps=[dg.AssetDep(names.key(horizon, "factors"), partition_mapping=overlap)],
        partitions_def=parts,
        backfill_policy=dg.BackfillPolicy.single_run(),
        group_name=names.group(horizon),
        kinds={"mlx", "postgres"},
        metadata={"look-back (bars)": plan.vectors.lookback, "dimensions": len(plan.vector_names)},
    )
    def vectors(
        context: dg.AssetExecutionContext,
        settings: Settings,
        lake: dg.ResourceParam[Lake],
        store: dg.ResourceParam[Vectors],
        progress: dg.ResourceParam[Progress],
    ):
        """Factors against their own past (z-scores, missing as 0, with coverage), searchable by nearness and time."""
        run = Plan(settings.horizon(horizon))
        first, last = partitions.window(run, context.partition_keys)
        symbols, program = symbols_of(lake, horizon), run.vectors
        rows, replaced, restarted = 0, 0, None
        for chunk in windows(run, first, last, program.lookback, 2 * len(symbols) * len(program.names)):
            table = read(lake, "factors", horizon, chunk.span)
            panel = Panel.from_frame(table, chunk.slots, symbols, program.inputs)
            arrived = known_panel(table, chunk.slots, symbols)
            values = program.run(panel, tail=chunk.asked)
            known = latest(arrived, program.lookback)[-chunk.asked :]
            states = to_rows(run, chunk.wanted, symbols, values, known, arrived[-chunk.asked :] > NEVER)
            start, end = span(chunk.wanted)
            stored = store.write(horizon, _vectors(states, program.names), start, end + TICK, columns=run.vector_names)
            rows, replaced = rows + stored.rows, replaced + stored.replaced
            restarted = restarted or stored.restarted
            progress.rows(horizon, "vectors", rows)
        return dg.MaterializeResult(
            metadata={
                "dagster/row_count": rows,
                "replaced": replaced,
                "dimensions": len(run.vector_names),
                "columns": ", ".join(run.vector_names),
                **({"started anew": restarted} if restarted else {}),
            }
        )

    return vectors


def _vectors(states: pl.DataFrame, columns: tuple[str, ...]) -> pl.DataFrame:
    """Rows as the store takes them: missing numbers are 0, and coverage says how many were not."""
    present = pl.sum_horizontal(pl.col(name).is_not_null() for name in columns)
    return states.select(
        "symbol",
        "timestamp",
        "known_at",
        vector=pl.concat_list(pl.col(columns).fill_null(0.0)),
        coverage=(present / len(columns)).cast(pl.Float32),
    ).select(ROWS.keys())
