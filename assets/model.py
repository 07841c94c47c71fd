"""model: LightGBM on the factor table under purged folds, written as a bundle that proves itself."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import polars as pl

from assets import judgement, names
from assets.cause import Cause
from assets.costs import framed, task_of, terms
from assets.dataset import Dataset, folds, load, split
from assets.learning import HELD_OUT, OUT_OF_FOLD, learn, out_of_fold, predict, predicted
from assets.novelty import measured_by, novelty
from assets.plan import Plan
from assets.reports import Reports
from assets.tuning import BUDGET, TRIALS, study_name, tuned
from assets.window import read, span, symbols_of, window
from conf.compose import to_yaml
from quant import bundle_build
from quant.abstaining import signals
from quant.bundle import Bundle, identity, parquet
from quant.bundle_build import feature_statistics
from quant.folds import Fold, Split
from quant.recipe import Recipe
from quant.score import score
from quant.universe import session_of
from resources.clock import Clock
from resources.lake import Lake
from resources.progress import Progress
from resources.registry import Registry
from resources.settings import Settings
from resources.studies import Studies

ROOT = Path(__file__).resolve().parent.parent
GOLDEN_SLOTS = 16  # on sparse data the first of them may be empty, and at least one must not be
TRAINED_AT = "trained at"  # of its materialization, by the Clock
READ = (
    "tables read"  # by it, with their versions: what its evaluation reads too, though a refresh wrote others meanwhile
)
STILL_TRADED = 5  # a symbol with a bar in the last sessions has not ended
# Where a pipeline keeps and serves things, and how models are judged, does not make it another model.
NOT_IDENTITY = {"store", "serving", "judging", "automation", "drift", "retraining", "alerts", "retention"}
# Nor does what searches states: a bundle's novelty reads the names of vectors.columns only.
SEARCH: dict[str, set[str]] = {"vectors": {"window", "index", "apart"}}
NOTHING: dict[str, set[str]] = {}


def build(plan: Plan) -> dg.AssetsDefinition:
    """The `model` step of one horizon."""
    horizon = plan.horizon.name

    @dg.asset(
        key=names.key(horizon, "model"),
        deps=[
            dg.AssetDep(names.key(horizon, step), partition_mapping=dg.AllPartitionMapping())
            for step in ("factors", "drift")
        ],
        group_name=names.group(horizon),
        pool=names.TRAINING,
        kinds={"lightgbm"},
    )
    def model(
        context: dg.AssetExecutionContext,
        settings: Settings,
        lake: dg.ResourceParam[Lake],
        registry: dg.ResourceParam[Registry],
        clock: dg.ResourceParam[Clock],
        studies: dg.ResourceParam[Studies],
        progress: dg.ResourceParam[Progress],
        reports: dg.ResourceParam[Reports],
    ):
        """A LightGBM model of all symbols, early-stopped on purged rows and scored on rows it never saw."""
        run = Plan(settings.horizon(horizon))
        steps = {step: names.table(step, horizon) for step in ("bars", "features", "factors")}
        versions = {
            table: lake.version(table)
            for table in (*steps.values(), *(names.table("bars", name) for name in run.others))
        }
        pins = {table: version for table, version in versions.items() if version is not None}
        lake = lake.pinned(pins)  # a refresh may go on meanwhile
        data = load(run, lake)
        progress.rows(horizon, "model", len(data.y))
        digests = digests_of(run, data)
        id = identity(digests)
        cause = Cause.of(context.run.tags)
        trained_before = id in registry.bundles(horizon)
        if trained_before:
            context.log.info("bundle %s was trained from the same rows, config and code: nothing to do", id)
            bundle = registry.load(horizon, id)
        else:
            bundle, beside = _train(run, data, lake, digests, studies, progress)
            bundle.verify()
            registry.write(
                bundle,
                {
                    "tables": {step: versions[table] for step, table in steps.items()}
                    | {table: version for table, version in versions.items() if table not in steps.values()},
                    "run": context.run.run_id,
                    "trained_at": clock.now().isoformat(),
                    "cause": cause.to_dict(),
                },
                {name: parquet(frame) for name, frame in beside.items()},
            )
        decision = judgement.decide(run, data, lake, registry, bundle, context.run.run_id)
        scores = bundle.scores["model"]
        return dg.MaterializeResult(
            metadata={
                "bundle": id,
                "trained anew": not trained_before,
                **cause.metadata(),
                "made by": dg.MetadataValue.url(reports.run(context.run.run_id)),
                TRAINED_AT: dg.MetadataValue.timestamp(clock.now()),
                "evaluation": dg.MetadataValue.url(reports.page(horizon, f"evaluation-{id}.html")),
                "promotion": decision.why,
                "deployment": dg.MetadataValue.url(reports.asset(horizon, "deployment")),
                **decision.metadata,
                "dagster/row_count": len(data.y),
                **{f"rows {part}": count for part, count in bundle.manifest["counts"].items() if part != "rows"},
                "rows by fold": dg.MetadataValue.md(_account(bundle)),
                "training rows, as they weigh": _weighing(bundle),
                "trees": bundle.manifest["best_iteration"],
                "rank IC, out of sample": names.number(scores["rank_ic"]),
                "rank IC standard error": names.number(scores["rank_ic_error"]),
                "config": dg.MetadataValue.md(f"```yaml\n{to_yaml(run.horizon)}\n```"),
                READ: dg.MetadataValue.json(pins),
                "bundle folder": dg.MetadataValue.path(registry.path(horizon, id)),
            }
        )

    return model


def _account(bundle: Bundle) -> str:
    """Where the rows of each out-of-fold prediction went, as a table: its rows add up."""
    counts = [fold["counts"] for fold in bundle.manifest["folds"]]
    rows = [[number, *count.values()] for number, count in enumerate(counts)]
    return names.markdown_table(["fold", *counts[0]], rows) if rows else "no folds"


def _weighing(bundle: Bundle) -> float:
    """The effective number of training rows: fewer than there are where weights differ."""
    weights = bundle.manifest["weights"]
    return float(weights["effective"] if weights else bundle.manifest["counts"]["train"])


def _train(
    plan: Plan, data: Dataset, lake: Lake, digests: dict[str, str], studies: Studies, progress: Progress
) -> tuple[Bundle, dict[str, pl.DataFrame]]:
    """The bundle, and what lies beside it: predictions by models that did not learn from what they predict (see
    `learning.predicted`), and where parameters were searched what each trial would have earned.
    """
    cuts, parts = folds(plan, data), split(plan, data)
    study = study_name(plan.horizon.name, {**digests, "config": config_digest(plan, {"tuning": BUDGET})})
    search = tuned(plan, data, cuts, study, studies, progress)
    config = plan.horizon.model.model_copy(update=search[0].params if search else {})
    past = out_of_fold(plan, config, data, cuts)
    trained, measure = learn(config, data, parts.train, parts.valid), measured_by(plan, data, parts.train)
    unlike = novelty(measure, data, parts.test)
    held_out = predicted(data, parts.test, predict(trained, data, parts.test), unlike, parts.train, HELD_OUT)
    symbols = symbols_of(lake, plan.horizon.name)
    recipe = plan.recipe(symbols, _membership(lake, plan))
    golden_bars = _golden_bars(plan, lake, recipe, data)
    bundle = bundle_build.build(
        horizon=plan.horizon.name,
        recipe=recipe,
        trained=trained,
        config=plan.horizon.model_dump(mode="json", by_alias=True, exclude=NOT_IDENTITY),
        spans=_spans(data, parts),
        label={
            "name": plan.horizon.label.name,
            "text": plan.label.text,
            "lookahead": plan.label.lookahead,
        },
        digests=digests,
        golden_bars=golden_bars,
        golden_others=_golden_others(lake, recipe, golden_bars),
        counts={"in": len(data.y) + sum(data.dropped.values()), **parts.counts, **data.dropped},
        weights=_weights(data, parts),
        folds=[_fold(data, fold) for fold in cuts],
        tuning=search[0].summary() if search else None,
        scores=_scores(plan, held_out),
        statistics=feature_statistics(data.X[parts.train], data.names),
        novelty=measure,
        abstain_above=plan.horizon.novelty.abstain_above,
    )
    beside = {OUT_OF_FOLD: pl.concat([past, held_out])}
    return bundle, beside | ({TRIALS: search[1]} if search else {})


def _fold(data: Dataset, fold: Fold) -> dict[str, Any]:
    """A fold as the manifest tells it: spans by part, the blocks it tests, and where the rows went."""
    return {"spans": _spans(data, fold), "groups": list(fold.groups), "counts": fold.counts}


def _weights(data: Dataset, parts: Split) -> dict[str, float] | None:
    """How unequally the training rows weigh, their mean being 1; effective: Kish's number of rows, (Σw)² / Σw²."""
    if data.weight is None:
        return None
    w = data.weight[parts.train]
    w = w / w.mean()
    effective = w.sum() ** 2 / (w @ w)
    return {"rows": len(w), "lowest": float(w.min()), "highest": float(w.max()), "effective": float(effective)}


