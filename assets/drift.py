"""drift: each finished session against its champion's training window: a table, a page, and a check."""

from datetime import date
from typing import Any

import dagster as dg
import polars as pl

from assets import drift_page, names, partitions
from assets.drift_compare import Examined, examine
from assets.drift_evidently import full_page
from assets.drift_history import history, newest
from assets.plan import Plan
from assets.reports import Reports
from resources.clock import Clock
from resources.lake import Lake
from resources.registry import Registry
from resources.settings import Settings

SHOWN = 120  # sessions of the page of all sessions
ABOUT = (
    "The newest finished session, and those just before it, look like what the champion was trained on; `report` shows."
)


def build(plan: Plan, parts: dg.TimeWindowPartitionsDefinition) -> dg.AssetsDefinition:
    """The `drift` step of one horizon. It reads its reference from the registry, so the graph has no circle."""
    horizon = plan.horizon.name
    before = partitions.overlap(plan, plan.horizon.drift.window_sessions - 1)

    @dg.asset(
        key=names.key(horizon, "drift"),
        deps=[dg.AssetDep(names.key(horizon, "factors"), partition_mapping=before)],
        partitions_def=parts,
        backfill_policy=dg.BackfillPolicy.single_run(),
        group_name=names.group(horizon),
        pool=names.tables_pool(horizon),
        kinds={"evidently"},
        check_specs=[names.check(horizon, "drift", names.NO_DRIFT, ABOUT)],
    )
    def drift(
        context: dg.AssetExecutionContext,
        settings: Settings,
        lake: dg.ResourceParam[Lake],
        registry: dg.ResourceParam[Registry],
        reports: dg.ResourceParam[Reports],
        clock: dg.ResourceParam[Clock],
    ):
        """Predictions, factors and features of every finished session of the run, with the sessions just before it,
        against what the champion of the time was trained on. The check speaks of the newest session that ever was
        compared: a run that looked at nothing, or at an older one, leaves it as it is.
        """
        run = Plan(settings.horizon(horizon))
        first, last = partitions.window(run, context.partition_keys)
        found = examine(run, lake, registry, clock, first, last)
        day, standing = found.newest, newest(run, lake)
        if day is None:
            told = _skipped(f"no session from {first} to {last} is over by now, or has rows", found)
        elif day in found.left_out:
            told = _skipped(found.left_out[day], found)
        else:
            told = _reported(run, lake, registry, reports, found, day, context.run.run_id)
        if standing.is_empty() or (day is not None and day >= standing["session"][0]):
            return told
        metadata = _numbers(standing) | _links(run, reports, standing)
        return dg.MaterializeResult(metadata=told.metadata, check_results=[_check(run, standing, metadata)])

    return drift


def _reported(plan: Plan, lake: Lake, registry: Registry, reports: Reports, found: Examined, day: date, run: str):
    """Pages, metadata and the check of a session."""
    horizon, config = plan.horizon.name, plan.horizon.drift
    rows = found.rows.filter(pl.col("session") == day)
    name = drift_page.file(day)
    if found.anew or not reports.path(horizon, name).exists():
        reports.write(horizon, name, drift_page.report(plan, rows, history(plan, lake, day, SHOWN)))

        def link(session: date) -> str | None:
            there = drift_page.file(session)
            return there if reports.path(horizon, there).exists() else None

        reports.write(
            horizon, drift_page.HISTORY, drift_page.overview(plan, history(plan, lake, date.max, SHOWN), link)
        )
    numbers, links = _numbers(rows), _links(plan, reports, rows)
    links["made by"] = dg.MetadataValue.url(reports.run(run))
    if config.evidently_page:
        links |= full_page(plan, lake, registry, reports, rows)
    return dg.MaterializeResult(
        metadata={
            "verdict": drift_page.verdict(rows),
            **links,
            **numbers,
            "sessions compared anew": found.anew,
            "sessions": dg.MetadataValue.md(_sessions(found)),
            "columns": dg.MetadataValue.md(drift_page.markdown(rows)),
        },
        check_results=[_check(plan, rows, numbers | links)],
    )


def _numbers(rows: pl.DataFrame) -> dict[str, Any]:
    """What a session came to."""
    whole = rows.row(0, named=True)
    return {
        "session": str(whole["session"]),
        "share drifted": names.rounded(whole["share"]),
        "columns compared": rows["statistic"].count(),
        "excess": names.number(drift_page.finite(whole["reached"])),
        "level": names.number(drift_page.finite(whole["level"])),
        "false alarms a session": names.rounded(whole["rate"]),
        "rows compared": f"{whole['rows']} of {whole['of_rows']} now, {whole['reference_rows']} of "
        f"{whole['of_reference_rows']} in training",
        "champion": whole["champion"],
        "drifted": ", ".join(_worst(rows)) or "none",
    }


def _links(plan: Plan, reports: Reports, rows: pl.DataFrame) -> dict[str, dg.MetadataValue]:
    """To the pages about a session."""
    horizon, whole = plan.horizon.name, rows.row(0, named=True)
    return {
        **reports.linked(horizon, drift_page.file(whole["session"])),
        "history": dg.MetadataValue.url(reports.page(horizon, drift_page.HISTORY)),
        "champion's evaluation": dg.MetadataValue.url(reports.page(horizon, f"evaluation-{whole['champion']}.html")),
    }


def _check(plan: Plan, rows: pl.DataFrame, metadata: dict[str, Any]) -> dg.AssetCheckResult:
    """What the check says of a session."""
    severe = rows["share"][0] > plan.horizon.drift.severe_share
    return dg.AssetCheckResult(
        check_name=names.NO_DRIFT,
        passed=not rows["failed"][0],
        severity=dg.AssetCheckSeverity.ERROR if severe else dg.AssetCheckSeverity.WARN,
        description=drift_page.verdict(rows),
        metadata={"worst": ", ".join(_worst(rows)[:5]) or "none", **metadata},
    )


def _worst(rows: pl.DataFrame) -> list[str]:
    """The columns that drifted, the farthest first."""
    return rows.filter("drifted").sort("excess", descending=True)["column"].to_list()


def _sessions(found: Examined) -> str:
    """What became of each session of the run: its share drifted, or why it was left out."""
    told = {row["session"]: row for row in found.rows.unique("session").iter_rows(named=True)}
    lines: list[tuple[object, ...]] = [
        (day, f"{one['share']:.0%}", "failed" if one["failed"] else "passed") for day, one in told.items()
    ]
    lines += [(day, "–", why) for day, why in found.left_out.items()]
    lines += [(day, "–", "no factor rows") for day in found.empty]
    newest = sorted(lines, key=lambda line: str(line[0]), reverse=True)
    more = [("…", "", f"{len(newest) - 30} sessions more")] if len(newest) > 30 else []
    return names.markdown_table(("session", "columns drifted", "check"), [*newest[:30], *more])


def _skipped(why: str, found: Examined):
    return dg.MaterializeResult(
        metadata={"skipped": why, "sessions": dg.MetadataValue.md(_sessions(found))},
        check_results=[
            dg.AssetCheckResult(
                check_name=names.NO_DRIFT,
                passed=True,
                severity=dg.AssetCheckSeverity.WARN,
                metadata={"skipped": why},
            )
        ],
    )
