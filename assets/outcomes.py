"""outcomes: what was answered while it could still be traded, against what came of it; realized scores by bundle."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import dagster as dg
import numpy as np
import polars as pl

from assets import dataset, names
from assets.costs import task_of
from assets.plan import Plan
from quant.score import finite, hit_rate, leaning, measure_ic
from resources.clock import Clock
from resources.lake import Lake
from resources.registry import Registry
from resources.settings import Settings

LOG = "predictions"  # the service writes it
LAYOUT = {"format": "outcomes-1"}
KEY = ("bundle", "role", "symbol", "timestamp")


@dataclass(frozen=True)
class Realized:
    """Answers with their outcome, and what became of every other answer of the log."""

    rows: pl.DataFrame  # KEY, signal, at, prediction, outcome
    counts: dict[str, int]


def build(plan: Plan) -> dg.AssetsDefinition:
    """The `outcomes` step of one horizon."""
    horizon = plan.horizon.name

    @dg.asset(
        key=names.key(horizon, names.OUTCOMES),
        deps=[dg.AssetDep(names.key(horizon, "bars"), partition_mapping=dg.AllPartitionMapping())],
        group_name=names.group(horizon),
        pool=names.tables_pool(horizon),
        kinds={"deltalake"},
    )
    def outcomes(
        context: dg.AssetExecutionContext,
        settings: Settings,
        lake: dg.ResourceParam[Lake],
        registry: dg.ResourceParam[Registry],
        clock: dg.ResourceParam[Clock],
    ):
        """Every answer whose outcome is known by now, and the rank IC that each bundle really had."""
        run = Plan(settings.horizon(horizon))
        log = names.table(LOG, horizon)
        if not lake.exists(log):
            return dg.MaterializeResult(metadata={"skipped": f"nothing was predicted yet: there is no table {log}"})
        together = lake.compact(log, f"{clock.now():%Y-%m-%d}")
        found = realized(run, lake, registry)
        written = None
        if found.rows.height:
            days = found.rows.with_columns(partition=pl.col("timestamp").dt.strftime("%Y-%m-%d"))
            keys = days["partition"].unique().sort().to_list()
            written = lake.write(names.table(names.OUTCOMES, horizon), [days], keys, LAYOUT).version
        scores = measures(run, found.rows)
        return dg.MaterializeResult(
            metadata={
                "dagster/row_count": found.rows.height,
                "table version": "none" if written is None else written,
                **found.counts,
                "files of the log put together": together,
                "realized": dg.MetadataValue.md(_table(scores)) if scores else "no answer has an outcome yet",
                "scores": dg.MetadataValue.json(scores),
            }
        )

    return outcomes


def realized(plan: Plan, lake: Lake, registry: Registry) -> Realized:
    """The first answer for each bundle, role, symbol and bar that came in time to be traded, with its outcome.

    An answer before its bar had ended, or after it could be traded (someone asked about the past, which the model may
    have learned from), is no forecast. Nor is one that the model abstained from, or of a bundle of another label.
    """
    log = lake.scan(names.table(LOG, plan.horizon.name))
    if "abstained" not in log.collect_schema():  # a log of the first format, when no model abstained
        log = log.with_columns(abstained=pl.lit(False))
    log = log.select("signal", "at", "prediction", "abstained", *KEY)
    total, named = (
        log.select(pl.len(), pl.col("symbol").is_not_null() & pl.col("timestamp").is_not_null())
        .select(pl.first("len"), pl.col("symbol").sum())
        .collect()
        .row(0)
    )
    answers = (
        log.filter(pl.col("symbol").is_not_null(), pl.col("timestamp").is_not_null())
        .sort("at", "signal")
        .unique(KEY, keep="first", maintain_order=True)
        .collect()
    )
    labels, slots = dataset.outcomes(plan, lake)
    stamps = answers["timestamp"].dt.replace_time_zone(None).to_numpy().astype("datetime64[us]")
    asked = answers["at"].dt.replace_time_zone(None).to_numpy().astype("datetime64[us]")
    place = np.searchsorted(slots, stamps)
    on_grid = (place < len(slots)) & (slots[np.minimum(place, len(slots) - 1)] == stamps)
    at = np.minimum(place, len(slots) - 1)
    ends = plan.grid.ends(slots)
    grace = ends + np.timedelta64(plan.horizon.model.restated_after, "s")
    tradable = np.maximum(grace, np.append(slots[1:], grace[-1:]))  # until the next bar begins
    ours = {id for id in answers["bundle"].unique() if _label(registry, plan, id) == plan.label.text}
    joined = answers.join(labels, on=["timestamp", "symbol"], how="left", maintain_order="left")
    outcome = joined["label"].fill_null(np.nan).to_numpy()
    known = at + joined["ahead"].fill_null(plan.label.lookahead).to_numpy() < len(slots)
    reasons: dict[str, np.ndarray] = {
        "of a bundle with another label": ~answers["bundle"].is_in(list(ours)).to_numpy(),
        "off the grid": ~on_grid,
        "before their bar had ended": asked < ends[at],
        "asked after they could be traded": asked > tradable[at],
        "abstained from: told to be no signal": answers["abstained"].fill_null(False).to_numpy(),
        "waiting for their outcome": ~np.isfinite(outcome) & ~known,
        "without an outcome: a bar is missing": ~np.isfinite(outcome),
    }
    counts = {"answers in the log": int(total), "without symbol or bar": int(total - named)}
    counts["repeated"] = int(named) - answers.height
    kept = np.ones(answers.height, bool)
    for reason, excluded in reasons.items():
        counts[reason] = int((kept & excluded).sum())
        kept &= ~excluded
    rows = answers.with_columns(outcome=pl.Series(outcome, dtype=pl.Float64)).filter(pl.Series(kept, dtype=pl.Boolean))
    rows = rows.drop("abstained")
    return Realized(rows.sort("timestamp", "symbol", "bundle", "role"), counts)


def measures(plan: Plan, rows: pl.DataFrame) -> dict[str, dict[str, Any]]:
    """Realized scores of each bundle and role, as JSON values."""
    found: dict[str, dict[str, Any]] = {}
    for (bundle, role), part in rows.rename({"timestamp": "time"}).group_by("bundle", "role", maintain_order=True):
        ic = measure_ic(part, plan.label.lookahead)
        found[f"{bundle} {role}"] = {
            "rows": part.height,
            **{name: f"{part['time'][at]:%Y-%m-%d %H:%M}" for name, at in (("first", 0), ("last", -1))},
            **finite(ic),
            "hit_rate": finite(hit_rate(leaning(part, task_of(plan)))),
        }
    return found


def _label(registry: Registry, plan: Plan, id: str) -> str | None:
    """The label a bundle was trained on; None for a bundle that is gone."""
    if id not in registry.bundles(plan.horizon.name):
        return None
    return str(registry.manifest(plan.horizon.name, id)["label"]["text"])


def _table(scores: Mapping[str, Mapping[str, Any]]) -> str:
    header = ("bundle and role", "answers", "sections", "rank IC", "± error", "hit rate", "from", "to")
    rows = [
        (
            who,
            one["rows"],
            one["rank_ic_sections"],
            _figure(one["rank_ic"]),
            _figure(one["rank_ic_error"]),
            _figure(one["hit_rate"]),
            one["first"],
            one["last"],
        )
        for who, one in scores.items()
    ]
    return names.markdown_table(header, rows)


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:+.4f}"
