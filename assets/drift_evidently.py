"""Evidently's own page of a session, where drift.evidently_page asks for it."""

from datetime import date

import dagster as dg
import polars as pl

from assets.drift_rows import present, reference, watched
from assets.plan import Plan
from assets.reports import Reports
from quant.drift_evidently import page
from resources.lake import Lake
from resources.registry import Registry


def full_page(
    plan: Plan, lake: Lake, registry: Registry, reports: Reports, rows: pl.DataFrame
) -> dict[str, dg.MetadataValue]:
    """Write it for the session of these rows of the table, unless it is there; the metadata that links it."""
    config, horizon = plan.horizon.drift, plan.horizon.name
    day: date = rows["session"][0]
    name = f"drift-{day}-evidently.html"
    if not reports.path(horizon, name).exists():
        bundle = registry.load(horizon, rows["champion"][0])
        columns = watched(bundle, config.max_columns)
        first = plan.grid.dates(date.min, day)[-config.window_sessions :][0].item()
        compared = rows.filter(pl.col("statistic").is_finite())
        html = page(
            present(plan, lake, bundle, columns, first, day),
            reference(plan, lake, bundle, columns),
            dict(compared.select("column", "threshold").iter_rows()),
            method=config.method,
            share=config.share,
            sample_rows=config.sample_rows,
        )
        reports.write(horizon, name, html)
    return {"Evidently's page": dg.MetadataValue.url(reports.page(horizon, name))}
