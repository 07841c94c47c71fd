"""What `features` and `factors` share: validate, stream into one commit, account for rows, describe columns."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import dagster as dg
import pandera.errors
import polars as pl

from assets import names, partitions
from assets.layout import layout_of
from assets.plan import Plan
from assets.values import Statistics
from assets.window import symbols_of
from quant.schema import value_schema
from quant.sets import Entry
from resources.lake import Lake
from resources.progress import Progress

Rows = Callable[[Plan, Lake, Sequence[str], date, date], Iterator[pl.DataFrame]]


@dataclass(frozen=True)
class Derived:
    """One derived step of one horizon: what it is called and what it reads."""

    horizon: str
    name: str
    upstream: str
    check: str

    def spec(
        self,
        plan: Plan,
        parts: dg.TimeWindowPartitionsDefinition,
        lookback: int,
        entries: Mapping[str, Entry],
    ) -> dict[str, Any]:
        """Arguments of `dg.asset`: the overlap with the upstream partitions is the look-back."""
        overlap = partitions.mapping(plan, lookback)
        return {
            "key": names.key(self.horizon, self.name),
            "deps": [dg.AssetDep(names.key(self.horizon, self.upstream), partition_mapping=overlap)],
            "partitions_def": parts,
            "backfill_policy": dg.BackfillPolicy.single_run(),
            "group_name": names.group(self.horizon),
            "check_specs": [dg.AssetCheckSpec(self.check, asset=names.key(self.horizon, self.name))],
            "metadata": {
                "look-back (bars)": lookback,
                "dagster/column_schema": dg.TableSchema(
                    [
                        dg.TableColumn(name, "float32", entry.description or entry.text)
                        for name, entry in entries.items()
                    ]
                ),
            },
        }


def materialize_table(
    context: dg.AssetExecutionContext,
    plan: Plan,
    lake: Lake,
    progress: Progress,
    step: Derived,
    entries: Mapping[str, Entry],
    rows: Rows,
) -> dg.MaterializeResult:
    """Write the run's partitions of a derived table in one commit; a row that fails its schema fails the step."""
    keys = context.partition_keys
    first, last = partitions.window(plan, keys)
    symbols = symbols_of(lake, plan.horizon.name)
    schema = value_schema(entries)
    statistics = Statistics(list(entries))

    def checked(frames: Iterator[pl.DataFrame]) -> Iterator[pl.DataFrame]:
        for frame in frames:
            try:
                schema.validate(frame, lazy=True)
            except pandera.errors.SchemaErrors as error:
                raise dg.Failure(_explain(step, error), allow_retries=False) from error
            yield frame
            progress.rows(step.horizon, step.name, statistics.rows)

    frames = checked(statistics.watch(rows(plan, lake, symbols, first, last)))
    written = lake.write(names.table(step.name, step.horizon), frames, keys, layout_of(plan))
    upstream = names.table(step.upstream, step.horizon)
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": statistics.rows,
            "symbols": len(symbols),
            "sessions": f"{first} to {last}",
            "table version": written.version,
            "changed": written.changed,
            f"{upstream} version": lake.version(upstream),
            "columns without a value": ", ".join(statistics.empty) or "none",
            "statistics": dg.MetadataValue.md(
                names.markdown_table(("column", "null", "min", "max"), statistics.table())
            ),
        },
        check_results=[
            dg.AssetCheckResult(
                check_name=step.check,
                passed=True,
                metadata={"rows": statistics.rows, "columns": len(entries)},
            )
        ],
    )


def _explain(step: Derived, error: pandera.errors.SchemaErrors) -> str:
    cases = error.failure_cases.head(5).to_dicts()
    told = "; ".join(f"column {case['column']}: {case['check']} (value {case['failure_case']})" for case in cases)
    return f"{step.horizon} {step.name}: {error.failure_cases.height} values fail the schema: {told}"
