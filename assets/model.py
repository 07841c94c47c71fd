"""model: LightGBM on the factor table under a purged hold-out, written as a bundle that proves itself."""

import hashlib
import json
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import polars as pl

from assets import names
from assets.dataset import Dataset, load, split
from assets.plan import Plan
from assets.window import read, span, symbols_of, window
from conf.compose import to_yaml
from quant import bundle as bundles
from quant.baselines import linear
from quant.bundle import Bundle, feature_statistics, identity
from quant.folds import Split
from quant.forest import compile as compile_forest
from quant.recipe import Recipe
from quant.score import score
from quant.train import Trained, fit
from quant.universe import session_of
from resources.clock import Clock
from resources.lake import Lake
from resources.progress import Progress
from resources.registry import Registry
from resources.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
GOLDEN_SLOTS = 16  # on sparse data the first of them may be empty, and at least one must not be
STILL_TRADED = 5  # a symbol with a bar in the last sessions has not ended
# Where a pipeline keeps and serves things does not make it another model.
NOT_IDENTITY = {"store", "serving"}


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
        kinds={"lightgbm"},
    )
    def model(
        context: dg.AssetExecutionContext,
        settings: Settings,
        lake: dg.ResourceParam[Lake],
        registry: dg.ResourceParam[Registry],
        clock: dg.ResourceParam[Clock],
        progress: dg.ResourceParam[Progress],
    ):
        """A LightGBM model of all symbols, early-stopped on purged rows and scored on rows it never saw."""
        run = Plan(settings.horizon(horizon))
        data = load(run, lake)
        progress.rows(horizon, "model", len(data.y))
        digests = digests_of(run, data)
        id = identity(digests)
        trained_before = id in registry.bundles(horizon)
        if trained_before:
            context.log.info("bundle %s was trained from the same rows, config and code: nothing to do", id)
            bundle = registry.load(horizon, id)
        else:
            bundle = _train(run, data, lake, digests)
            bundle.verify()
            versions = {step: lake.version(names.table(step, horizon)) for step in ("bars", "features", "factors")}
            versions |= {table: lake.version(table) for table in (names.table("bars", name) for name in run.others)}
            registry.write(
                bundle, {"tables": versions, "run": context.run.run_id, "trained_at": clock.now().isoformat()}
            )
        why = promote_if_new(registry, horizon, id, context.run.run_id)
        scores = bundle.scores["model"]
        return dg.MaterializeResult(
            metadata={
                "bundle": id,
                "trained anew": not trained_before,
                "promotion": why,
                "dagster/row_count": len(data.y),
                **{f"rows {part}": count for part, count in bundle.manifest["counts"].items()},
                "trees": bundle.manifest["best_iteration"],
                "rank IC, out of sample": names.number(scores["rank_ic"]),
                "rank IC standard error": names.number(scores["rank_ic_error"]),
                "config": dg.MetadataValue.md(f"```yaml\n{to_yaml(run.horizon)}\n```"),
                "bundle folder": dg.MetadataValue.path(registry.path(horizon, id)),
            }
        )

    return model


def promote_if_new(registry: Registry, horizon: str, id: str, run: str) -> str:
    """Promote a bundle the ledger has never named; one that was replaced or rolled back stays where it is."""
    ledger = registry.ledger(horizon)
    if any(entry.id == id for entry in ledger):
        serving = (
            "is the champion" if ledger[-1].id == id else f"is known to the ledger; {ledger[-1].id} stays champion"
        )
        return f"{id} {serving}"
    entry = registry.promote(horizon, id, f"newest model that proved itself, run {run[:8]}")
    return f"number {entry.number} of the ledger: {entry.why}"


def _train(plan: Plan, data: Dataset, lake: Lake, digests: dict[str, str]) -> Bundle:
    config = plan.horizon.model
    parts = split(plan, data)
    params = config.params()
    trained = fit(
        data.X,
        data.y,
        parts,
        {name: value for name, value in params.items() if name not in ("n_estimators", "seed")},
        names=data.names,
        seed=config.seed,
        rounds=config.n_estimators,
        early_stopping_rounds=config.early_stopping_rounds,
    )
    symbols = symbols_of(lake, plan.horizon.name)
    recipe = plan.recipe(symbols, _membership(lake, plan))
    golden_bars = _golden_bars(plan, lake, recipe, data)
    return bundles.build(
        horizon=plan.horizon.name,
        recipe=recipe,
        trained=trained,
        config=plan.horizon.model_dump(mode="json", by_alias=True, exclude=NOT_IDENTITY),
        spans=_spans(data, parts),
        label={
            "name": plan.horizon.label.name,
            "text": plan.label_entry.text,
            "lookahead": plan.label.lookahead,
        },
        digests=digests,
        golden_bars=golden_bars,
        golden_others=_golden_others(lake, recipe, golden_bars),
        counts={**parts.counts, **data.dropped},
        scores=_scores(plan, data, parts, trained),
        statistics=feature_statistics(data.X[parts.train], data.names),
    )


def _scores(plan: Plan, data: Dataset, parts: Split, trained: Trained) -> dict[str, Any]:
    """Out-of-sample scores of the model and its baselines on the test rows, net of the declared costs."""
    test, costs = parts.test, plan.horizon.costs
    return score(
        data.timestamp[test],
        data.symbol[test],
        data.y[test],
        {
            "model": compile_forest(trained.text).predict(data.X[test]),
            "linear": linear(data.X, data.y, parts.train, test),
            "last_return": data.last_return[test],
        },
        lookahead=plan.label.lookahead,
        cost_bps=costs.bps_per_side + costs.spread_bps / 2 + costs.slippage_bps,
    )


def _spans(data: Dataset, parts: Split) -> dict[str, list[str]]:
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
        "config": hashlib.sha256(
            plan.horizon.model_dump_json(by_alias=True, exclude=NOT_IDENTITY).encode()
        ).hexdigest(),
        "source": source.hexdigest(),
        "lock": hashlib.sha256((ROOT / "requirements.lock").read_bytes()).hexdigest(),
    }
