"""Trading hours of every session of a calendar, as arrays: exchange calendars, 24/7 and session templates."""

import difflib
import re
from dataclasses import dataclass
from datetime import date
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import polars as pl

# Fixed, because the default range of exchange_calendars moves with today; cut to what a calendar allows.
FIRST, LAST = date(1990, 1, 1), date(2050, 12, 31)

_DAY = 86_400_000_000


@dataclass(frozen=True)
class CalendarSpec:
    """What a calendar is: an exchange_calendars name, "24/7", or "template" with the fields below.

    open, close: "HH:MM" in `timezone`; a close not after the open means that the session opens on the day
    before its label (18:00 to 17:00 labelled Monday opens on Sunday evening). weekdays: the labels' weekdays,
    0 is Monday. breaks: ("HH:MM", "HH:MM") pairs inside the session. holidays: the exchange whose closed
    weekdays have no session here either, or None.
    """

    name: str
    timezone: str | None = None
    open: str | None = None
    close: str | None = None
    weekdays: tuple[int, ...] = (0, 1, 2, 3, 4)
    breaks: tuple[tuple[str, str], ...] = ()
    holidays: str | None = None


@dataclass(frozen=True)
class Segments:
    """Unbroken trading hours: `dates` [sessions]; `first` [sessions + 1] cuts `open`, `close` [segments].

    dates are datetime64[D]; open and close are int64 microseconds UTC, strictly increasing and disjoint.
    """

    dates: npt.NDArray[np.datetime64]
    first: npt.NDArray[np.int64]
    open: npt.NDArray[np.int64]
    close: npt.NDArray[np.int64]


made: dict[CalendarSpec, Segments] = {}  # by this process, or taken from one before: exchange_calendars takes seconds


def segments(spec: CalendarSpec) -> Segments:
    """The segments of a calendar; ValueError says what is wrong with the spec."""
    if spec not in made:
        made[spec] = _segments(spec)
    return made[spec]


def _segments(spec: CalendarSpec) -> Segments:
    if spec.name == "24/7":
        dates = _days()
        midnight = dates.astype("datetime64[us]").view(np.int64)
        return _checked(spec, dates, midnight[:, None], midnight[:, None] + _DAY)
    if spec.name == "template":
        return _template(spec)
    return _exchange(spec)


def _exchange(spec: CalendarSpec) -> Segments:
    schedule = _calendar(spec.name).schedule
    columns = {name: schedule[name].to_numpy(dtype="datetime64[us]") for name in schedule.columns}
    open_, close = columns["open"], columns["close"]
    pause, resume = columns["break_start"], columns["break_end"]
    broken = ~np.isnat(pause)
    # A session without a break is one segment: its second pair stays empty and is dropped by _checked.
    opens = np.stack([open_, np.where(broken, resume, close)], axis=1).view(np.int64)
    closes = np.stack([np.where(broken, pause, close), close], axis=1).view(np.int64)
    return _checked(spec, schedule.index.to_numpy().astype("datetime64[D]"), opens, closes)


def _template(spec: CalendarSpec) -> Segments:
    if spec.timezone is None or spec.open is None or spec.close is None:
        raise ValueError("a session template needs timezone, open and close, e.g. America/New_York 18:00 17:00")
    dates = _days()
    weekday = (dates.view(np.int64) + 3) % 7  # 1970-01-01 was a Thursday
    dates = dates[np.isin(weekday, spec.weekdays)]
    if spec.holidays is not None:
        working = _calendar(spec.holidays).schedule.index.to_numpy().astype("datetime64[D]")
        weekend = (dates.view(np.int64) + 3) % 7 >= 5
        known = (dates >= working[0]) & (dates <= working[-1])
        dates = dates[weekend | ~known | np.isin(dates, working)]
    open_, close = _clock(spec.open), _clock(spec.close)
    overnight = close <= open_

    def on_label(clock: int) -> int:
        """Microseconds from the label's midnight: an overnight session's evening is the day before."""
        return clock - _DAY if overnight and clock >= open_ else clock

    pauses = sorted((on_label(_clock(start)), on_label(_clock(end))) for start, end in spec.breaks)
    starts = [on_label(open_), *(end for _, end in pauses)]
    ends = [*(start for start, _ in pauses), close]
    opens = np.stack([_utc(dates, start, spec.timezone) for start in starts], axis=1)
    closes = np.stack([_utc(dates, end, spec.timezone) for end in ends], axis=1)
    return _checked(spec, dates, opens, closes)


