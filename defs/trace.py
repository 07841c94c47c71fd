"""One prediction taken back: to its factors and what each added, its bars, its bundle, the ledger and the tables."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import polars as pl

from quant.bundle import Bundle, BundleError
from quant.explain import contributions
from quant.recipe import RecipeError
from resources.lake import Lake
from resources.registry import Registry, RegistryError
from serving.live_load import Store
from serving.log_rows import inputs_hashes

SHOWN_BARS = 5  # the newest of the symbol, the predicted one last


@dataclass(frozen=True)
class Replay:
    """Factor values made again from the bars as they are now, pushed ones among them. problem: why they cannot be."""

    version: int | None
    values: np.ndarray | None = None  # float32 [F]
    bars: pl.DataFrame | None = None  # the symbol's, oldest first
    problem: str | None = None


def trace(row: Mapping[str, Any], also: pl.DataFrame, horizon: str, store: Store, registry: Registry) -> dict[str, Any]:
    """All that is known of one row of the prediction log, as JSON values and datetimes.

    also: other rows of the same signal: what the challenger said in shadow. Where the bundle that answered is gone or
    damaged, what the log, the ledger and the bars say without it, and why there is no more.
    """
    try:
        bundle = registry.load(horizon, row["bundle"])
    except (RegistryError, BundleError) as error:
        return _without_bundle(str(error), row, also, horizon, store, registry)
    replay = _replay(bundle, row, horizon, store)
    logged = None if row["inputs"] is None else np.asarray(row["inputs"], np.float32)
    proved = replay.values is not None and inputs_hashes(replay.values[None])[0] == row["inputs_hash"]
    values = logged if logged is not None else replay.values if proved else None
    return {
        **_said(row, also, horizon),
        "bundle": {
            "id": bundle.id,
            "ledger": _ledger(row, horizon, registry),
            "objective": bundle.manifest["objective"],
            "trees": bundle.manifest["trees"],
            "spans": dict(bundle.manifest["spans"]),
            "provenance": _provenance(bundle.id, horizon, registry),
            "digests": dict(bundle.manifest["digests"]),
        },
        "label": dict(bundle.manifest["label"]),
        "config": bundle.manifest["config"],
        **_factors(bundle, row, values, logged, replay),
        "bars": _bars(replay, horizon, row["at"], store.lake),
    }


def _said(row: Mapping[str, Any], also: pl.DataFrame, horizon: str) -> dict[str, Any]:
    """What the log has, whatever became of the bundle."""
    return {
        "signal": row["signal"],
        "horizon": horizon,
        "answered": {name: row[name] for name in ("request", "at", "route", "role", "seconds")},
        "symbol": row["symbol"],
        "timestamp": row["timestamp"],
        "prediction": row["prediction"],
        "coverage": row["coverage"],
        "novelty": row.get("novelty"),  # a log of the first format has none
        "abstained": bool(row.get("abstained")),
        "inputs": row["inputs"],
        "shadow": also.filter(role="shadow").select("bundle", "prediction").to_dicts(),
    }


def _without_bundle(
    why: str, row: Mapping[str, Any], also: pl.DataFrame, horizon: str, store: Store, registry: Registry
) -> dict[str, Any]:
    """The same without a bundle that can be read; `why` it cannot."""
    return {
        **_said(row, also, horizon),
        "bundle": {
            "id": row["bundle"],
            "problem": why,
            "ledger": _ledger(row, horizon, registry),
            "spans": {},
            "provenance": _provenance(row["bundle"], horizon, registry),
        },
        "label": None,
        "config": None,
        "factors": None,
        "replay": {"problem": f"nothing can be replayed without the bundle: {why}"},
        "bars": _bars(_stored_bars(row, horizon, store), horizon, row["at"], store.lake),
    }


def _stored_bars(row: Mapping[str, Any], horizon: str, store: Store) -> Replay:
    """The symbol's bars just before the answer, where the table says on which grid."""
    version, grid, stamp = store.version(horizon), store.grid(horizon), row["timestamp"]
    if version is None or grid is None or stamp is None or row["symbol"] is None:
        return Replay(version)
    day = grid.session_dates(_instants(stamp))[0].item()
    slots = grid.slots(grid.back(day, SHOWN_BARS), day)
    bars = _read(store, horizon, slots[slots <= _instants(stamp)])
    return Replay(version, bars=bars.filter(symbol=row["symbol"]))


def _ledger(row: Mapping[str, Any], horizon: str, registry: Registry) -> dict[str, Any]:
    """The entry under which it was answered; a challenger has none: that of the champion beside it."""
    try:
        entry = next((one for one in registry.ledger(horizon) if one.number == row["number"]), None)
    except RegistryError as error:
        return {"number": row["number"], "problem": str(error)}
    if entry is None:
        return {"number": row["number"], "problem": f"the ledger of {horizon} has no number {row['number']}"}
    told = {"number": entry.number, "bundle": entry.id, "action": entry.action, "why": entry.why, "by": entry.by}
    return {**told, "at": entry.at}


