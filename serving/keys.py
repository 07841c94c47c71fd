"""API keys: who may do what, known to the service only by the hash of each key.

A key is 256 random bits, so one SHA-256 is enough: there is nothing to guess, and a slow hash would cost every request.
"""

import hashlib
import math
import os
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, get_args

Role = Literal["read", "push", "admin"]
ROLES: Final = get_args(Role)
VARIABLE, FILE_VARIABLE = "TENOR_API_KEYS", "TENOR_API_KEYS_FILE"

LOOK = 1.0  # seconds between looks at the file
SETTLED = 1.0  # seconds that a change must have stood: an editor may be saving
LOST = 10.0  # seconds without a file that can be read, after which its keys end

_NAME = re.compile(r"[A-Za-z0-9._@-]{1,64}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


class KeysError(ValueError):
    """Keys that cannot be used as written; the message never repeats a line: it might hold the key itself."""


@dataclass(frozen=True)
class Key:
    """One caller. rate: requests a second, None for what the config allows every key."""

    name: str
    roles: frozenset[Role]
    digest: str
    rate: float | None = None

    def may(self, role: Role) -> bool:
        return role in self.roles or "admin" in self.roles

    def line(self) -> str:
        """How the service is told of this key: `name:role+role:sha256[:rate]`."""
        rate = [] if self.rate is None else [f"{self.rate:g}"]
        return ":".join([self.name, "+".join(role for role in ROLES if role in self.roles), self.digest, *rate])


def digest_of(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def new(name: str, roles: frozenset[Role], rate: float | None = None) -> tuple[str, Key]:
    """A new secret, which nobody keeps, and its key."""
    secret = f"tenor_{secrets.token_urlsafe(32)}"
    return secret, parse(Key(name, roles, digest_of(secret), rate).line())[0]


def parse(text: str) -> list[Key]:
    """Keys of lines as `Key.line` writes them; # begins a comment. KeysError names the line at fault."""
    keys, faults = _read(text)
    if faults:
        raise KeysError(faults[0])
    return keys


def _read(text: str) -> tuple[list[Key], list[str]]:
    """The keys of the lines that are right, and what is wrong with the others, or that there is none."""
    keys: list[Key] = []
    faults: list[str] = []
    for number, written in enumerate(text.splitlines(), 1):
        for line in written.partition("#")[0].split():
            try:
                key = _key(line, f"line {number}")
            except KeysError as error:
                faults.append(str(error))
                continue
            named = any(key.name == other.name for other in keys)
            if named or any(key.digest == other.digest for other in keys):
                same = f"two keys have the same {'name' if named else 'hash'}"
                faults.append(f"line {number} ({key.name}): {same}: give every caller a key of its own")
            else:
                keys.append(key)
    if not keys and not faults:
        faults.append("there is no key in it: `tenor keys new name=dashboard role=read` prints one and its line")
    return keys, faults


def _key(line: str, where: str) -> Key:
    name, _, rest = line.partition(":")
    parts = rest.split(":")
    if not _NAME.fullmatch(name) or len(parts) not in (2, 3):
        raise KeysError(f"{where}: a key is written name:role:sha256, as `tenor keys new` prints it")
    roles = parts[0].split("+")
    if wrong := [role for role in roles if role not in ROLES]:
        known = ", ".join(ROLES)
        # A role that is none may be a misplaced secret: only what looks like a word is repeated.
        said = f" {wrong[0]!r}" if wrong[0].isalpha() and len(wrong[0]) < 16 else ""
        raise KeysError(f"{where} ({name}): unknown role{said}; roles are {known}, joined by +")
    if not _DIGEST.fullmatch(parts[1]):
        raise KeysError(f"{where} ({name}): the third part must be the SHA-256 of the key, never the key itself")
    return Key(name, frozenset(roles), parts[1], _rate(parts[2], f"{where} ({name})") if len(parts) == 3 else None)  # type: ignore[arg-type]  # checked above


def _rate(text: str, where: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0 < rate < float("inf"):
        raise KeysError(f"{where}: the fourth part must be requests per second, above 0")
    return rate


class KeyRing:
    """The keys that are valid now, by hash; those of a file follow the file, so that a leaked key can be ended.

    No change of the file keeps a key whose line is gone: a line that is wrong is no key, the others hold. A file that
    cannot be read at all has no keys either, once it has been so for `LOST` seconds.
    """

    def __init__(self, keys: list[Key], file: Path | None = None, text: str = "") -> None:
        """The keys, of `text` where there is a file to follow."""
        self._file = file
        self._keys = {key.digest: key for key in keys}
        self._taken = self._seen = _Look(text)
        self._since = -math.inf  # when the file was first seen as it is
        self.trouble: str | None = None  # what is wrong with the file as it was taken up

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "KeyRing | None":
        """Keys of TENOR_API_KEYS, or of the file that TENOR_API_KEYS_FILE names; None where neither is set."""
        text, path = environment.get(VARIABLE), environment.get(FILE_VARIABLE)
        if text is not None and path is not None:
            raise KeysError(f"{VARIABLE} and {FILE_VARIABLE} are both set: keep one")
        if path is not None:
            look = _look(Path(path))
            if look.text is None:
                raise KeysError(f"{FILE_VARIABLE}: {look.problem}")
            text = look.text
        try:
            return None if text is None else cls(parse(text), None if path is None else Path(path), text)
        except KeysError as error:
            raise KeysError(f"{VARIABLE if path is None else FILE_VARIABLE}: {error}") from error

    def count(self) -> int:  # not __len__: a ring without keys would pass for no ring, which lets everybody in
        return len(self._keys)

    def find(self, secret: str) -> Key | None:
        return self._keys.get(digest_of(secret))

    def refresh(self, now: float) -> bool:
        """Look at the file, at a time in seconds; whether its change was taken up."""
        if self._file is None:
            return False
        look = _look(self._file)
        if look != self._seen:
            self._seen, self._since = look, now
        if look == self._taken or now - self._since < (LOST if look.text is None else SETTLED):
            return False
        keys, faults = ([], [look.problem]) if look.text is None else _read(look.text)
        self._keys, self._taken = {key.digest: key for key in keys}, look
        self.trouble = f"{FILE_VARIABLE}: {'; '.join(faults)}" if faults else None
        return True


@dataclass(frozen=True)
class _Look:
    """What a file said; text: None where it could not be read."""

    text: str | None
    problem: str = ""


def _look(file: Path) -> _Look:
    try:
        if file.exists() and not file.is_file():  # a pipe would hold up whoever reads it again
            return _Look(None, f"{file} cannot be read: it is no plain file")
        return _Look(file.read_text())
    except (OSError, UnicodeDecodeError) as error:
        return _Look(None, f"{file} cannot be read: {error}")
