"""What `features` and `factors` share: the asset, its columns, and rows that stream through rules into one commit."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import dagster as dg
import polars as pl

from assets import names, partitions, picture, versions
from assets.layout import layout_of
from assets.plan import Plan
from assets.rejects import Screen
from assets.reports import Reports
from assets.sample import Sample
from assets.values import Statistics
from assets.window import symbols_of
from conf.errors import nearest
from quant.across import reach, told
from quant.program import Program
from quant.schema import too_many_nulls
from quant.sets import Entry
from resources.lake import Lake
from resources.progress import Progress
from resources.settings import Settings

MOST = 10  # symbols that a message names
ABOUT = "Every row keeps its columns' bounds, and every column has the share of values that it declares."


@dataclass(frozen=True)
class Derived:
    """A step that computes a table of values from declared expressions: how it is called and where its rows come from.

    about: its description in the UI. upstream: the step it reads. rows: of some sessions, for the symbols given.
    """

    name: str
    about: str
    upstream: str
    check: str
    program: Callable[[Plan], Program]
    entries: Callable[[Plan], Mapping[str, Entry]]
    rows: Callable[[Plan, Lake, Sequence[str], date, date], Iterator[pl.DataFrame]]


def build(step: Derived, plan: Plan, parts: dg.TimeWindowPartitionsDefinition) -> dg.AssetsDefinition:
    """The step of one horizon; its overlap with the upstream partitions is the look-back of its program."""
    horizon, program = plan.horizon.name, step.program(plan)
    overlap, elsewhere = partitions.mapping(plan, program.lookback), reach(program.outputs.values())
    upstream = [dg.AssetDep(names.key(horizon, step.upstream), partition_mapping=overlap)]
    for name, slots in elsewhere.items():
        theirs = partitions.elsewhere(plan, program.lookback, plan.others[name].grid, slots)
        upstream.append(dg.AssetDep(names.key(name, "bars"), partition_mapping=theirs))

    @dg.asset(
        key=names.key(horizon, step.name),
        description=step.about,
        deps=upstream,
        partitions_def=parts,
        backfill_policy=dg.BackfillPolicy.single_run(),
        group_name=names.group(horizon),
        pool=names.tables_pool(horizon),
        kinds={"mlx", "deltalake"},
        check_specs=[names.check(horizon, step.name, step.check, ABOUT)],
        metadata={
            "look-back (bars)": program.lookback,
            **{f"look-back ({name} bars)": slots for name, slots in elsewhere.items()},
            **{f"{name} (derived column)": text for name, text in plan.horizon.source.derived.items()},
            "dagster/column_schema": columns(program, step.entries(plan)),
        },
    )
    def derived(
        context: dg.AssetExecutionContext,
        settings: Settings,
        lake: dg.ResourceParam[Lake],
        progress: dg.ResourceParam[Progress],
        reports: dg.ResourceParam[Reports],
    ):
        yield from materialize(context, step, Plan(settings.horizon(horizon)), lake, progress, reports)

    return derived


def columns(program: Program, entries: Mapping[str, Entry]) -> dg.TableSchema:
    """The columns as `tenor features` lists them: description, and as tags expression, look-back and group."""
    made = []
    for entry in entries.values():
        bounds = {"at least": entry.low, "at most": entry.high, "share missing at most": entry.nulls}
        made.append(
            dg.TableColumn(
                entry.name,
                "float32",
                entry.description or entry.text,
                dg.TableColumnConstraints(other=[f"{what} {at:g}" for what, at in bounds.items() if at is not None]),
                {"expression": entry.text, "look-back (bars)": told(program.outputs[entry.name]), "group": entry.group},
            )
        )
    return dg.TableSchema(made)


def without(plan: Plan, program: Program, symbols: Sequence[str]) -> dict[str, str]:
    """For each attribute that the program reads, the symbols that never have it: what reads it is missing there."""
    told = {}
    for name in (name for name in program.inputs if name in plan.attributes):
        if lacking := sorted(set(symbols) - set(plan.attributes[name].symbols)):
            told[f"symbols without {name}"] = f"{len(lacking)} of {len(symbols)}: {', '.join(lacking[:10])}"
    return told


def _check_symbols(plan: Plan, step: Derived, symbols: Sequence[str]) -> None:
    """Failure that names the entry, for one that reads a symbol of which there are no bars."""
    outputs, entries, horizon = step.program(plan).outputs, step.entries(plan), plan.horizon.name
    for name, value in outputs.items():
        if symbols and (lacking := sorted(value.symbols.difference(symbols))):
            entry, near = entries[name], nearest(lacking[0], symbols)
            more = f" and {len(symbols) - MOST} more" if len(symbols) > MOST else ""
            raise dg.Failure(
                f'{entry.file}: {name}: of("{lacking[0]}", …), but horizon {horizon} has no bars of {lacking[0]}'
                f"{f'; did you mean {near}?' if near else '.'} It has bars of {', '.join(symbols[:MOST])}{more}",
                allow_retries=False,
            )


def materialize(
    context: dg.AssetExecutionContext, step: Derived, plan: Plan, lake: Lake, progress: Progress, reports: Reports
) -> Iterator[Any]:
    """Write the run's partitions in one commit, less the rows that break a rule; too many of those fail the step."""
    horizon, keys, entries = plan.horizon.name, context.partition_keys, step.entries(plan)
    first, last = partitions.window(plan, keys)
    symbols = symbols_of(lake, horizon)
    _check_symbols(plan, step, symbols)
    screen = Screen(horizon, step.name, entries)
    statistics = Statistics(list(entries))
    sample = Sample(list(entries), plan.grid.slots(first, last))
    most = plan.horizon.validation.max_rejected

    def screened() -> Iterator[pl.DataFrame]:
        for frame in step.rows(plan, lake, symbols, first, last):
            kept = screen.passed(frame)
            statistics.take(kept)
            sample.take(kept)
            yield kept
            progress.rows(horizon, step.name, statistics.rows)
        lake.write(screen.table, screen.refused, keys, layout_of(plan))
        if screen.share > most:
            raise dg.Failure(screen.refusal(most), allow_retries=False)

    written = lake.write(names.table(step.name, horizon), screened(), keys, layout_of(plan, step.program(plan)))
    read = [names.table(step.upstream, horizon), *(names.table("bars", name) for name in step.program(plan).others)]
    page = picture.render(
        f"{horizon} · {step.name}", f"{first} to {last}, {len(entries)} columns", entries, sample, len(symbols)
    )
    result: dg.MaterializeResult[None] = dg.MaterializeResult(
        metadata={
            "dagster/row_count": statistics.rows,
            **screen.metadata(),
            "symbols": len(symbols),
            **without(plan, step.program(plan), symbols),
            "sessions": f"{first} to {last}",
            "table version": written.version,
            "changed": written.changed,
            **{f"{table} version": lake.version(table) for table in read},
            "columns without a value": ", ".join(statistics.empty) or "none",
            "statistics": dg.MetadataValue.md(names.markdown_table(*statistics.table())),
            **reports.write(horizon, f"{step.name}-{first}-{last}.html", page),
        },
        check_results=[_judged(step, screen, statistics, entries)],
    )
    yield from versions.told(context.asset_key, written.versions, result)


def _judged(step: Derived, screen: Screen, statistics: Statistics, entries: Mapping[str, Entry]) -> dg.AssetCheckResult:
    """Whether every row kept every rule and every column the share of values it declares; a warning if not."""
    sparse = too_many_nulls(entries, statistics.nulls)
    told: dict[str, Any] = {"rows": statistics.rows, "columns": len(entries), "rejected": screen.rejected}
    if screen.rejected:
        worst = screen.worst()
        told |= {"worst symbols": worst["symbols"], "worst columns": worst["columns"], "kept in": screen.table}
    if sparse:
        told["too many missing"] = ", ".join(
            f"{name} {share:.1%} (nulls: {entries[name].nulls:g})" for name, share in sparse.items()
        )
    return dg.AssetCheckResult(
        check_name=step.check,
        passed=not screen.rejected and not sparse,
        severity=dg.AssetCheckSeverity.WARN,
        metadata=told,
    )
