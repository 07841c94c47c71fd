"""API keys: who may do what, known to the service only by the hash of each key.

A key is 256 random bits, so one SHA-256 is enough: there is nothing to guess, and a slow hash would cost every request.
"""

import hashlib
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
    keys: list[Key] = []
    for number, written in enumerate(text.splitlines(), 1):
        for line in written.partition("#")[0].split():
            keys.append(_key(line, f"line {number}"))
    for what, values in (("name", [key.name for key in keys]), ("hash", [key.digest for key in keys])):
        if len(set(values)) < len(values):
            raise KeysError(f"two keys have the same {what}: give every caller a key of its own")
    if not keys:
        raise KeysError("there is no key in it: `tenor keys new name=dashboard role=read` prints one and its line")
    return keys


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
    """The keys that are valid now, by hash; those of a file follow the file, so that a leaked key can be ended."""

    def __init__(self, keys: list[Key], file: Path | None = None) -> None:
        self._file = file
        self._seen = _stamp(file)
        self._keys = {key.digest: key for key in keys}

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "KeyRing | None":
        """Keys of TENOR_API_KEYS, or of the file that TENOR_API_KEYS_FILE names; None where neither is set."""
        text, path = environment.get(VARIABLE), environment.get(FILE_VARIABLE)
        if text is not None and path is not None:
            raise KeysError(f"{VARIABLE} and {FILE_VARIABLE} are both set: keep one")
        try:
            if path is not None:
                return cls(parse(Path(path).read_text()), Path(path))
            return None if text is None else cls(parse(text))
        except (OSError, UnicodeDecodeError) as error:
            raise KeysError(f"{FILE_VARIABLE}: {path} cannot be read: {error}") from error
        except KeysError as error:
            raise KeysError(f"{VARIABLE if path is None else FILE_VARIABLE}: {error}") from error

    def find(self, secret: str) -> Key | None:
        return self._keys.get(digest_of(secret))

    def refresh(self) -> bool:
        """Read the file again if it changed; KeysError or OSError leaves the keys as they were."""
        if self._file is None or (now := _stamp(self._file)) == self._seen:
            return False
        self._keys = {key.digest: key for key in parse(self._file.read_text())}
        self._seen = now
        return True


def _stamp(file: Path | None) -> tuple[int, int, int] | None:
    if file is None:
        return None
    found = file.stat()
    return found.st_mtime_ns, found.st_size, found.st_ino
