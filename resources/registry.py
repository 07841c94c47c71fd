"""The model registry: bundles in folders that appear whole or not at all, and the promotion ledger.

    registry/<horizon>/bundles/<id>/        the bundle's files; provenance.json and judgement.json beside them
    registry/<horizon>/ledger/000001.json   one promotion or rollback each; the highest number serves
                             000002.json.damaged   one that nobody could restore, set aside by hand: its number is taken
    registry/<horizon>/judged/<id>.json     how bundles were judged that `tenor vacuum` has removed: tries stay counted

Both are only ever added to, but that `resources/removal.py` takes bundles away which the ledger does not name. Works on
any file system with atomic rename and hard links.
"""

import difflib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, get_args

from quant.bundle import MANIFEST, Bundle, BundleError
from resources.clock import Clock, clock_of_environment

PROVENANCE, JUDGEMENT = "provenance.json", "judgement.json"
JUDGED = "judged"
ASIDE = ".damaged"  # behind the name of a ledger entry that was set aside
Action = Literal["promote", "rollback"]
_TEXTS = ("horizon", "bundle", "action", "why", "at")
NOTHING: Mapping[str, bytes] = {}

ATTEMPTS = 100  # writers that may come between two looks at the ledger before we give up


class RegistryError(RuntimeError):
    """The registry cannot do what was asked; the message names the horizon and the bundle."""


class LedgerMoved(RegistryError):
    """Another entry was appended since the caller looked: what it decided may no longer hold."""


class Undecided(RegistryError):
    """The newest entry is set aside as damaged: who should serve is not known until somebody promotes anew."""


@dataclass(frozen=True)
class Entry:
    """One line of the ledger: since `at`, bundle `id` serves `horizon`, why, and on whose word."""

    number: int
    horizon: str
    id: str
    action: Action
    why: str
    at: datetime
    by: str = ""  # entries of before it was recorded have none

    def to_json(self) -> bytes:
        values = {"number": self.number, "horizon": self.horizon, "bundle": self.id, "action": self.action}
        return json.dumps(values | {"why": self.why, "by": self.by, "at": self.at.isoformat()}, indent=1).encode()

    @classmethod
    def from_json(cls, data: bytes) -> "Entry":
        """An entry as `to_json` writes it; ValueError says, in a reader's words, why it is none."""
        try:
            values = json.loads(data)
        except ValueError as error:
            raise ValueError("it is not JSON") from error
        if not isinstance(values, dict):
            raise ValueError("it is no JSON object")
        for name, kind in {"number": int, **dict.fromkeys(_TEXTS, str)}.items():
            if type(values.get(name)) is not kind:
                raise ValueError(f"it has no {name!r} that is a {'number' if kind is int else 'text'}")
        if more := values.keys() - {"number", "by", *_TEXTS}:
            raise ValueError(f"it has {min(more)!r}, which no entry has")
        if values["action"] not in get_args(Action):
            raise ValueError(f"its action {values['action']!r} is none of {', '.join(get_args(Action))}")
        try:
            at = datetime.fromisoformat(values.pop("at"))
        except ValueError as error:
            raise ValueError("its 'at' is no time") from error
        return cls(id=values.pop("bundle"), at=at, **values)


