"""realized: what the champion's answers really scored, session by session, against what judging promised."""

import io
from datetime import date
from typing import Any

import dagster as dg
import numpy as np
import polars as pl

from assets import names, realized_page
from assets.learning import HELD_OUT, OUT_OF_FOLD
from assets.plan import Plan
from assets.reports import Reports
from quant.abstaining import signals
from quant.bundle import abstains_above
from quant.decay import Decay, decay
from quant.drift import Drift, calibrate, compare, judge
from quant.score import ic_series
from quant.universe import session_of
from resources.lake import Lake
from resources.registry import Registry
from resources.settings import Settings

CHAMPION = "champion"  # the role of answers that were served
IC = "rank_ic"
LAYOUT = {"format": "realized-1"}
PAGE = "realized.html"
ABOUT = "The answers that were served score no worse than judging promised, as far as so few sessions can tell."
EMPTY = pl.Schema({"time": pl.Datetime("us", "UTC"), IC: pl.Float64(), "session": pl.Date()})
SCHEMA = pl.Schema(
    {
        "partition": pl.String(),  # the month of the session
        "session": pl.Date(),  # the newest whose outcomes are in it
        "timestamp": pl.Datetime("us", "UTC"),  # of its newest answer
        "champion": pl.String(),
        "sessions": pl.Int64(),
        "sections": pl.Int64(),
        "rank_ic": pl.Float64(),  # the mean over sections; null where there is none
        "error": pl.Float64(),
        "promised": pl.Float64(),
        "promised_error": pl.Float64(),
        "p": pl.Float64(),
        "failed": pl.Boolean(),
        "why": pl.String(),
        "statistic": pl.Float64(),  # Evidently's, of the distribution of section scores; null where it is not measured
        "threshold": pl.Float64(),
    }
)


def build(plan: Plan) -> dg.AssetsDefinition:
    """The `realized` step of one horizon."""
    horizon = plan.horizon.name

    @dg.asset(
        key=names.key(horizon, names.REALIZED),
        deps=[names.key(horizon, names.OUTCOMES)],
        group_name=names.group(horizon),
        pool=names.tables_pool(horizon),
        kinds={"evidently"},
        check_specs=[names.check(horizon, names.REALIZED, names.AS_PROMISED, ABOUT)],
    )
    def realized(
        context: dg.AssetExecutionContext,
        settings: Settings,
        lake: dg.ResourceParam[Lake],
        registry: dg.ResourceParam[Registry],
        reports: dg.ResourceParam[Reports],
    ):
        """The rank IC of what was served in the newest sessions, tested against the one that judging measured."""
        run = Plan(settings.horizon(horizon))
        champion = registry.champion(horizon)
        if champion is None:
            return _skipped("no bundle serves yet")
        scores = served(run, lake, champion.id)
        if scores.is_empty():
            return _skipped(f"no answer of the champion {champion.id} has an outcome yet")
        row = examined(run, registry, champion.id, scores)
        before = history(run, lake)
        months = before.filter(pl.col("partition") == row["partition"][0], pl.col("session") != row["session"][0])
        written = pl.concat([months, row]).sort("session")
        lake.write(names.table(names.REALIZED, horizon), [written], [row["partition"][0]], LAYOUT)
        linked = reports.write(horizon, PAGE, realized_page.render(run, history(run, lake)))
        return _reported(row.row(0, named=True), linked, reports, context.run.run_id)

    return realized


def served(plan: Plan, lake: Lake, champion: str) -> pl.DataFrame:
    """(time, rank_ic, session) of the sections that a bundle answered as champion, the newest sessions; in order."""
    table = names.table(names.OUTCOMES, plan.horizon.name)
    if not lake.exists(table):
        return EMPTY.to_frame()
    rows = lake.scan(table).filter(pl.col("bundle") == champion, pl.col("role") == CHAMPION)
    scores = _scores(rows.select("symbol", "prediction", "outcome", time="timestamp").collect(), plan)
    newest = scores["session"].unique().sort().tail(plan.horizon.drift.realized.sessions)
    return scores.filter(pl.col("session").is_in(newest.implode()))


