"""What is told of what is wrong: facts and what was told before, in; messages and what to remember, out. Pure."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final, Literal

from conf.alerting import KINDS, Alerts, Kind

State = Literal["raised", "reminder", "resolved"]
TITLES: Final[Mapping[Kind, str]] = {
    "data_late": "data late",
    "run_failed": "run failed",
    "check_failed": "check failed",
    "retraining_stopped": "retraining stopped",
    "service_stale": "service stale",
}
Key = tuple[Kind, str, str]


@dataclass(frozen=True)
class Fact:
    """Whether something is wrong now. what: which step, check or service; holds: None where it cannot be known yet."""

    kind: Kind
    horizon: str
    what: str
    holds: bool | None
    why: str = ""
    link: str | None = None

    @property
    def key(self) -> Key:
        return self.kind, self.horizon, self.what


@dataclass(frozen=True)
class Held:
    """Something that is wrong: since when we know, when it was last told (None: not yet), and the newest why.

    ended: when what was told was seen to be over, which is told with others of its kind.
    """

    kind: Kind
    horizon: str
    what: str
    since: datetime
    told: datetime | None
    why: str
    link: str | None
    ended: datetime | None = None

    @property
    def key(self) -> Key:
        return self.kind, self.horizon, self.what


@dataclass(frozen=True)
class Message:
    """One message about things of one kind."""

    kind: Kind
    state: State
    at: datetime
    items: tuple[Held, ...]

    @property
    def id(self) -> str:
        """16 hex digits: the same message sent again has the same."""
        return _id(self.kind, self.state, self.at.isoformat(), *(str(item.key) for item in self.items))

    @property
    def subject(self) -> str:
        horizons = ", ".join(dict.fromkeys(item.horizon for item in self.items))
        before = {"raised": "", "reminder": "still: ", "resolved": "resolved: "}[self.state]
        return f"Tenor: {before}{TITLES[self.kind]}: {horizons}"

    @property
    def text(self) -> str:
        return "\n".join(_line(item, self.state, self.at) for item in self.items)

    def to_json(self) -> dict[str, Any]:
        """As a webhook gets it."""
        items = [
            {
                "horizon": item.horizon,
                "what": item.what,
                "since": item.since.isoformat(),
                "why": item.why,
                "link": item.link,
            }
            for item in self.items
        ]
        told = {"id": self.id, "kind": self.kind, "state": self.state, "at": self.at.isoformat()}
        return {**told, "subject": self.subject, "text": f"{self.subject}\n{self.text}", "items": items}


@dataclass(frozen=True)
class Trial:
    """A message that shows that a channel works, and is none of what is wrong: kind and state `test`, no items."""

    at: datetime
    horizons: tuple[str, ...]

    @property
    def id(self) -> str:
        """16 hex digits."""
        return _id("test", self.at.isoformat(), *self.horizons)

    @property
    def subject(self) -> str:
        return f"Tenor: TEST, nothing is wrong: {', '.join(self.horizons)}"

    @property
    def text(self) -> str:
        return "Sent by `tenor alerts test`: this channel works. Nothing is wrong, and nothing follows."

    def to_json(self) -> dict[str, Any]:
        """As a webhook gets it."""
        told = {"id": self.id, "kind": "test", "state": "test", "at": self.at.isoformat()}
        return {**told, "subject": self.subject, "text": f"{self.subject}\n{self.text}", "items": []}


def decide(
    facts: Iterable[Fact], rules: Alerts, held: Iterable[Held], now: datetime
) -> tuple[list[Message], list[Held]]:
    """Messages to send now, and what holds from now on.

    A thing is told once it has lasted `rules.after` of its kind, with all others of the kind that have; the first waits
    `gather_seconds` for company. Told things that still hold are told again, together, after `remind_hours`. Their end
    is told the same way, and one that holds again by then has not ended. What ends untold stays untold. A thing of
    which there is no fact any more (its horizon is gone) has ended; one whose fact is None stays as it is.
    """
    known = {one.key: one for one in held}
    found = {fact.key: fact for fact in facts}
    holding: dict[Key, Held] = {}
    for key, fact in found.items():
        if (one := _held(fact, known.get(key), now)) is not None:
            holding[key] = one
    for key, one in known.items():
        if key not in found and one.told is not None:
            holding[key] = replace(one, why="it is not watched any more", ended=one.ended or now)
    messages: list[Message] = []
    for kind in KINDS:
        over = [one for one in holding.values() if one.kind == kind and one.ended is not None]
        if over and min(one.ended or now for one in over) + timedelta(seconds=rules.gather_seconds) <= now:
            messages.append(Message(kind, "resolved", now, _sorted(over)))
            for one in over:
                del holding[one.key]
        lasting = [one for one in holding.values() if one.kind == kind and one.ended is None]
        state, told = _told(kind, lasting, rules, now)
        if told:
            messages.append(Message(kind, state, now, _sorted(told)))
            holding |= {one.key: replace(one, told=now) for one in told}
    return messages, sorted(holding.values(), key=lambda one: one.key)


def _held(fact: Fact, before: Held | None, now: datetime) -> Held | None:
    """What a fact makes of a thing; None where nothing is wrong, nor to be told."""
    if fact.holds is None:
        return before
    if before is None:
        return Held(fact.kind, fact.horizon, fact.what, now, None, fact.why, fact.link) if fact.holds else None
    if fact.holds:
        return replace(before, why=fact.why, link=fact.link, ended=None)
    if before.told is None:
        return None
    return replace(before, why=fact.why or before.why, link=fact.link or before.link, ended=before.ended or now)


def _told(kind: Kind, holding: list[Held], rules: Alerts, now: datetime) -> tuple[State, list[Held]]:
    """Which of what holds to tell now, and whether they are new."""
    minutes = rules.after.minutes(kind)
    if minutes is None:
        return "raised", []
    due = {one.key: one.since + timedelta(minutes=minutes) for one in holding if one.told is None}
    new = [one for one in holding if one.told is None and due[one.key] <= now]
    if new and min(due[one.key] for one in new) + timedelta(seconds=rules.gather_seconds) <= now:
        return "raised", new
    old = [one for one in holding if one.told is not None]
    if any(one.told is not None and one.told + timedelta(hours=rules.remind_hours) <= now for one in old):
        return "reminder", old
    return "raised", []


def _id(*told: str) -> str:
    return hashlib.sha256("\n".join(told).encode()).hexdigest()[:16]


def _sorted(items: Iterable[Held]) -> tuple[Held, ...]:
    return tuple(sorted(items, key=lambda item: item.key))


def _line(item: Held, state: State, at: datetime) -> str:
    since = f"since {item.since:%Y-%m-%d %H:%M} UTC"
    if state == "resolved":
        ended = item.ended or at
        day = "" if ended.date() == item.since.date() else f"{ended:%Y-%m-%d} "
        since = f"was wrong from {item.since:%Y-%m-%d %H:%M} to {day}{ended:%H:%M} UTC"
    link = f"  {item.link}" if item.link else ""
    return f"{item.horizon} {item.what}: {item.why} ({since}){link}"