class Registry:
    """Bundles and ledgers below `root`/registry. Safe for several processes at once."""

    def __init__(self, root: Path, clock: Clock | None = None) -> None:
        self._root = Path(root) / "registry"
        self._clock = clock or clock_of_environment()

    def horizons(self) -> list[str]:
        """Horizons that have a bundle or a ledger."""
        return sorted(folder.name for folder in self._root.iterdir() if folder.is_dir()) if self._root.is_dir() else []

    # -- bundles ---------------------------------------------------------------------------------------------

    def write(self, bundle: Bundle, provenance: Mapping[str, Any], beside: Mapping[str, bytes] = NOTHING) -> str:
        """Keep a bundle and return its id; one that is there already is left as it is, if it is the same.

        provenance: table versions, times, run ids: beside the bundle, not part of its identity. beside: further files
        of its folder, which serving does not read. Raises RegistryError where the id holds other content.
        """
        files = bundle.to_files()
        target = self.path(bundle.horizon, bundle.id)
        if not target.exists():
            told = json.dumps(provenance, indent=1, default=str).encode()
            self._place(target, files | dict(beside) | {PROVENANCE: told})
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

    def manifest(self, horizon: str, id: str) -> dict[str, Any]:
        """What a bundle says of itself, nothing checked: for lists. RegistryError where it cannot be read."""
        self._require(horizon, id)
        file = self.path(horizon, id) / MANIFEST
        try:
            return json.loads(file.read_bytes())
        except ValueError as error:
            raise RegistryError(f"{file} is damaged: {error}; restore it, or remove the bundle's folder") from None

    def size(self, horizon: str, id: str) -> int:
        """Bytes of a bundle's folder."""
        return sum(file.stat().st_size for file in self.path(horizon, id).iterdir() if file.is_file())

    def find(self, horizon: str, start: str) -> str:
        """The one bundle whose id starts so; RegistryError names those that do, or the nearest."""
        known = self.bundles(horizon)
        found = [id for id in known if id.startswith(start)]
        if len(found) == 1:
            return found[0]
        if found:
            raise RegistryError(
                f"{len(found)} bundles of {horizon} start with {start}: {', '.join(found)}; write more of it"
            )
        near = difflib.get_close_matches(start, [*known, *(id[: len(start)] for id in known)], n=1, cutoff=0.5)
        meant = next((id for id in known if near and id.startswith(near[0])), None)
        hint = f"did you mean {meant}?" if meant else f"there are: {', '.join(known) or 'none'}"
        raise RegistryError(f"no bundle {start!r} of horizon {horizon!r}; {hint}")

    def provenance(self, horizon: str, id: str) -> dict[str, Any]:
        """Where a bundle came from: what `write` was given; nothing where the bundle was copied here without it."""
        file = self.path(horizon, id) / PROVENANCE
        try:
            return json.loads(file.read_text()) if file.is_file() else {}
        except ValueError as error:
            raise RegistryError(f"{file} is damaged: {error}; restore it from a copy") from None

    def bundles(self, horizon: str) -> list[str]:
        """Ids of the bundles of a horizon, oldest first."""
        found = (self._root / horizon / "bundles").glob(f"*/{MANIFEST}")
        kept = [file for file in found if not file.parent.name.startswith(".")]
        return [file.parent.name for file in sorted(kept, key=lambda file: (file.stat().st_mtime_ns, file))]

    def folder(self, horizon: str) -> Path:
        """All that there is of a horizon."""
        return self._root / horizon

    def path(self, horizon: str, id: str) -> Path:
        """The bundle's folder."""
        return self.folder(horizon) / "bundles" / id

    # -- judgements ------------------------------------------------------------------------------------------

    def judged(self, horizon: str, id: str, judgement: Mapping[str, Any]) -> int:
        """Add a judgement of a bundle to the file beside it; its number there, from 1."""
        self._require(horizon, id)
        found = [*self.judgements(horizon, id), {"at": self._clock.now().isoformat(), **judgement}]
        # Outside the folder: a bundle is loaded by reading all that is in it.
        draft = self.path(horizon, id).parent / f".{id}.{uuid.uuid4().hex}"
        write_through(draft, json.dumps(found, indent=1, allow_nan=False).encode())
        draft.replace(self.path(horizon, id) / JUDGEMENT)
        return len(found)

    def judgements(self, horizon: str, id: str) -> list[dict[str, Any]]:
        """Every judgement of a bundle, the newest last; RegistryError where the file is damaged."""
        file = self.path(horizon, id) / JUDGEMENT
        if not file.is_file():
            return []
        try:
            return list(json.loads(file.read_bytes()))
        except (ValueError, TypeError) as error:
            raise RegistryError(
                f"{file} is damaged: {error}; restore it from a copy: removed, the tries that it counts are forgotten"
            ) from None

    def served(self, horizon: str) -> set[str]:
        """Ids that the ledger names."""
        return {entry.id for entry in self.ledger(horizon)}

    def all_judgements(self, horizon: str) -> dict[str, list[dict[str, Any]]]:
        """The judgements of every bundle by its id, of removed ones too."""
        files = (self.folder(horizon) / JUDGED).glob("[!.]*.json")
        removed = {file.stem: list(json.loads(file.read_bytes())) for file in files}
        here = {id: self.judgements(horizon, id) for id in self.bundles(horizon)}
        return {id: removed.get(id, []) + here.get(id, []) for id in sorted({*removed, *here})}

    # -- the ledger ------------------------------------------------------------------------------------------

    def promote(self, horizon: str, id: str, why: str, *, by: str = "", over: int | None = None) -> Entry:
        """Append: from now on `id` serves. RegistryError where there is no such bundle.

        It decides anew where the newest entry is set aside. over: the newest number that the decision knew of (0:
        none); LedgerMoved where there is a newer one.
        """
        self._require(horizon, id)

        def chosen(ledger: list[Entry]) -> tuple[str, Action]:
            _unmoved(horizon, ledger, over)
            return id, "promote"

        return self._append(horizon, chosen, why, by)

    def rollback(self, horizon: str, why: str, *, by: str = "", over: int | None = None) -> Entry:
        """Append: the champion before the present one serves again. RegistryError where there is none.

        A second rollback goes one further back: rollbacks undo promotions, not each other. over: as for `promote`.
        """

        def previous(ledger: list[Entry]) -> tuple[str, Action]:
            self._decided(horizon, ledger)
            _unmoved(horizon, ledger, over)
            before = _before(horizon, ledger)
            self._require(horizon, before)
            return before, "rollback"

        return self._append(horizon, previous, why, by)

    def ledger(self, horizon: str) -> list[Entry]:
        """All entries in their order; RegistryError for a damaged one, Undecided where the newest is set aside."""
        return self._decided(horizon, [self._entry(file) for file in self._entries(horizon)])

    def champion(self, horizon: str) -> Entry | None:
        """The newest entry: what should serve. None before the first promotion; raises as `ledger`."""
        newest = self._decided(horizon, [self._entry(file) for file in self._entries(horizon)[-1:]])
        return newest[0] if newest else None

    def aside(self, horizon: str) -> list[int]:
        """Numbers of entries that were set aside as damaged."""
        found = (self._root / horizon / "ledger").glob(f"[0-9]*.json{ASIDE}")
        return sorted(int(file.name.partition(".")[0]) for file in found)

    def previous(self, horizon: str) -> str:
        """The champion that a rollback would bring back; RegistryError where there is none."""
        return _before(horizon, self.ledger(horizon))

    def _entries(self, horizon: str) -> list[Path]:
        return sorted((self._root / horizon / "ledger").glob("[0-9]*.json"), key=lambda file: int(file.stem))

    def _decided(self, horizon: str, ledger: list[Entry]) -> list[Entry]:
        """The same ledger; Undecided where an entry that was set aside is newer than all of it."""
        lost = max(self.aside(horizon), default=0)
        if lost > (ledger[-1].number if ledger else 0):
            raise Undecided(
                f"ledger entry {lost} of {horizon} is set aside as damaged, and none came after it: let "
                f"`tenor promote horizon={horizon} bundle=… why=…` decide who serves"
            )
        return ledger

    def _entry(self, file: Path) -> Entry:
        try:
            entry = Entry.from_json(file.read_bytes())
            if entry.number != int(file.stem):
                raise ValueError(f"it says number {entry.number}")
            return entry
        except ValueError as error:
            # `from None`: a failed run is told by its innermost cause, and json's names neither file nor remedy.
            raise RegistryError(
                f"ledger entry {file} is damaged: {error}; restore it from a copy, or rename it to {file.name}{ASIDE} "
                f"and run `tenor promote horizon={file.parent.parent.name} bundle=… why=…`; to remove it undoes what it"
                " decided"
            ) from None

    def _append(self, horizon: str, decide: Callable[[list[Entry]], tuple[str, Action]], why: str, by: str) -> Entry:
        """Link the next number to a finished file; where another writer took it, decide again."""
        folder = self._root / horizon / "ledger"
        folder.mkdir(parents=True, exist_ok=True)
        draft = folder / f".{uuid.uuid4().hex}"
        try:
            for _ in range(ATTEMPTS):
                ledger = [self._entry(file) for file in self._entries(horizon)]
                id, action = decide(ledger)
                number = max([0, *self.aside(horizon), *(entry.number for entry in ledger[-1:])]) + 1
                entry = Entry(number, horizon, id, action, why, self._clock.now(), by)
                write_through(draft, entry.to_json())
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
                write_through(draft / name, data)
            draft.rename(target)
        except OSError:
            if not target.is_dir():
                raise
            # Another process placed the same id first; the caller compares its content with ours.
        finally:
            shutil.rmtree(draft, ignore_errors=True)


def _unmoved(horizon: str, ledger: list[Entry], over: int | None) -> None:
    newest = ledger[-1].number if ledger else 0
    if over is not None and newest != over:
        raise LedgerMoved(f"the ledger of {horizon} moved from number {over} to {newest} meanwhile: judge again")


def _before(horizon: str, ledger: list[Entry]) -> str:
    champions = _champions(ledger)
    if len(champions) < 2:
        raise RegistryError(f"{horizon} has no earlier champion to roll back to")
    return champions[-2]


def _champions(ledger: list[Entry]) -> list[str]:
    """Who served, each promotion on top of the one before, each rollback taking one off."""
    stack: list[str] = []
    for entry in ledger:
        if entry.action == "rollback":
            if not stack:
                raise RegistryError(
                    f"ledger entry {entry.number} of {entry.horizon} rolls back what the entries before it have not: "
                    "restore those that are missing"
                )
            stack.pop()
        elif not stack or stack[-1] != entry.id:
            stack.append(entry.id)
    return stack


def write_through(path: Path, data: bytes) -> None:
    """Write a file through to the disk: what is renamed afterwards must not be empty after a power cut."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
