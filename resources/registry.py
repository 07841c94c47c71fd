"""The model registry: bundles in folders that appear whole or not at all, and the promotion ledger.

    registry/<horizon>/bundles/<id>/        the bundle's files, and provenance.json beside them
    registry/<horizon>/ledger/000001.json   one promotion or rollback each; the highest number serves

Both are only ever added to. Works on any file system with atomic rename and hard links.
"""

import json
import os
import shutil
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from quant.bundle import MANIFEST, Bundle, BundleError
from resources.clock import Clock, SystemClock

PROVENANCE = "provenance.json"
Action = Literal["promote", "rollback"]

ATTEMPTS = 100  # writers that may come between two looks at the ledger before we give up


class RegistryError(RuntimeError):
    """The registry cannot do what was asked; the message names the horizon and the bundle."""


@dataclass(frozen=True)
class Entry:
    """One line of the ledger: since `at`, bundle `id` serves `horizon`, and why."""

    number: int
    horizon: str
    id: str
    action: Action
    why: str
    at: datetime

    def to_json(self) -> bytes:
        values = {"number": self.number, "horizon": self.horizon, "bundle": self.id, "action": self.action}
        return json.dumps(values | {"why": self.why, "at": self.at.isoformat()}, indent=1).encode()

    @classmethod
    def from_json(cls, data: bytes) -> "Entry":
        values = json.loads(data)
        at = datetime.fromisoformat(values.pop("at"))
        return cls(id=values.pop("bundle"), at=at, **values)


