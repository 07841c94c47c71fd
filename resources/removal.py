"""Taking bundles away that the ledger does not name: a rename hides them, and one promoted meanwhile comes back."""

import json
import shutil
import time
import uuid
from collections.abc import Collection
from pathlib import Path

from resources.registry import JUDGED, Registry, write_through

SETTLING = 1.0  # seconds from a promotion's look at a bundle to its entry, at the very most


def remove(registry: Registry, horizon: str, ids: Collection[str]) -> list[str]:
    """Delete those of these bundles that the ledger does not name, and say which. Their judgements stay.

    Each disappears by a rename, and is deleted once a promotion that had seen it before must have shown in the ledger:
    one that has comes back. A crash leaves hidden folders, which `leftovers` finds.
    """
    hidden: dict[str, Path] = {}
    for id in sorted(set(ids) - registry.served(horizon)):
        _keep_judgements(registry, horizon, id)
        hidden[id] = registry.path(horizon, id).parent / f".removed.{id}.{uuid.uuid4().hex}"
        registry.path(horizon, id).rename(hidden[id])
    if hidden:
        time.sleep(SETTLING)
    served = registry.served(horizon)
    for id, folder in hidden.items():
        if id in served:
            folder.rename(registry.path(horizon, id))
        else:
            shutil.rmtree(folder)
    return sorted(set(hidden) - served)


def leftovers(registry: Registry, horizon: str) -> list[Path]:
    """Hidden files and folders that a crash may have left, or that another process is writing now."""
    places = [registry.folder(horizon) / name for name in ("bundles", "ledger", JUDGED)]
    return sorted(path for place in places if place.is_dir() for path in place.iterdir() if path.name[0] == ".")


def _keep_judgements(registry: Registry, horizon: str, id: str) -> None:
    """Beside the bundles: how a bundle was judged counts as a try after it has gone."""
    judgements = registry.judgements(horizon, id)
    if not judgements:
        return
    kept = registry.folder(horizon) / JUDGED / f"{id}.json"
    kept.parent.mkdir(parents=True, exist_ok=True)
    before = list(json.loads(kept.read_bytes())) if kept.exists() else []
    draft = kept.parent / f".{id}.{uuid.uuid4().hex}"
    added = [one for one in judgements if one not in before]
    write_through(draft, json.dumps(before + added, indent=1, allow_nan=False).encode())
    draft.replace(kept)