def _scores(plan: Plan, held_out: pl.DataFrame) -> dict[str, Any]:
    """Out-of-sample scores of the model and its baselines on the judging window, net of the declared costs."""
    traded = signals(held_out, "prediction", plan.horizon.novelty.abstain_above)
    frame = framed(plan, traded.rename({"prediction": "model"}))
    return score(frame, ("model", "linear", "last_return"), terms(plan), task_of(plan))


def _spans(data: Dataset, parts: Split | Fold) -> dict[str, list[str]]:
    """First and last bar of each part: what drift compares with, and what judged the model."""
    rows = {"train": parts.train, "valid": parts.valid, "test": parts.test}
    return {
        part: [f"{data.timestamp[at[end]].astype('datetime64[s]')}Z" for end in (0, -1)] for part, at in rows.items()
    }


def _golden_bars(plan: Plan, lake: Lake, recipe: Recipe, data: Dataset) -> pl.DataFrame:
    """Bars that reach the look-back of the newest labelled slots."""
    newest = data.timestamp.max()
    dates = plan.grid.session_dates(np.array([newest])).tolist()
    reach = window(plan, dates[0], dates[0], recipe.lookback + GOLDEN_SLOTS)
    upto = int(np.searchsorted(reach.slots, newest, side="right"))
    wanted = reach.slots[max(0, upto - recipe.lookback - GOLDEN_SLOTS) : upto]
    oldest = data.timestamp.min()
    if (wanted >= oldest).sum() <= recipe.lookback:
        raise dg.Failure(
            f"{plan.horizon.name}: labelled rows begin at {oldest}, and the factors look back {recipe.lookback} bars: "
            "too little history to prove a bundle on. Bring more bars, or shorten the windows of the sets",
            allow_retries=False,
        )
    bars = read(lake, "bars", plan.horizon.name, span(wanted))
    return bars.drop("partition").sort("timestamp", "symbol")


