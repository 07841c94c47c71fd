"""drift: the newest sessions against the champion's training window, as an Evidently report and a check."""

import time
from datetime import date, datetime
from typing import Any

import dagster as dg
import numpy as np
import polars as pl

from assets import names, partitions
from assets.plan import Plan
from assets.reports import Reports
from assets.window import span
from quant.bundle import Bundle
from quant.drift import Drift, calibrate, report
from quant.universe import session_of
from resources.lake import Lake
from resources.registry import Registry
from resources.settings import Settings

PREDICTION = "prediction"  # watched beside the factors: ranks alone never drift


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
        kinds={"evidently"},
        check_specs=[dg.AssetCheckSpec(names.NO_DRIFT, asset=names.key(horizon, "drift"), blocking=False)],
    )
    def drift(
        context: dg.AssetExecutionContext,
        settings: Settings,
        lake: dg.ResourceParam[Lake],
        registry: dg.ResourceParam[Registry],
        reports: dg.ResourceParam[Reports],
    ):
        """Factors and predictions of the newest sessions of the run, against what the champion was trained on."""
        run = Plan(settings.horizon(horizon))
        champion = registry.champion(horizon)
        if champion is None:
            return _skipped(
                "no bundle exists yet: nothing to compare with. Train the model, then materialize drift again"
            )
        bundle = registry.load(horizon, champion.id)
        _, last = partitions.window(run, context.partition_keys)
        current = _sessions(run, lake, bundle, last)
        if current.is_empty():
            return _skipped(f"there are no factor rows up to {last}")
        reference = _reference(run, lake, bundle)
        sessions, needed = reference["session"].n_unique(), 2 * run.horizon.drift.window_sessions
        if sessions < needed:
            return _skipped(
                f"the champion was trained on {sessions} sessions; two windows of drift.window_sessions need {needed}"
            )
        found, seconds = compare(run, bundle, current, reference)
        since, until = (f"{day:%Y-%m-%d}" for day in current.select(a=pl.min("session"), b=pl.max("session")).row(0))
        worst = sorted(found.columns, key=lambda column: -column.statistic / column.threshold)
        rows = [(c.name, f"{c.statistic:.4g}", f"{c.threshold:.4g}", "drifted" if c.drifted else "–") for c in worst]
        numbers: dict[str, Any] = {
            "share drifted": found.share,
            "columns compared": len(found.columns),
            "rows compared": "{} of {} now, {} of {} in training".format(*found.current_rows, *found.reference_rows),
            "champion": champion.id,
            "window": f"{since} to {until}",
        }
        return dg.MaterializeResult(
            metadata={
                **numbers,
                "columns": dg.MetadataValue.md(
                    names.markdown_table(("column", run.horizon.drift.method, "threshold", "drift"), rows)
                ),
                "skipped columns": ", ".join(found.skipped) or "none",
                "seconds": seconds,
                **reports.write(horizon, f"drift-{until}.html", found.html),
            },
            check_results=[
                dg.AssetCheckResult(
                    check_name=names.NO_DRIFT,
                    passed=not found.drifted,
                    severity=dg.AssetCheckSeverity.WARN,
                    metadata={**numbers, "worst": ", ".join(row[0] for row in rows[:5])},
                )
            ],
        )

    return drift


def compare(plan: Plan, bundle: Bundle, current: pl.DataFrame, reference: pl.DataFrame) -> tuple[Drift, float]:
    """The report of two windows of factor rows with predictions, and how many seconds it took."""
    began = time.monotonic()
    config = plan.horizon.drift
    importance = bundle.manifest["importance"]
    columns = [PREDICTION, *sorted(bundle.factors, key=lambda name: -importance[name])][: config.max_columns]
    thresholds = calibrate(
        reference,
        columns,
        session="session",
        window_sessions=config.window_sessions,
        windows=config.calibration_windows,
        quantile=config.quantile,
        method=config.method,
        sample_rows=config.sample_rows,
    )
    found = report(
        current,
        reference,
        columns,
        method=config.method,
        thresholds=thresholds,
        share=config.share,
        sample_rows=config.sample_rows,
        max_columns=config.max_columns,
    )
    return found, time.monotonic() - began


def _rows(plan: Plan, table: pl.LazyFrame, bundle: Bundle) -> pl.DataFrame:
    """Factor rows with their session date and what the bundle predicts for them."""
    rows = table.sort("timestamp", "symbol").collect()
    X = np.column_stack([rows[name].to_numpy() for name in bundle.factors]).astype(np.float32, copy=False)
    predictions = pl.Series(PREDICTION, bundle.predict_rows(np.ascontiguousarray(X)))
    return rows.with_columns(predictions, session_of(rows["timestamp"], plan.grid))


def _sessions(plan: Plan, lake: Lake, bundle: Bundle, last: date) -> pl.DataFrame:
    """The newest `window_sessions` sessions that have rows, none after `last`."""
    table = lake.scan(names.table("factors", plan.horizon.name))
    before = plan.grid.dates(date.min, last)[-1].item()
    _, end = plan.grid.window(before, before)
    newest = table.filter(pl.col("timestamp") < end).select(pl.max("timestamp")).collect().item()
    if newest is None:
        return pl.DataFrame()
    label = plan.grid.session_dates(np.array([newest.replace(tzinfo=None)], "datetime64[us]"))[0].item()
    first = plan.grid.dates(date.min, label)[-plan.horizon.drift.window_sessions :][0].item()
    return _rows(plan, table.filter(pl.col("timestamp").is_between(*span(plan.grid.slots(first, label)))), bundle)


def _reference(plan: Plan, lake: Lake, bundle: Bundle) -> pl.DataFrame:
    """The rows the bundle was trained on."""
    first, last = (datetime.fromisoformat(stamp) for stamp in bundle.manifest["spans"]["train"])
    table = lake.scan(names.table("factors", plan.horizon.name))
    return _rows(plan, table.filter(pl.col("timestamp").is_between(first, last)), bundle)


def _skipped(why: str) -> dg.MaterializeResult:
    return dg.MaterializeResult(
        metadata={"skipped": why},
        check_results=[
            dg.AssetCheckResult(
                check_name=names.NO_DRIFT,
                passed=True,
                severity=dg.AssetCheckSeverity.WARN,
                metadata={"skipped": why},
            )
        ],
    )
