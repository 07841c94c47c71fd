"""The session grid, against exchange_calendars, pandas and hand-counted days."""

import time
from datetime import UTC, date, datetime, timedelta

import exchange_calendars
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quant.grid import CalendarSpec, Grid, parse_interval

NEW_YORK = CalendarSpec("XNYS")
OVERNIGHT = CalendarSpec("template", "America/New_York", "18:00", "17:00")
DATES = st.dates(date(2004, 1, 1), date(2025, 12, 31))


def at(text: str) -> np.datetime64:
    return np.datetime64(text, "us")


@pytest.mark.parametrize("name", ["XNYS", "XLON", "XHKG", "XTKS", "CMES"])
def test_sessions_and_minutes_are_those_of_exchange_calendars(name: str) -> None:
    oracle = exchange_calendars.get_calendar(name, start="2018-01-01", end="2024-12-31")
    grid = Grid(CalendarSpec(name), "1m")
    found = grid.sessions(date(2023, 1, 1), date(2024, 12, 31))
    expected = oracle.schedule["2023-01-01":"2024-12-31"]
    assert [s.date for s in found] == [t.date() for t in expected.index]
    assert [s.open for s in found] == [t.to_pydatetime() for t in expected["open"]]
    assert [s.close for s in found] == [t.to_pydatetime() for t in expected["close"]]
    minutes = oracle.sessions_minutes("2023-01-03" if name != "XTKS" else "2023-01-04", "2024-12-30")
    slots = grid.slots(date(2023, 1, 3), date(2024, 12, 30))
    assert np.array_equal(slots, minutes.tz_localize(None).to_numpy("datetime64[us]"))


@pytest.mark.parametrize("interval", ["5m", "15m", "30m", "1h", "4h"])
def test_bins_anchor_at_the_open_and_the_last_one_ends_at_the_close(interval: str) -> None:
    grid = Grid(NEW_YORK, interval)
    for session in grid.sessions(date(2024, 7, 1), date(2024, 7, 5)):  # with the half day of the third
        slots = grid.slots(session.date, session.date)
        step = pd.Timedelta(parse_interval(interval), unit="us")
        expected = pd.date_range(session.open, session.close, freq=step, inclusive="left").tz_localize(None)
        assert np.array_equal(slots, expected.to_numpy("datetime64[us]"))
        ends = grid.ends(slots)
        assert ends[-1] == at(session.close.replace(tzinfo=None).isoformat())
        assert np.array_equal(ends[:-1], slots[1:])


def test_daily_bars_carry_the_session_date_and_are_known_at_its_close() -> None:
    grid = Grid(NEW_YORK, "1d")
    slots = grid.slots(date(2024, 7, 2), date(2024, 7, 5))
    assert slots.astype("datetime64[D]").astype(str).tolist() == ["2024-07-02", "2024-07-03", "2024-07-05"]
    assert grid.ends(slots).tolist() == [
        datetime(2024, 7, 2, 20),
        datetime(2024, 7, 3, 17),  # the half day
        datetime(2024, 7, 5, 20),
    ]
    assert grid.contains(np.array([at("2024-07-03"), at("2024-07-04"), at("2024-07-03T13:30")])).tolist() == [
        True,
        False,
        False,
    ]


def test_a_session_that_opens_the_evening_before_is_labelled_with_its_last_day() -> None:
    grid = Grid(OVERNIGHT, "1h")
    (monday,) = grid.sessions(date(2024, 3, 9), date(2024, 3, 11))  # the clocks change on Sunday the 10th
    assert monday.date == date(2024, 3, 11)
    assert monday.open == datetime(2024, 3, 10, 22, tzinfo=UTC)
    assert monday.close == datetime(2024, 3, 11, 21, tzinfo=UTC)
    assert len(grid.slots(date(2024, 3, 11), date(2024, 3, 11))) == 23
    sunday_evening = np.array([at("2024-03-10T22:00")])
    assert grid.partition_keys(sunday_evening, "day").tolist() == ["2024-03-11"]