def _provenance(id: str, horizon: str, registry: Registry) -> dict[str, Any]:
    try:
        found = registry.provenance(horizon, id)
    except (OSError, RegistryError) as error:
        return {"problem": f"where it came from cannot be read: {error}"}
    return found or {"problem": "where it came from cannot be read: nothing beside the bundle says it"}


def _factors(
    bundle: Bundle, row: Mapping[str, Any], values: np.ndarray | None, logged: np.ndarray | None, replay: Replay
) -> dict[str, Any]:
    """Each factor with its value and what it added to the raw score; whether the answer and the values replay."""
    if values is None:
        why = "the log keeps no inputs (log.inputs) and the bars do not give the factors that were answered"
        return {"factors": None, "replay": {"problem": f"{why}: {replay.problem or 'their hash differs'}"}}
    X = np.ascontiguousarray(values[None, :])
    shares = contributions(bundle.text, bundle.preprocess.apply(X))[0]
    again = float(bundle.predict_rows(X)[0])
    differ: list[str] | None = None
    if logged is not None and replay.values is not None:
        same = (replay.values.view(np.int32) == values.view(np.int32)) | (np.isnan(replay.values) & np.isnan(values))
        differ = [name for name, equal in zip(bundle.factors, same, strict=True) if not equal]
    recipe, made = bundle.recipe, replay.values
    factors = [
        {
            "name": name,
            "value": _number(values[at]),
            "contribution": float(shares[at]),
            "from bars": None if made is None else _number(made[at]),
            "expression": recipe.factors[name],
            "feature": recipe.features.get(recipe.factors[name]),
        }
        for at, name in enumerate(bundle.factors)
    ]
    return {
        "factors": sorted(factors, key=lambda one: -abs(one["contribution"])),
        "base": float(shares[-1]),
        "raw score": float(shares.sum()),
        "replay": {
            "same prediction": again == row["prediction"] or (np.isnan(again) and row["prediction"] is None),
            "inputs unchanged": inputs_hashes(values[None])[0] == row["inputs_hash"],
            "factors that differ from the bars": differ,
            "problem": replay.problem,
        },
    }


def _replay(bundle: Bundle, row: Mapping[str, Any], horizon: str, store: Store) -> Replay:
    """The row's factors from the newest version of the bars table, and from what was pushed since."""
    table, stamp, symbol, recipe = f"bars/{horizon}", row["timestamp"], row["symbol"], bundle.recipe
    version = store.version(horizon)
    if version is None:
        return Replay(None, problem=f"there is no table {table}")
    if stamp is None or symbol is None:
        return Replay(version, problem="the request named no symbol and bar")
    day = recipe.grid.session_dates(_instants(stamp))[0].item()
    slots = recipe.grid.slots(recipe.grid.back(day, recipe.lookback), day)
    slots = slots[slots <= _instants(stamp)][-recipe.lookback - 1 :]
    bars = _read(store, horizon, slots).filter(pl.col("symbol").is_in(list(recipe.symbols)))
    mine = bars.filter(symbol=symbol)
    if mine.filter(timestamp=stamp).is_empty():
        return Replay(version, bars=mine, problem=f"{horizon} has no bar of {symbol} at {stamp:%Y-%m-%d %H:%M}")
    try:
        others = {name: _read(store, name, theirs) for name, theirs in recipe.needs(bars, 1).items()}
        keys, X = recipe.rows(bars, 1, set(recipe.symbols) - set(bars["symbol"]), others)
    except RecipeError as error:
        return Replay(version, bars=mine, problem=str(error))
    at = keys["symbol"].index_of(symbol)
    if at is None:
        return Replay(version, bars=mine, problem=f"{symbol} is no row of its section: no member, or outside bounds")
    return Replay(version, X[at], mine)


def _bars(replay: Replay, horizon: str, at: datetime, lake: Lake) -> dict[str, Any]:
    table = f"bars/{horizon}"
    shown = None if replay.bars is None else replay.bars.sort("timestamp").tail(SHOWN_BARS)
    return {
        "table": table,
        "version now": replay.version,
        "version then": None if replay.version is None else lake.version_at(table, at),
        "newest": None if shown is None else shown.to_dicts(),
    }


def _read(store: Store, horizon: str, slots: np.ndarray) -> pl.DataFrame:
    first, last = (slot.replace(tzinfo=UTC) for slot in slots[[0, -1]].tolist())
    return store.between(horizon, first, last)


def _instants(stamp: datetime) -> np.ndarray:
    return np.array([stamp.astimezone(UTC).replace(tzinfo=None)], "datetime64[us]")


def _number(value: np.float32) -> float | None:
    return None if np.isnan(value) else float(value)
