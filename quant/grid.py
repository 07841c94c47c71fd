"""The session grid: which bars a calendar and an interval allow, whatever arrived.

Every instant is UTC and held as int64 microseconds inside, as `datetime64[us]` outside. A session is cut into
segments by its breaks; intraday bins anchor at each segment's open and the last one ends at its close. Daily
bars are stamped with the session date at 00:00 UTC and end at the session's close.
"""

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import cached_property

import numpy as np
import numpy.typing as npt

from quant.calendars import CalendarSpec, Segments, segments

__all__ = ["CalendarSpec", "Grid", "Session", "parse_interval"]

Instants = npt.NDArray[np.datetime64]

_UNITS = {"m": 60_000_000, "h": 3_600_000_000, "d": 86_400_000_000}
_PARTITIONS = {"day": "D", "month": "M", "year": "Y"}


def parse_interval(interval: str) -> int:
    """The length of "5m", "1h" or "1d" in microseconds; ValueError for anything else."""
    match = re.fullmatch(r"([1-9]\d*)([mhd])", interval)
    if not match:
        raise ValueError(f"interval {interval!r} is not a number and m, h or d: write 5m, 1h or 1d")
    if match[2] == "d" and match[1] != "1":
        raise ValueError(f"interval {interval!r}: the longest bar is one session; write 1d")
    return int(match[1]) * _UNITS[match[2]]


@dataclass(frozen=True)
class Session:
    """One trading day: its label, its hours in UTC and the breaks inside them."""

    date: date
    open: datetime
    close: datetime
    breaks: tuple[tuple[datetime, datetime], ...] = ()