def test_breaks_and_borrowed_holidays_leave_no_slots() -> None:
    lunch = CalendarSpec("template", "Asia/Tokyo", "09:00", "15:00", breaks=(("11:30", "12:30"),))
    grid = Grid(lunch, "1h")
    (session,) = grid.sessions(date(2024, 5, 7), date(2024, 5, 7))
    assert [end - start for start, end in session.breaks] == [timedelta(hours=1)]
    hours = [slot.hour * 60 + slot.minute for slot in grid.slots(session.date, session.date).tolist()]
    assert hours == [0, 60, 120, 210, 270, 330]  # 09:00 is 00:00 UTC; bins anchor again after the break
    halted = Grid(CalendarSpec("template", "America/New_York", "18:00", "17:00", holidays="XNYS"), "1h")
    assert not len(halted.slots(date(2024, 7, 4), date(2024, 7, 4)))
    assert len(Grid(OVERNIGHT, "1h").slots(date(2024, 7, 4), date(2024, 7, 4))) == 23


def test_round_the_clock_follows_the_clock() -> None:
    grid = Grid(CalendarSpec("24/7"), "4h")
    slots = grid.slots(date(2024, 2, 29), date(2024, 3, 1))
    assert [slot.hour for slot in slots.tolist()] == [0, 4, 8, 12, 16, 20] * 2


def test_years_of_minutes_are_built_in_under_a_second() -> None:
    grid = Grid(NEW_YORK, "1m")
    grid.slots(date(2024, 1, 2), date(2024, 1, 2))  # the calendar itself is built once per process
    began = time.perf_counter()
    slots = grid.slots(date(2010, 1, 1), date(2024, 12, 31))
    assert time.perf_counter() - began < 1
    assert len(slots) > 1_400_000


@given(day=DATES, slots=st.integers(1, 3000), interval=st.sampled_from(["5m", "1h", "1d"]))
@settings(max_examples=60)
def test_a_look_back_reaches_far_enough_and_no_session_further(day: date, slots: int, interval: str) -> None:
    grid = Grid(NEW_YORK, interval)
    start = grid.back(day, slots)
    before = len(grid.slots(start, day - timedelta(days=1)))
    assert before >= slots
    assert before - len(grid.slots(start, start)) < slots
    sessions = len(grid.sessions(start, day - timedelta(days=1)))
    assert sessions <= grid.max_sessions(slots)


def test_the_longest_look_back_counts_the_half_days() -> None:
    grid = Grid(NEW_YORK, "1m")
    assert [grid.max_sessions(slots) for slots in (1, 210, 211, 390, 391)] == [1, 1, 2, 2, 2]


@given(day=DATES, seconds=st.integers(0, 86_399), interval=st.sampled_from(["1m", "15m", "4h"]))
@settings(max_examples=100)
def test_an_instant_lies_in_the_bar_it_is_floored_to(day: date, seconds: int, interval: str) -> None:
    grid = Grid(OVERNIGHT, interval)
    instant = np.array([at(day.isoformat()) + np.timedelta64(seconds, "s")])
    start = grid.floor(instant)
    trading = any(
        session.open <= instant[0].item().replace(tzinfo=UTC) < session.close
        for session in grid.sessions(day, day + timedelta(days=1))
    )
    assert np.isnat(start[0]) != trading
    if trading:
        assert grid.contains(start).all()
        assert start[0] <= instant[0] < grid.ends(start)[0]
        assert grid.session_dates(start) == grid.session_dates(instant)


@given(day=DATES)
@settings(max_examples=40)
def test_windows_of_consecutive_sessions_meet_and_hold_their_own_slots(day: date) -> None:
    for grid in (Grid(NEW_YORK, "30m"), Grid(OVERNIGHT, "1h"), Grid(NEW_YORK, "1d")):
        one, two = grid.dates(day, day + timedelta(days=10))[:2].tolist()
        first, second = grid.window(one, one), grid.window(two, two)
        assert first[1] == second[0]
        assert grid.window(one, two) == (first[0], second[1])
        slots = [slot.replace(tzinfo=UTC) for slot in grid.slots(two, two).tolist()]
        assert second[0] <= slots[0]
        assert slots[-1] < second[1]