def _checked(
    spec: CalendarSpec,
    dates: npt.NDArray[np.datetime64],
    opens: npt.NDArray[np.int64],
    closes: npt.NDArray[np.int64],
) -> Segments:
    """Flatten [sessions, segments] hours, dropping empty segments; sessions must not overlap."""
    real = opens < closes
    first = np.concatenate([[0], np.cumsum(real.sum(axis=1))])
    found = Segments(dates, first, np.ascontiguousarray(opens[real]), np.ascontiguousarray(closes[real]))
    bad = np.flatnonzero(found.open[1:] < found.close[:-1])
    if len(bad) or not real.any(axis=1).all():
        where = found.open[bad[:1] + 1].view("datetime64[us]") if len(bad) else dates[~real.any(axis=1)][:1]
        raise ValueError(
            f"calendar {spec.name}: {spec.open} to {spec.close}, breaks {spec.breaks}: hours overlap"
            f" or are empty at {where[0]}"
        )
    return found


@lru_cache(maxsize=32)
def _calendar(name: str):  # type: ignore[no-untyped-def]  # exchange_calendars has no types
    import exchange_calendars

    names = exchange_calendars.get_calendar_names()
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"; the nearest is {near[0]}" if near else ""
        raise ValueError(f"calendar {name!r} is not one of exchange_calendars, 24/7 or template{hint}")
    kind = type(exchange_calendars.get_calendar(name))
    lower, upper = kind.bound_min(), kind.bound_max()
    start = FIRST if lower is None else max(FIRST, lower.date())
    end = LAST if upper is None else min(LAST, upper.date())
    return exchange_calendars.get_calendar(name, start=str(start), end=str(end))


def _days() -> npt.NDArray[np.datetime64]:
    return np.arange(np.datetime64(FIRST, "D"), np.datetime64(LAST, "D") + 1)


def _clock(text: str) -> int:
    """ "HH:MM" as microseconds after midnight."""
    match = re.fullmatch(r"([01]?\d|2[0-4]):([0-5]\d)", text)
    if not match or int(match[1]) * 60 + int(match[2]) > 24 * 60:
        raise ValueError(f"calendar hour {text!r} is not HH:MM")
    return (int(match[1]) * 60 + int(match[2])) * 60_000_000


def _utc(dates: npt.NDArray[np.datetime64], offset: int, timezone: str) -> npt.NDArray[np.int64]:
    """Local wall-clock time on each date, as microseconds UTC: [sessions].

    Where the clocks change, an hour that happens twice means its first pass and an hour that does not happen
    means the moment of the change's own length later.
    """
    local = pl.Series((dates.astype("datetime64[us]") + np.timedelta64(offset, "us")), dtype=pl.Datetime("us"))
    try:
        there = local.dt.replace_time_zone(timezone, ambiguous="earliest", non_existent="null")
        later = (local + pl.duration(hours=1)) if there.has_nulls() else None
    except pl.exceptions.ComputeError as error:
        raise ValueError(f"time zone {timezone!r} is unknown: use a name like America/New_York") from error
    if later is not None:
        shifted = pl.select(later).to_series()
        there = there.fill_null(shifted.dt.replace_time_zone(timezone, ambiguous="earliest"))
    return there.dt.convert_time_zone("UTC").dt.timestamp("us").to_numpy()
