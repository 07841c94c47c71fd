"""Time as an input: the one place that may ask the machine for it."""

from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Tells the time as an aware UTC datetime."""

    def now(self) -> datetime: ...


class SystemClock:
    """The machine's own clock."""

    def now(self) -> datetime:
        """The present instant, UTC."""
        return datetime.now(UTC)


class FixedClock:
    """A clock that stands still until it is set: for tests and replays."""

    def __init__(self, now: datetime) -> None:
        self.set(now)

    def now(self) -> datetime:
        """The instant last set, UTC."""
        return self._now

    def set(self, now: datetime) -> None:
        """Move to another instant, forward or back; ValueError for one without a time zone."""
        if now.tzinfo is None:
            raise ValueError(f"{now} has no time zone: pass an aware datetime")
        self._now = now.astimezone(UTC)