class Registry:
    """Bundles and ledgers below `root`/registry. Safe for several processes at once."""

    def __init__(self, root: Path, clock: Clock | None = None) -> None:
        self._root = Path(root) / "registry"
        self._clock = clock or SystemClock()

    def horizons(self) -> list[str]:
        """Horizons that have a bundle or a ledger."""
        return sorted(folder.name for folder in self._root.iterdir() if folder.is_dir()) if self._root.is_dir() else []

    # -- bundles ---------------------------------------------------------------------------------------------

    def write(self, bundle: Bundle, provenance: Mapping[str, Any]) -> str:
        """Keep a bundle and return its id; one that is there already is left as it is, if it is the same.

        provenance: table versions, times, run ids: beside the bundle, not part of its identity. Raises
        RegistryError where the id holds other content.
        """
        files = bundle.to_files()
        target = self.path(bundle.horizon, bundle.id)
        if not target.exists():
            self._place(target, files | {PROVENANCE: json.dumps(provenance, indent=1, default=str).encode()})
        kept = {name: (target / name).read_bytes() for name in files if (target / name).is_file()}
        if different := [name for name in files if kept.get(name) != files[name]]:
            raise RegistryError(
                f"bundle {bundle.id} of {bundle.horizon} is there with other content in "
                f"{', '.join(different)}: the same data, config and code gave two models, or"
                f" {target} was changed"
            )
        return bundle.id

    def load(self, horizon: str, id: str) -> Bundle:
        """Read a bundle and check every file; RegistryError or BundleError names what is wrong."""
        folder = self.path(horizon, id)
        if not folder.is_dir():
            self._require(horizon, id)
        try:
            bundle = Bundle.from_files({file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()})
        except BundleError as error:
            raise BundleError(f"bundle {id} of {horizon}: {error}") from error
        if (bundle.horizon, bundle.id) != (horizon, id):
            raise BundleError(
                f"{folder} holds bundle {bundle.id} of {bundle.horizon}: it was copied to the wrong place"
            )
        return bundle

    def provenance(self, horizon: str, id: str) -> dict[str, Any]:
        """Where a bundle came from: what `write` was given."""
        return json.loads((self.path(horizon, id) / PROVENANCE).read_text())

    def bundles(self, horizon: str) -> list[str]:
        """Ids of the bundles of a horizon, oldest first."""
        found = (self._root / horizon / "bundles").glob(f"*/{MANIFEST}")
        kept = [file for file in found if not file.parent.name.startswith(".")]
        return [file.parent.name for file in sorted(kept, key=lambda file: (file.stat().st_mtime_ns, file))]

    def path(self, horizon: str, id: str) -> Path:
        """The bundle's folder."""
        return self._root / horizon / "bundles" / id

    # -- the ledger ------------------------------------------------------------------------------------------

    def promote(self, horizon: str, id: str, why: str) -> Entry:
        """Append: from now on `id` serves. RegistryError where there is no such bundle."""
        self._require(horizon, id)
        return self._append(horizon, lambda _: (id, "promote"), why)

    def rollback(self, horizon: str, why: str) -> Entry:
        """Append: the champion before the present one serves again. RegistryError where there is none.

        A second rollback goes one further back: rollbacks undo promotions, not each other.
        """

        def previous(ledger: list[Entry]) -> tuple[str, Action]:
            champions = _champions(ledger)
            if len(champions) < 2:
                raise RegistryError(f"{horizon} has no earlier champion to roll back to")
            self._require(horizon, champions[-2])
            return champions[-2], "rollback"

        return self._append(horizon, previous, why)

    def ledger(self, horizon: str) -> list[Entry]:
        """All entries in their order."""
        return [self._entry(file) for file in self._entries(horizon)]

    def champion(self, horizon: str) -> Entry | None:
        """The newest entry: what should serve. None before the first promotion."""
        files = self._entries(horizon)
        return self._entry(files[-1]) if files else None

    def _entries(self, horizon: str) -> list[Path]:
        return sorted((self._root / horizon / "ledger").glob("[0-9]*.json"), key=lambda file: int(file.stem))

    def _entry(self, file: Path) -> Entry:
        try:
            return Entry.from_json(file.read_bytes())
        except (ValueError, KeyError, TypeError) as error:
            raise RegistryError(f"ledger entry {file} is damaged: {error}; restore it or remove it") from error

    def _append(self, horizon: str, decide: Callable[[list[Entry]], tuple[str, Action]], why: str) -> Entry:
        """Link the next number to a finished file; where another writer took it, decide again."""
        folder = self._root / horizon / "ledger"
        folder.mkdir(parents=True, exist_ok=True)
        draft = folder / f".{uuid.uuid4().hex}"
        try:
            for _ in range(ATTEMPTS):
                ledger = self.ledger(horizon)
                id, action = decide(ledger)
                number = ledger[-1].number + 1 if ledger else 1
                entry = Entry(number, horizon, id, action, why, self._clock.now())
                _write(draft, entry.to_json())
                try:
                    os.link(draft, folder / f"{number:06}.json")
                except FileExistsError:
                    continue
                return entry
        finally:
            draft.unlink(missing_ok=True)
        raise RegistryError(f"the ledger of {horizon} grew {ATTEMPTS} times while we tried to append: try again")

    def _require(self, horizon: str, id: str) -> None:
        known = self.bundles(horizon)
        if id not in known:
            raise RegistryError(f"no bundle {id!r} of horizon {horizon!r}; there are: {', '.join(known) or 'none'}")

    def _place(self, target: Path, files: Mapping[str, bytes]) -> None:
        """Write the files to a folder of another name, then rename it: readers see all of them or none."""
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = target.parent / f".{target.name}.{uuid.uuid4().hex}"
        draft.mkdir()
        try:
            for name, data in files.items():
                _write(draft / name, data)
            draft.rename(target)
        except OSError:
            if not target.is_dir():
                raise
            # Another process placed the same id first; the caller compares its content with ours.
        finally:
            shutil.rmtree(draft, ignore_errors=True)


def _champions(ledger: list[Entry]) -> list[str]:
    """Who served, each promotion on top of the one before, each rollback taking one off."""
    stack: list[str] = []
    for entry in ledger:
        if entry.action == "rollback":
            stack.pop()
        elif not stack or stack[-1] != entry.id:
            stack.append(entry.id)
    return stack


def _write(path: Path, data: bytes) -> None:
    """Write a file through to the disk: what is renamed afterwards must not be empty after a power cut."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
