"""evaluation: out-of-fold scores of the newest bundle as a page and as numbers, baselines beside them."""

import io
import json
from typing import Any

import dagster as dg
import polars as pl

from assets import names
from assets.dataset import load
from assets.evaluation_page import render
from assets.findings import Findings, find
from assets.learning import OUT_OF_FOLD
from assets.model import READ, digests_of
from assets.page_summary import table, verdict
from assets.plan import Plan
from assets.reports import Reports
from assets.tuning import TRIALS
from conf.compose import to_yaml
from quant.bundle import identity
from resources.lake import Lake
from resources.registry import PROVENANCE, Registry
from resources.settings import Settings


def build(plan: Plan) -> dg.AssetsDefinition:
    """The `evaluation` step of one horizon."""
    horizon = plan.horizon.name

    @dg.asset(
        key=names.key(horizon, "evaluation"),
        deps=[names.key(horizon, "model")],
        group_name=names.group(horizon),
        pool=names.TRAINING,
        kinds={"html"},
    )
    def evaluation(
        context: dg.AssetExecutionContext,
        settings: Settings,
        lake: dg.ResourceParam[Lake],
        registry: dg.ResourceParam[Registry],
        reports: dg.ResourceParam[Reports],
    ):
        """Scores on rows that each model's training and early stopping never saw, after costs, beside baselines."""
        run = Plan(settings.horizon(horizon))
        data = load(run, lake.pinned(_read_by_the_model(context, horizon)))
        id = identity(digests_of(run, data))
        if id not in registry.bundles(horizon):
            raise dg.Failure(
                f"{horizon}: no bundle was trained from the present rows, config and code; materialize "
                f"{horizon}/model with the same settings first",
                allow_retries=False,
            )
        bundle = registry.load(horizon, id)
        predictions, returns, provenance = beside(registry, horizon, id)
        siblings = len(registry.bundles(horizon)) - 1
        found = find(run, data, bundle, predictions, returns, provenance, siblings)
        html = render(found, to_yaml(run.horizon))
        return dg.MaterializeResult(
            metadata={
                "bundle": id,
                "verdict": verdict(found),
                **_figures(found),
                "scores": dg.MetadataValue.md(names.markdown_table(*table(found))),
                **reports.write(horizon, f"evaluation-{id}.html", html),
            }
        )

    return evaluation


def _read_by_the_model(context: dg.AssetExecutionContext, horizon: str) -> dict[str, int]:
    """Versions of the tables that the model step of this run read; none where it was another run: then the newest."""
    event = context.instance.get_latest_materialization_event(names.key(horizon, "model"))
    if event is None or event.asset_materialization is None or event.run_id != context.run.run_id:
        return {}
    pins = event.asset_materialization.metadata[READ].value
    assert isinstance(pins, dict)
    return pins


def beside(registry: Registry, horizon: str, id: str) -> tuple[pl.DataFrame, pl.DataFrame | None, dict[str, Any]]:
    """What lies beside a bundle: out-of-fold predictions, returns of its trials (None without tuning), provenance."""
    folder = registry.path(horizon, id)
    if not (folder / OUT_OF_FOLD).is_file():
        raise dg.Failure(
            f"{folder} lacks {OUT_OF_FOLD}: it was not copied whole; remove the folder and materialize {horizon}/model "
            "again",
            allow_retries=False,
        )
    returns = folder / TRIALS
    return (
        pl.read_parquet(io.BytesIO((folder / OUT_OF_FOLD).read_bytes())),
        pl.read_parquet(io.BytesIO(returns.read_bytes())) if returns.is_file() else None,
        json.loads((folder / PROVENANCE).read_text()),
    )


def _figures(found: Findings) -> dict[str, dg.MetadataValue | int]:
    """The headline as metadata, so that the UI plots it from run to run."""
    scores, net = found.past.scores["model"], found.past.scores["model"]["net"]
    lucky = found.trials.overfitting
    return {
        "rows out of fold": found.past.rows.height,
        "rank IC, out of fold": names.number(scores["rank_ic"]),
        "rank IC standard error": names.number(scores["rank_ic_error"]),
        "net Sharpe, out of fold": names.number(net["sharpe"]),
        "net Sharpe standard error": names.number(net["sharpe_error"]),
        "trials": found.trials.count,
        "deflated Sharpe": names.number(found.trials.deflated),
        "probability of overfitting": names.number(lucky.probability if lucky else None),
        "rank IC, judging window": names.number(found.held_out.scores["model"]["rank_ic"]),
        "net Sharpe, judging window": names.number(found.held_out.scores["model"]["net"]["sharpe"]),
    }
