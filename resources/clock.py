"""Time as an input: the one place that may ask the machine for it."""

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

VARIABLE = "TENOR_CLOCK"  # a file with the time, for replays; without it, the machine's own


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


class FileClock:
    """The time that a file says (`2024-01-02T15:30:00+00:00`), for replays of several processes: one moves all."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def now(self) -> datetime:
        """The instant in the file, UTC; ValueError that names the file where there is none, or one without a zone."""
        try:
            now = datetime.fromisoformat(self._path.read_text().strip())
        except (OSError, ValueError) as error:
            raise ValueError(
                f"{VARIABLE} names {self._path}, which has no time such as 2024-01-02T15:30Z: {error}"
            ) from None
        if now.tzinfo is None:
            raise ValueError(f"{VARIABLE} names {self._path}, whose time {now} has no zone: end it with Z or +00:00")
        return now.astimezone(UTC)

    def set(self, now: datetime) -> None:
        """Move every process that reads the file to another instant; who reads meanwhile sees the one or the other."""
        if now.tzinfo is None:
            raise ValueError(f"{now} has no time zone: pass an aware datetime")
        draft = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        draft.write_text(now.astimezone(UTC).isoformat())
        draft.replace(self._path)


def clock_of_environment() -> Clock:
    """The clock of the file that TENOR_CLOCK names, else the machine's."""
    path = os.environ.get(VARIABLE)
    return FileClock(Path(path)) if path else SystemClock()