class Grid:
    """The bar starts of one calendar at one interval."""

    def __init__(self, calendar: CalendarSpec, interval: str) -> None:
        self.calendar = calendar
        self.interval = interval
        self.step = parse_interval(interval)
        self.daily = interval.endswith("d")

    def __repr__(self) -> str:
        return f"Grid({self.calendar.name}, {self.interval})"

    # -- sessions ------------------------------------------------------------------------------------------

    def sessions(self, start: date, end: date) -> list[Session]:
        """Sessions labelled start .. end, both included."""
        found = []
        for index in range(*self._range(start, end)):
            first, last = self._cuts.first[index], self._cuts.first[index + 1]
            opens = [_aware(us) for us in self._cuts.open[first:last]]
            closes = [_aware(us) for us in self._cuts.close[first:last]]
            breaks = tuple(zip(closes[:-1], opens[1:], strict=True))
            found.append(Session(self._cuts.dates[index].item(), opens[0], closes[-1], breaks))
        return found

    def dates(self, start: date, end: date) -> Instants:
        """Session dates start .. end, both included, as datetime64[D]."""
        return self._cuts.dates[slice(*self._range(start, end))]

    def session_dates(self, instants: Instants) -> Instants:
        """The session date each instant belongs to, as datetime64[D].

        Sessions tile time: an instant outside trading hours belongs to the next session. On a daily grid the
        instant's own UTC date decides, as daily bars are stamped with it. Raises past the calendar's end.
        """
        return self._cuts.dates[self._session_index(instants)]

    def window(self, start: date, end: date) -> tuple[datetime, datetime]:
        """The half-open span of instants whose session_dates lie in start .. end, both included.

        Consecutive windows meet without a gap, so a source asked window by window gives every row once.
        """
        first, last = self._range(start, end)
        if first == last:
            raise ValueError(f"{self!r} has no session from {start} to {end}")
        if self.daily:
            edges = self._cuts.dates.astype("datetime64[us]").astype(np.int64) + _UNITS["d"]
        else:
            edges = self._session_close
        return _aware(edges[max(first - 1, 0)]), _aware(edges[last - 1])

    def back(self, day: date, slots: int) -> date:
        """The latest session whose first slot is at least `slots` slots before the first slot of `day`.

        Real sessions are counted (half days, holidays). A day without a session counts from the next one; the
        calendar's first session is the floor.
        """
        index = min(self._first_session_at(day), len(self._slots_before) - 1)
        found = np.searchsorted(self._slots_before, self._slots_before[index] - slots, side="right") - 1
        return self._cuts.dates[max(int(found), 0)].item()

    def max_sessions(self, slots: int) -> int:
        """The most sessions that `back(day, slots)` ever steps over: a fixed bound for partition overlaps."""
        before = self._slots_before[:-1]
        found = np.searchsorted(before, before - slots, side="right") - 1
        steps = np.arange(len(before)) - found
        return int(steps[found >= 0].max(initial=0))

    # -- slots ---------------------------------------------------------------------------------------------

    def slots(self, start: date, end: date) -> Instants:
        """Bar starts of the sessions start .. end, both included: datetime64[us], strictly increasing."""
        first, last = self._range(start, end)
        if self.daily:
            return self._cuts.dates[first:last].astype("datetime64[us]")
        cut = slice(self._cuts.first[first], self._cuts.first[last])
        counts = self._segment_slots[cut]
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        return (np.repeat(self._cuts.open[cut], counts) + within * self.step).view("datetime64[us]")

    def floor(self, instants: Instants) -> Instants:
        """The start of the bar each instant falls in; NaT outside trading hours."""
        us = _us(instants)
        segment = np.maximum(np.searchsorted(self._cuts.open, us, side="right") - 1, 0)
        inside = (us >= self._cuts.open[segment]) & (us < self._cuts.close[segment])
        if self.daily:
            session = np.searchsorted(self._cuts.first, segment, side="right") - 1
            starts = self._cuts.dates[session].astype("datetime64[us]")
        else:
            starts = (us - (us - self._cuts.open[segment]) % self.step).view("datetime64[us]")
        return np.where(inside, starts, np.datetime64("NaT", "us"))

    def numbers(self, slots: Instants) -> npt.NDArray[np.int64]:
        """How many bar starts lie before each of these bar starts: [N], from the calendar's first session on."""
        if self.daily:
            return self._session_index(slots).astype(np.int64)
        us = _us(slots)
        segment = np.maximum(np.searchsorted(self._cuts.open, us, side="right") - 1, 0)
        before = np.cumsum(self._segment_slots) - self._segment_slots
        return before[segment] + (us - self._cuts.open[segment]) // self.step

    def contains(self, stamps: Instants) -> npt.NDArray[np.bool_]:
        """Whether each stamp is a bar start of this grid."""
        if not self.daily:
            return self.floor(stamps) == stamps.astype("datetime64[us]")
        days = stamps.astype("datetime64[D]")
        return (days == stamps) & np.isin(days, self._cuts.dates)

    def ends(self, slots: Instants) -> Instants:
        """When each bar ends and is known: its start plus the interval, at most the close that follows it."""
        if self.daily:
            return self._session_close[self._session_index(slots)].view("datetime64[us]")
        us = _us(slots)
        segment = np.maximum(np.searchsorted(self._cuts.open, us, side="right") - 1, 0)
        return np.minimum(us + self.step, self._cuts.close[segment]).view("datetime64[us]")

    def last_ended(self, now: datetime) -> datetime | None:
        """The start of the newest bar that has ended by an aware instant, end included; None before the first."""
        us = np.int64(round(now.timestamp() * 1e6))
        if self.daily:
            sessions = int(np.searchsorted(self._session_close, us, side="right"))
            return (
                _aware(self._cuts.dates[sessions - 1].astype("datetime64[us]").astype(np.int64)) if sessions else None
            )
        segment = int(np.searchsorted(self._cuts.open, us, side="right")) - 1
        while segment >= 0:
            over = us >= self._cuts.close[segment]
            bars = int(self._segment_slots[segment] if over else (us - self._cuts.open[segment]) // self.step)
            if bars:
                return _aware(self._cuts.open[segment] + (bars - 1) * self.step)
            segment -= 1
        return None

    def partition_keys(self, instants: Instants, partition: str) -> npt.NDArray[np.str_]:
        """The key of each instant's session: its date, or the first day of its "month" or "year"."""
        if partition not in _PARTITIONS:
            raise ValueError(f"partition {partition!r} is unknown: write day, month or year")
        dates = self.session_dates(instants)
        return np.datetime_as_string(dates.astype(f"datetime64[{_PARTITIONS[partition]}]").astype("datetime64[D]"))

    # -- tables, built once per calendar and shared ---------------------------------------------------------

    @cached_property
    def _cuts(self) -> Segments:
        return segments(self.calendar)

    @cached_property
    def _session_close(self) -> npt.NDArray[np.int64]:
        return self._cuts.close[self._cuts.first[1:] - 1]

    @cached_property
    def _segment_slots(self) -> npt.NDArray[np.int64]:
        return -((self._cuts.open - self._cuts.close) // self.step)

    @cached_property
    def _slots_before(self) -> npt.NDArray[np.int64]:
        """Slots before each session, and after the last one: [sessions + 1]."""
        if self.daily:
            return np.arange(len(self._cuts.dates) + 1)
        return np.concatenate([[0], np.cumsum(self._segment_slots)])[self._cuts.first]

    def _first_session_at(self, day: date) -> int:
        return int(np.searchsorted(self._cuts.dates, np.datetime64(day, "D")))

    def _range(self, start: date, end: date) -> tuple[int, int]:
        first = self._first_session_at(start)
        return first, max(first, int(np.searchsorted(self._cuts.dates, np.datetime64(end, "D"), side="right")))

    def _session_index(self, instants: Instants) -> npt.NDArray[np.intp]:
        if self.daily:
            index = np.searchsorted(self._cuts.dates, instants.astype("datetime64[D]"))
        else:
            index = np.searchsorted(self._session_close, _us(instants), side="right")
        if index.size and index.max() >= len(self._cuts.dates):
            raise ValueError(f"{instants.max()} is past the last session of {self!r}, {self._cuts.dates[-1]}")
        return index


def _us(instants: Instants) -> npt.NDArray[np.int64]:
    return np.ascontiguousarray(instants, dtype="datetime64[us]").view(np.int64)


def _aware(us: np.int64) -> datetime:
    return np.datetime64(int(us), "us").item().replace(tzinfo=UTC)
