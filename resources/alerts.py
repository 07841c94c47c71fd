"""What was told and what is still to be sent: one file of the store, so that a restart repeats and loses nothing.

alerts/state.json     what is wrong and when it was told; the messages that each channel has not taken yet
alerts/log.jsonl      every message, where the channel `log` is on
"""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from resources.alert_channels import Channel, ChannelError
from resources.alert_rules import Held, Message

FIRST, LONGEST = timedelta(seconds=30), timedelta(hours=1)  # pauses of a channel that failed: doubled each time
DELIVERED: Final = 5  # messages at once, of seconds each: a channel that was down catches up over several ticks


class AlertsError(RuntimeError):
    """The state of the alerts cannot be read; the message names the file."""


@dataclass(frozen=True)
class Waiting:
    """A message that a channel has not taken. horizon: one of those it is about, whose config names the channel."""

    channel: str
    horizon: str
    message: Message


@dataclass(frozen=True)
class Trouble:
    """A channel that failed: how often since it last worked, when it is tried again, and what it said."""

    attempts: int
    again: datetime
    why: str


@dataclass(frozen=True)
class Memory:
    """Everything that lasts from tick to tick. trouble: by channel and horizon, as `Waiting` names them."""

    held: tuple[Held, ...] = ()
    waiting: tuple[Waiting, ...] = ()
    trouble: tuple[tuple[str, str, Trouble], ...] = ()


def deliver(memory: Memory, channels: Mapping[str, Mapping[str, Channel]], now: datetime) -> tuple[Memory, list[str]]:
    """Send what waits, each channel in its order; what is left, and a line for each thing that went wrong.

    channels: by horizon and name. A channel that fails is left alone for a pause that doubles up to an hour; its
    messages wait in their order. Messages of a channel that the config no longer has are given up, with a line.
    """
    trouble = {(channel, horizon): one for channel, horizon, one in memory.trouble}
    left: list[Waiting] = []
    lines: list[str] = []
    stopped: set[tuple[str, str]] = set()
    sent = 0
    for one in memory.waiting:
        place = (one.channel, one.horizon)
        channel = channels.get(one.horizon, {}).get(one.channel)
        if channel is None:
            lines.append(f"{one.channel} is not a channel of {one.horizon} any more: not sent: {one.message.subject}")
            continue
        resting = place in trouble and trouble[place].again > now
        if place in stopped or resting or sent >= DELIVERED:
            left.append(one)
            continue
        try:
            channel(one.message)
        except (ChannelError, OSError) as error:
            attempts = trouble[place].attempts + 1 if place in trouble else 1
            pause = min(FIRST * 2 ** min(attempts - 1, 20), LONGEST)
            trouble[place] = Trouble(attempts, now + pause, str(error))
            lines.append(f"{error}; tried {attempts} times, again at {now + pause:%H:%M:%S} UTC: {one.message.subject}")
            stopped.add(place)
            left.append(one)
        else:
            sent += 1
            trouble.pop(place, None)
    places = {(one.channel, one.horizon) for one in left}
    kept = tuple((*place, one) for place, one in trouble.items() if place in places)
    return replace(memory, waiting=tuple(left), trouble=kept), lines


def queued(messages: Iterable[Message], channels: Sequence[str], horizon: str) -> tuple[Waiting, ...]:
    """The messages for each of the channels of a horizon's config."""
    return tuple(Waiting(channel, horizon, message) for message in messages for channel in channels)


class AlertState:
    """The memory in the store's folder `root`; replaced as a whole, through to the disk. One writer: the sensor."""

    def __init__(self, root: Path) -> None:
        self.file = Path(root) / "alerts" / "state.json"

    def read(self) -> Memory:
        """The memory as last written, an empty one before that; AlertsError where the file is damaged."""
        if not self.file.exists():
            return Memory()
        try:
            told = json.loads(self.file.read_bytes())
            return Memory(
                tuple(map(_held, told["held"])),
                tuple(Waiting(one["channel"], one["horizon"], _message(one["message"])) for one in told["waiting"]),
                tuple(
                    (channel, horizon, Trouble(one["attempts"], _instant(one["again"]), one["why"]))
                    for channel, horizon, one in told["trouble"]
                ),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise AlertsError(
                f"{self.file} is damaged ({type(error).__name__} {error}): remove it, and what is wrong is told anew"
            ) from error

    def write(self, memory: Memory) -> None:
        """Keep the memory."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        draft = self.file.with_suffix(f".{os.getpid()}.tmp")
        with draft.open("w", encoding="utf-8") as stream:
            json.dump(asdict(memory), stream, indent=1, default=datetime.isoformat)
            stream.flush()
            os.fsync(stream.fileno())
        draft.replace(self.file)


def _held(told: dict[str, Any]) -> Held:
    moments = {name: None if told[name] is None else _instant(told[name]) for name in ("since", "told", "ended")}
    return Held(**{**told, **moments})


def _message(told: dict[str, Any]) -> Message:
    return Message(told["kind"], told["state"], _instant(told["at"]), tuple(map(_held, told["items"])))


def _instant(text: str) -> datetime:
    return datetime.fromisoformat(text)