def promised(plan: Plan, registry: Registry, champion: str) -> pl.DataFrame:
    """The same of what the bundle predicted in its judging window, and of its folds: with `fold`. What it would have
    abstained from is no part of it, as it is none of what was served.
    """
    file = registry.path(plan.horizon.name, champion) / OUT_OF_FOLD
    if not file.is_file():
        return EMPTY.to_frame().with_columns(fold=pl.lit(HELD_OUT, pl.Int32))
    rows = pl.read_parquet(io.BytesIO(file.read_bytes())).filter(pl.col("path") == 0)
    rows = signals(rows, "prediction", abstains_above(registry.manifest(plan.horizon.name, champion)))
    of = rows.group_by("time").agg(pl.first("fold"))
    scores = _scores(rows.select("time", "symbol", "prediction", "outcome"), plan)
    return scores.join(of, on="time", how="left", maintain_order="left")


def examined(plan: Plan, registry: Registry, champion: str, scores: pl.DataFrame) -> pl.DataFrame:
    """The table's row of the newest session that has scores."""
    config = plan.horizon.drift.realized
    past = promised(plan, registry, champion)
    judged = past.filter(pl.col("fold") == HELD_OUT)
    found = decay(
        scores[IC].to_numpy(),
        judged[IC].to_numpy(),
        kept=config.kept,
        level=config.level,
        min_sections=config.min_sections,
        overlap=plan.label.lookahead - 1,
    )
    shape = _shape(plan, scores, past)
    newest: date = scores["session"].sort()[-1]
    row: dict[str, Any] = {
        "partition": f"{newest:%Y-%m-01}",
        "session": newest,
        "timestamp": scores["time"].max(),
        "champion": champion,
        "sessions": scores["session"].n_unique(),
        "sections": found.realized.n,
        **_figures(found),
        "failed": found.decayed,
        "why": found.why,
        "statistic": shape.columns[0].statistic if shape else None,
        "threshold": shape.columns[0].threshold if shape else None,
    }
    return pl.DataFrame([row], schema=SCHEMA)


def history(plan: Plan, lake: Lake) -> pl.DataFrame:
    """All sessions of the table, in order."""
    table = names.table(names.REALIZED, plan.horizon.name)
    if not lake.exists(table):
        return SCHEMA.to_frame()
    return lake.scan(table).select(SCHEMA.names()).sort("session").collect()


def _scores(rows: pl.DataFrame, plan: Plan) -> pl.DataFrame:
    scores = ic_series(rows, "spearman").rename({"ic": IC}).sort("time").filter(pl.col(IC).is_finite())
    return scores.with_columns(session_of(scores["time"], plan.grid))


def _shape(plan: Plan, scores: pl.DataFrame, past: pl.DataFrame) -> Drift | None:
    """The whole distribution of section scores against out-of-fold ones; None where those hold too few windows."""
    config = plan.horizon.drift
    window = scores["session"].n_unique()
    if past["session"].n_unique() < 2 * window:
        return None
    made = calibrate(
        past,
        [IC],
        window_sessions=window,
        windows=config.calibration_windows,
        method=config.method,
        sample_rows=config.sample_rows,
    )
    found = compare(scores, past, [IC], method=config.method, sample_rows=config.sample_rows)
    return judge(found, made, rate=config.rate, share=0.0)


def _figures(found: Decay) -> dict[str, float | None]:
    values = {
        "rank_ic": found.realized.mean,
        "error": found.realized.error,
        "promised": found.promised.mean,
        "promised_error": found.promised.error,
        "p": found.p,
    }
    return {name: float(value) if np.isfinite(value) else None for name, value in values.items()}


def _reported(row: dict[str, Any], linked: dict[str, dg.MetadataValue], reports: Reports, run: str):
    told: dict[str, Any] = {
        "verdict": row["why"],
        **linked,
        "champion": row["champion"],
        "session": str(row["session"]),
        "sessions": row["sessions"],
        "sections": row["sections"],
        "rank IC, realized": names.number(row["rank_ic"]),
        "standard error": names.number(row["error"]),
        "rank IC, promised": names.number(row["promised"]),
        "promised standard error": names.number(row["promised_error"]),
        "p": names.number(row["p"]),
        "distance of the distributions": names.number(row["statistic"]),
        "its threshold": names.number(row["threshold"]),
        "made by": dg.MetadataValue.url(reports.run(run)),
    }
    return dg.MaterializeResult(
        metadata=told,
        check_results=[
            dg.AssetCheckResult(
                check_name=names.AS_PROMISED,
                passed=not row["failed"],
                severity=dg.AssetCheckSeverity.WARN,
                description=row["why"],
                metadata=told,
            )
        ],
    )


def _skipped(why: str):
    check = dg.AssetCheckResult(check_name=names.AS_PROMISED, passed=True, metadata={"skipped": why})
    return dg.MaterializeResult(metadata={"skipped": why}, check_results=[check])
