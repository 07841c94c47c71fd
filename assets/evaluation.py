"""evaluation: out-of-sample scores of the newest bundle as a page and as numbers, baselines beside them."""

import dagster as dg
import numpy as np
import polars as pl

from assets import names, page
from assets.dataset import Dataset, load, split
from assets.model import digests_of
from assets.plan import Plan
from assets.reports import Reports
from quant.bundle import Bundle, identity
from quant.folds import Split
from quant.score import section_ic
from resources.lake import Lake
from resources.registry import Registry
from resources.settings import Settings

SHOWN = {
    "ic": "IC",
    "rank_ic": "rank IC",
    "rank_ic_error": "± (Newey–West)",
    "rank_ic_t": "t",
    "hit_rate": "hit rate",
    "quantile_spread": "top − bottom quintile",
}
NET = {
    "sharpe": "net Sharpe",
    "sharpe_error": "±",
    "turnover": "turnover a bar",
    "annual_return": "net return a year",
}


def build(plan: Plan) -> dg.AssetsDefinition:
    """The `evaluation` step of one horizon."""
    horizon = plan.horizon.name

    @dg.asset(
        key=names.key(horizon, "evaluation"),
        deps=[names.key(horizon, "model")],
        group_name=names.group(horizon),
        kinds={"html"},
    )
    def evaluation(
        context: dg.AssetExecutionContext,
        settings: Settings,
        lake: dg.ResourceParam[Lake],
        registry: dg.ResourceParam[Registry],
        reports: dg.ResourceParam[Reports],
    ):
        """Scores on rows that neither training nor early stopping saw, after costs, beside three baselines."""
        run = Plan(settings.horizon(horizon))
        data = load(run, lake)
        id = identity(digests_of(run, data))
        if id not in registry.bundles(horizon):
            raise dg.Failure(
                f"{horizon}: no bundle was trained from the present rows, config and code; materialize "
                f"{horizon}/model with the same settings first",
                allow_retries=False,
            )
        bundle = registry.load(horizon, id)
        html = render(bundle, ic_by_section(bundle, data, split(run, data)))
        model = bundle.scores["model"]
        return dg.MaterializeResult(
            metadata={
                "bundle": id,
                "test rows": model["rows"],
                "test span": " to ".join(bundle.manifest["spans"]["test"]),
                "net Sharpe, out of sample": names.number(model["net"]["sharpe"]),
                "scores": dg.MetadataValue.md(names.markdown_table(*score_table(bundle))),
                **reports.write(horizon, f"evaluation-{id}.html", html),
            }
        )

    return evaluation


def ic_by_section(bundle: Bundle, data: Dataset, parts: Split) -> pl.DataFrame:
    """Rank IC by section of the test rows: (time, ic)."""
    frame = pl.DataFrame(
        {
            "time": data.timestamp[parts.test],
            "prediction": bundle.predict_rows(data.X[parts.test]),
            "outcome": data.y[parts.test],
        }
    )
    return section_ic(frame, "spearman")


def score_table(bundle: Bundle) -> tuple[list[str], list[list[str]]]:
    """Header and rows: a predictor each, the model first."""
    rows = []
    for predictor, scores in bundle.scores.items():
        cells = [page.figure(scores[name]) for name in SHOWN] + [page.figure(scores["net"][name]) for name in NET]
        rows.append([predictor.replace("_", " "), *cells])
    return ["predictor", *SHOWN.values(), *NET.values()], rows


def render(bundle: Bundle, ic: pl.DataFrame) -> str:
    """The page of one bundle: self-contained HTML."""
    manifest = bundle.manifest
    spans = manifest["spans"]
    importance = sorted(manifest["importance"].items(), key=lambda item: -item[1])[:20]
    quantiles = manifest["scores"]["model"]["quantile_means"]
    cumulated = np.cumsum(ic["ic"].to_numpy())
    sections = [
        page.section(
            "Out of sample",
            f"Test rows from {spans['test'][0]} to {spans['test'][1]}: seen neither by training nor by early stopping. "
            f"Costs: {manifest['scores']['model']['net']['cost_bps']:g} bp a side.",
            page.table(*score_table(bundle)),
        ),
        page.section(
            "Rank IC, cumulated over test sections",
            f"{ic.height} sections; a steady slope is a steady edge, a single step is luck.",
            page.line(cumulated.tolist(), str(ic["time"].min()), str(ic["time"].max())),
        ),
        page.section(
            "Mean outcome by quintile of the prediction",
            "Lowest prediction first; basis points over the label's horizon.",
            page.bars([(f"Q{n + 1}", None if q is None else q * 1e4) for n, q in enumerate(quantiles)]),
        ),
        page.section("Importance", "Total gain of the 20 factors used most.", page.bars(importance)),
        page.section(
            "Where the rows went",
            "Purged rows have labels that reach into the next part; embargoed ones end just before it.",
            page.table(["rows", "count"], [[name, f"{count:,}"] for name, count in manifest["counts"].items()]),
        ),
        page.section(
            "What it is",
            f"{manifest['objective']}, {manifest['best_iteration']} trees, {len(bundle.factors)} factors, "
            f"look-back {manifest['lookback']} bars, label {manifest['label']['text']}.",
            page.table(["part", "first bar", "last bar"], [[part, *span] for part, span in spans.items()]),
        ),
    ]
    return page.document(f"{bundle.horizon} · bundle {bundle.id}", sections)
