"""Who may call what: a role by method and path, an API key by its hash, a rate per key; deny by default.

Without keys the service is for this machine alone. Then a page in the user's browser is the one stranger that reaches
it, so a foreign `Host` (DNS rebinding) or `Origin` (a form or a socket of another site) is refused.
"""

import asyncio
import base64
import ipaddress
import logging
import math
import re
import time
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Final
from urllib.parse import urlsplit

from serving.keys import LOOK, Key, KeyRing, Role
from serving.logs import event
from serving.problems import Problem

ROUNDING = 1e-9  # of a request: who waited as long as was told must not miss by the last bit
LOCAL = "local"  # the caller's name where there are no keys
PROBES: Final = frozenset({"/ready", "/v2/health/live", "/v2/health/ready"})  # say yes or no, and need no key
KEY_SUBPROTOCOL = "key."  # a browser's WebSocket can send no header: its key comes as one of the subprotocols

_ASKS = frozenset({"GET", "HEAD", "OPTIONS", "WEBSOCKET"})
_READS = re.compile(r"/predict|/v2/models/.+/infer|/v2/repository/index")  # POST, and change nothing
_HOW = "send a key as `Authorization: Bearer …` (Tenor's own commands take it from TENOR_API_KEY)"
_CHALLENGE = {"www-authenticate": 'Bearer realm="tenor", Basic realm="tenor"'}

Headers = Iterable[tuple[bytes, bytes]]


def role_of(method: str, path: str) -> Role | None:
    """The role a request needs, None for the probes; "WEBSOCKET" is a method here."""
    if path in PROBES:
        return None
    if method in _ASKS:
        return "read"
    if method == "POST" and path == "/bars":
        return "push"
    return "read" if method == "POST" and _READS.fullmatch(path) else "admin"


class Access:
    """The keys, or their absence, and what each has left of its rate. Used from the event loop alone."""

    def __init__(
        self, ring: KeyRing | None, rate: float = math.inf, *, timer: Callable[[], float] = time.perf_counter
    ) -> None:
        self.ring = ring
        self._rate = rate  # requests a second of a key that names none itself
        self._timer = timer
        self.observers: list[Callable[[], object]] = []
        self._left: dict[str, tuple[float, float]] = {}  # digest -> (requests left, when that was)

    async def follow(self) -> None:
        """Follow the keys' file, and tell the observers when keys came or went."""
        while self.ring is not None:
            await asyncio.sleep(LOOK)
            if not self.ring.refresh(self._timer()):
                continue
            if self.ring.trouble is None:
                event(logging.INFO, "the API keys were read again", keys=self.ring.count())
            else:
                event(logging.ERROR, "the API keys are not all right", keys=self.ring.count(), why=self.ring.trouble)
            for observer in self.observers:
                observer()

    def still(self, headers: Headers) -> bool:
        """Whether the key of an open WebSocket may go on reading."""
        if self.ring is None:
            return True
        try:
            return self._identify("WEBSOCKET", *_read(headers)).may("read")
        except Problem:
            return False

    def allow(self, headers: Headers, method: str, path: str) -> str:
        """The caller's name. Problem 401 without a valid key, 403 without the role, 429 beyond the rate."""
        role = role_of(method, path)
        if role is None:
            return LOCAL
        host, origin, sent, protocols = _read(headers)
        if self.ring is None:
            _refuse_pages(method, host, origin)
            return LOCAL
        key = self._identify(method, host, origin, sent, protocols)
        if not key.may(role):
            has = "+".join(sorted(key.roles))
            why = f"{method} {path} needs the role {role}, the key {key.name!r} has {has}"
            raise Problem(403, "role-needed", why, role=role)
        self._spend(key)
        return key.name

    def _identify(self, method: str, host: str, origin: str | None, sent: str, protocols: str) -> Key:
        assert self.ring is not None
        if not self.ring.count():
            why = "no API key is valid here now: their file has none, or cannot be read; the service's log says which"
            raise Problem(401, "no-keys", why, headers=_CHALLENGE)
        scheme, _, value = sent.partition(" ")
        secret = value.strip() if scheme.lower() == "bearer" else None
        if secret is None and scheme.lower() == "basic":
            # A browser adds these to whatever page asks: only its own origin may use them.
            if origin is not None and method not in ("GET", "HEAD") and origin.partition("://")[2] != host:
                raise _foreign(origin)
            secret = _password(value)
        if secret is None and method == "WEBSOCKET":
            offered = [part.strip() for part in protocols.split(",")]
            secret = next((part[len(KEY_SUBPROTOCOL) :] for part in offered if part.startswith(KEY_SUBPROTOCOL)), None)
        if secret is None:
            raise Problem(401, "key-needed", f"this service asks for an API key: {_HOW}", headers=_CHALLENGE)
        key = self.ring.find(secret)
        if key is None:
            raise Problem(401, "unknown-key", f"this API key is not valid here: {_HOW}", headers=_CHALLENGE)
        return key

    def _spend(self, key: Key) -> None:
        """Take one request of the key's bucket, which fills at its rate and holds one second of it."""
        rate = self._rate if key.rate is None else key.rate
        if rate == math.inf:
            return
        full, now = max(rate, 1.0), self._timer()
        left, then = self._left.get(key.digest, (full, now))
        left = min(full, left + (now - then) * rate)
        if left < 1 - ROUNDING:
            wait = math.ceil((1 - left) / rate)
            self._left[key.digest] = left, now
            raise Problem(
                429,
                "rate-limited",
                f"the key {key.name!r} may ask {rate:g} times a second: wait {wait} s",
                headers={"retry-after": str(wait)},
            )
        self._left[key.digest] = left - 1, now


def _read(headers: Headers) -> tuple[str, str | None, str, str]:
    """Host, Origin, Authorization and the subprotocols offered, in one pass."""
    host, origin, sent, protocols = "", None, "", ""
    for name, value in headers:
        if name == b"host":
            host = value.decode("latin-1")
        elif name == b"origin":
            origin = value.decode("latin-1")
        elif name == b"authorization":
            sent = value.decode("latin-1")
        elif name == b"sec-websocket-protocol":
            protocols = value.decode("latin-1")
    return host, origin, sent, protocols


def _password(encoded: str) -> str | None:
    """The password of HTTP Basic credentials, None where they are none."""
    try:
        return base64.b64decode(encoded, validate=True).decode().partition(":")[2]
    except ValueError:
        return None


def _refuse_pages(method: str, host: str, origin: str | None) -> None:
    """Problem 403 for what only a page of another site would send to a service without keys."""
    if host and not local(f"//{host}"):
        why = f"this service has no API keys and answers this machine only, not as {host!r}: use 127.0.0.1, or set keys"
        raise Problem(403, "foreign-host", why)
    if origin is not None and method not in ("GET", "HEAD") and not local(origin):
        raise _foreign(origin)


def _foreign(origin: str) -> Problem:
    why = f"a page of {origin} may not do this: send an API key as `Authorization: Bearer …`"
    return Problem(403, "foreign-origin", why)


@lru_cache(256)
def local(url: str) -> bool:
    """Whether a URL's host is this machine's loopback."""
    try:
        name = urlsplit(url).hostname or ""
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