def test_partition_keys_are_first_days() -> None:
    slots = np.array([at("2024-02-29T15:00"), at("2024-12-31T15:00")])
    grid = Grid(NEW_YORK, "30m")
    assert grid.partition_keys(slots, "month").tolist() == ["2024-02-01", "2024-12-01"]
    assert grid.partition_keys(slots, "year").tolist() == ["2024-01-01", "2024-01-01"]
    with pytest.raises(ValueError, match="write day, month or year"):
        grid.partition_keys(slots, "week")


@pytest.mark.parametrize(
    ("spec", "interval", "said"),
    [
        (CalendarSpec("XNYZ"), "1h", "nearest is XN"),
        (CalendarSpec("template", "Mars/Olympus", "09:00", "17:00"), "1h", "Mars/Olympus"),
        (CalendarSpec("template", "UTC", "9am", "17:00"), "1h", "'9am' is not HH:MM"),
        (CalendarSpec("template", "UTC", "09:00"), "1h", "needs timezone, open and close"),
        (CalendarSpec("template", "UTC", "09:00", "17:00", breaks=(("08:00", "18:00"),)), "1h", "breaks"),
        (CalendarSpec("24/7"), "5x", "'5x'"),
        (CalendarSpec("24/7"), "2d", "longest bar is one session"),
    ],
)
def test_a_wrong_calendar_or_interval_says_what_is_wrong(spec: CalendarSpec, interval: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Grid(spec, interval).slots(date(2024, 1, 1), date(2024, 1, 5))


@pytest.mark.parametrize(
    ("calendar", "interval"), [("XNYS", "5m"), ("XNYS", "1h"), ("XNYS", "1d"), ("XTKS", "1h"), ("24/7", "1h")]
)
def test_the_newest_bar_that_has_ended_is_the_last_whose_end_is_not_later(calendar: str, interval: str) -> None:
    """Brute force over a week with a half day, every seven minutes."""
    grid = Grid(CalendarSpec(calendar), interval)
    slots = grid.slots(date(2021, 11, 1), date(2021, 12, 10))
    ends = grid.ends(slots)
    moment = datetime(2021, 11, 22, tzinfo=UTC)
    while moment < datetime(2021, 11, 30, tzinfo=UTC):
        ended = slots[ends <= np.datetime64(moment.replace(tzinfo=None), "us")]
        assert grid.last_ended(moment) == ended[-1].item().replace(tzinfo=UTC), moment
        moment += timedelta(minutes=7)
    exact = ends[9].item().replace(tzinfo=UTC)
    assert grid.last_ended(exact) == slots[9].item().replace(tzinfo=UTC)


def test_no_bar_has_ended_before_the_first_of_the_calendar() -> None:
    assert Grid(CalendarSpec("XNYS"), "5m").last_ended(datetime(1980, 1, 1, tzinfo=UTC)) is None
    assert Grid(CalendarSpec("XNYS"), "1d").last_ended(datetime(1980, 1, 1, tzinfo=UTC)) is None


@pytest.mark.parametrize(("name", "interval"), [("XNYS", "5m"), ("XTKS", "1h"), ("24/7", "1h"), ("XNYS", "1d")])
def test_bar_starts_are_numbered_one_after_the_other(name: str, interval: str) -> None:
    grid = Grid(CalendarSpec(name), interval)
    slots = grid.slots(date(2024, 11, 20), date(2024, 12, 3))
    numbers = grid.numbers(slots)
    assert (np.diff(numbers) == 1).all()
    earlier = grid.slots(date(2024, 11, 1), date(2024, 11, 20))
    assert numbers[0] - grid.numbers(earlier[:1])[0] == np.flatnonzero(earlier == slots[0])[0]
    first = grid.slots(date.min, grid.dates(date.min, date.max)[0].item())
    assert grid.numbers(first[:1])[0] == 0
