"""What the past must leave: bundles that something refers to, and the table versions that these were made from."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import polars as pl

from resources.lake import Lake
from resources.registry import PROVENANCE, Registry

LOG = "predictions"  # the service writes it: who answered what


@dataclass(frozen=True)
class Kept:
    """Bundles of one horizon that stay, each with the reason, and those that may go, oldest first."""

    reasons: Mapping[str, str]
    going: tuple[str, ...]


def bundles(registry: Registry, lake: Lake, horizon: str, newest: int) -> Kept:
    """Which bundles stay: what the ledger names, what answered, and the `newest` that never served.

    The newest bundle of all stays in any case: it stands beside the champion, or is being judged.
    """
    known, ledger = registry.bundles(horizon), registry.ledger(horizon)
    reasons: dict[str, str] = {}
    for entry in ledger:
        reasons[entry.id] = f"number {entry.number} of the ledger"
    if ledger:
        reasons[ledger[-1].id] = "the champion"
    for id in answered(lake, horizon):
        reasons.setdefault(id, "its answers are in the prediction log")
    if known:
        reasons.setdefault(known[-1], "the newest bundle")
    others = [id for id in known if id not in reasons]
    for id in others[max(0, len(others) - newest) :]:
        reasons[id] = "one of the newest that never served"
    return Kept(reasons, tuple(id for id in known if id not in reasons))


def answered(lake: Lake, horizon: str) -> list[str]:
    """Bundles whose answers somebody was told, as far as the prediction log goes back."""
    table = f"{LOG}/{horizon}"
    if not lake.exists(table):
        return []
    told = lake.scan(table).filter(pl.col("role") != "shadow").select(pl.col("bundle").unique().sort())
    return list(told.collect()["bundle"])


def versions(registry: Registry, kept: Mapping[str, Iterable[str]]) -> dict[str, dict[int, str]]:
    """Table versions that kept bundles were made from, by table, each with one such bundle. kept: ids by horizon."""
    found: dict[str, dict[int, str]] = {}
    for horizon, ids in kept.items():
        for id in sorted(set(ids) & set(registry.bundles(horizon))):
            if not (registry.path(horizon, id) / PROVENANCE).is_file():
                continue  # it was copied here without: nobody knows what it was made from
            for name, version in registry.provenance(horizon, id).get("tables", {}).items():
                table = name if "/" in name else f"{name}/{horizon}"
                if version is not None:
                    found.setdefault(table, {})[int(version)] = f"bundle {id} of {horizon}"
    return found
