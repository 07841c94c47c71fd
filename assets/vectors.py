"""vectors: each bar's market state as a vector in Postgres, for “when did the market look like this?”"""

import dagster as dg

from assets import names, partitions
from assets.plan import Plan
from assets.window import read, symbols_of, windows
from quant import states
from quant.known import NEVER, known_panel, latest
from quant.panel import Panel
from resources.lake import Lake
from resources.progress import Progress
from resources.settings import Settings
from resources.vectors import Vectors, market_of


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
        pool=names.tables_pool(horizon),
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
        """Factors against their own past (z-scores, missing as 0, with coverage), of each symbol and of the market.

        Searchable by nearness and time. Sessions whose states are as they were stay untouched.
        """
        run = Plan(settings.horizon(horizon))
        first, last = partitions.window(run, context.partition_keys)
        symbols, program = symbols_of(lake, horizon), run.vectors
        tables = {horizon: run.vector_texts, market_of(horizon): run.market_texts}
        rows, written, replaced, sessions, restarted = 0, 0, 0, 0, None
        for chunk in windows(run, first, last, program.lookback, 2 * len(symbols) * len(program.names)):
            table = read(lake, "factors", horizon, chunk.span)
            panel = Panel.from_frame(table, chunk.slots, symbols, program.inputs)
            arrived = known_panel(table, chunk.slots, symbols)
            values = program.run(panel, tail=chunk.asked)
            known = latest(arrived, program.lookback)[-chunk.asked :]
            present = arrived[-chunk.asked :] > NEVER
            made = (
                states.of_symbols(chunk.wanted, symbols, values, known, present),
                states.of_market(chunk.wanted, values, known, present),
            )
            days = run.grid.session_dates(chunk.wanted)
            for (name, columns), found in zip(tables.items(), made, strict=True):
                stored = store.write(name, found, chunk.wanted, days, columns=columns)
                restarted = restarted or stored.restarted
                written, replaced = written + stored.written, replaced + stored.replaced
                if name == horizon:
                    rows, sessions = rows + stored.rows, sessions + len(stored.changed)
            progress.rows(horizon, "vectors", rows)
        if rows:
            for name in tables:
                store.index(name, run.horizon.vectors.index)
        return dg.MaterializeResult(
            metadata={
                "dagster/row_count": rows,
                "written, of symbols and market": written,
                "replaced, of symbols and market": replaced,
                "sessions that changed": sessions,
                "dimensions": len(run.vector_names),
                "columns": ", ".join(run.vector_names),
                **({"started anew": restarted} if restarted else {}),
            }
        )

    return vectors