def _golden_others(lake: Lake, recipe: Recipe, golden_bars: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """All there are of the other horizons' bars that the golden slots depend on."""
    found = {}
    for horizon, slots in recipe.needs(golden_bars).items():
        bars = read(lake, "bars", horizon, span(slots)).filter(pl.col("symbol").is_in(list(recipe.symbols)))
        found[horizon] = bars.drop("partition").sort("timestamp", "symbol")
    return found


def _membership(lake: Lake, plan: Plan) -> pl.DataFrame | None:
    """Declared membership, or else that of the data where a symbol ended before the others did.

    A symbol without bars is missing from its section either way: this only says whom a section may lack.
    """
    if plan.members is not None:
        return plan.members
    bars = lake.scan(names.table("bars", plan.horizon.name)).select("symbol", "timestamp")
    spans = bars.group_by("symbol").agg(first=pl.min("timestamp"), last=pl.max("timestamp")).sort("symbol").collect()
    spans = spans.select(
        "symbol", start=session_of(spans["first"], plan.grid), end=session_of(spans["last"], plan.grid)
    )
    first, last = spans.select(pl.min("start"), pl.max("end")).row(0)
    sessions = plan.grid.dates(first, last)
    still = sessions[-min(STILL_TRADED, len(sessions))].item()
    if (spans["end"] >= still).all():
        return None
    return spans.with_columns(end=pl.when(pl.col("end") < still).then("end"))


def config_digest(plan: Plan, less: Mapping[str, set[str]] = NOTHING) -> str:
    """SHA-256 of the resolved config, as far as it makes the model; less: keys to leave out, by their parent."""
    exclude: dict[str, Any] = {**dict.fromkeys(NOT_IDENTITY, True), **SEARCH, **less}
    return hashlib.sha256(plan.horizon.model_dump_json(by_alias=True, exclude=exclude).encode()).hexdigest()


def digests_of(plan: Plan, data: Dataset) -> dict[str, str]:
    """What makes the bundle's id: the rows, the config, the code that computes, and the lock file."""
    rows = hashlib.sha256()
    for array in (data.X, data.y, data.timestamp, data.label_known):
        rows.update(np.ascontiguousarray(array).view(np.uint8).data)
    rows.update("\n".join([*data.names, *data.symbol.tolist()]).encode())
    for attributes in (plan.attributes_read, *(other.attributes for other in plan.others.values())):
        rows.update(json.dumps({name: held.to_dict() for name, held in attributes.items()}).encode())
    source = hashlib.sha256()
    for file in sorted((ROOT / "quant").glob("*.py")):
        source.update(file.name.encode() + file.read_bytes())
    return {
        "content": rows.hexdigest(),
        "config": config_digest(plan),
        "source": source.hexdigest(),
        "lock": hashlib.sha256((ROOT / "requirements.lock").read_bytes()).hexdigest(),
    }
