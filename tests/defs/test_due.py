"""Due moments against hand-counted hours: half days, holidays, breaks, summer time, 24/7, cron lines."""

from datetime import UTC, datetime, timedelta

import pytest

from assets.plan import Plan
from conf.compose import compose
from defs.due import awaited, due, longest_pause

CRON = ["automation=cron", "automation.cron='30 18 * * mon-fri'", "automation.timezone=America/New_York"]

TOKYO = ["automation=interval", "automation.every=1h", "calendar.name=XTKS"]  # which has a break


def plan(horizon: str, *words: str) -> Plan:
    return Plan(compose([f"horizon={horizon}", *words])[horizon])


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("words", "now", "moment"),
    [
        ([], "2021-11-24T21:00:59", "2021-11-23T21:01:00"),  # a minute after the close, not before
        ([], "2021-11-24T21:01:00", "2021-11-24T21:01:00"),
        ([], "2021-11-26T18:00:59", "2021-11-24T21:01:00"),  # Thanksgiving, then a half day
        ([], "2021-11-26T18:01:00", "2021-11-26T18:01:00"),
        ([], "2021-11-28T12:00:00", "2021-11-26T18:01:00"),  # Sunday
        ([], "2021-07-06T20:01:00", "2021-07-06T20:01:00"),  # summer time
        (["calendar=24x7"], "2021-11-28T00:00:59", "2021-11-27T00:01:00"),
        (["calendar=24x7"], "2021-11-28T00:01:00", "2021-11-28T00:01:00"),
        (["automation=interval"], "2021-11-24T14:35:09", "2021-11-23T21:00:10"),  # ended 9 s ago
        (["automation=interval"], "2021-11-24T14:35:10", "2021-11-24T14:35:10"),
        (["automation=interval", "automation.every=1h"], "2021-11-26T17:59:00", "2021-11-26T17:30:10"),
        (["automation=interval", "automation.every=1h"], "2021-11-26T18:00:10", "2021-11-26T18:00:10"),  # truncated
        (TOKYO, "2021-11-24T02:45:00", "2021-11-24T02:30:10"),
        (TOKYO, "2021-11-24T04:29:00", "2021-11-24T02:30:10"),
        (CRON, "2021-11-24T23:29:59", "2021-11-23T23:30:00"),
        (CRON, "2021-11-24T23:30:00", "2021-11-24T23:30:00"),
        (CRON, "2021-07-06T22:30:00", "2021-07-06T22:30:00"),  # 18:30 in New York's summer
        ([*CRON, "automation.delay_seconds=90"], "2021-11-24T23:31:29", "2021-11-23T23:31:30"),
    ],
)  # fmt: skip
def test_the_newest_due_moment_follows_the_calendar(words: list[str], now: str, moment: str) -> None:
    assert due(plan("5m", *words), utc(now)) == utc(moment)


def test_daily_bars_are_due_after_the_close_whether_by_session_or_by_interval() -> None:
    for words, seconds in (([], 60), (["automation=interval"], 10)):
        found = due(plan("1d", *words), utc("2021-11-26T20:00:00"))
        assert found == utc("2021-11-26T18:00:00") + timedelta(seconds=seconds)


def test_where_automation_is_off_nothing_is_due_or_awaited() -> None:
    horizons = compose(["horizon=5m", "automation=off"])
    assert due(Plan(horizons["5m"]), utc("2021-11-24T21:01:00")) is None
    assert awaited(Plan(horizons["5m"]), horizons, utc("2021-11-24T21:01:00")) is None


def test_a_bar_is_awaited_from_its_due_moment_and_the_time_that_it_may_be_late() -> None:
    horizons = compose(["horizon=5m,30m", "source.sessions=null"])
    for name in ("5m", "30m"):
        made = Plan(horizons[name])
        assert awaited(made, horizons, utc("2021-11-24T22:00:59")) == utc("2021-11-23T21:00:00")
        assert awaited(made, horizons, utc("2021-11-24T22:01:00")) == utc("2021-11-24T21:00:00")


def test_nothing_is_awaited_after_the_last_session_of_a_source_that_ends() -> None:
    horizons = compose(["horizon=5m", "source.sessions=3"])  # 2021-01-04 to 06
    assert awaited(Plan(horizons["5m"]), horizons, utc("2026-01-05T00:00:00")) == utc("2021-01-06T21:00:00")


def test_the_longest_pause_is_that_of_the_longest_holiday() -> None:
    assert longest_pause(plan("5m"), utc("2022-01-10T12:00:00")) == timedelta(days=4)  # Good Friday: Thursday to Monday
    assert longest_pause(plan("5m", "calendar=24x7"), utc("2022-01-10T12:00:00")) == timedelta(days=1)
    assert longest_pause(plan("5m", "automation=interval"), utc("2022-01-10T12:00:00")) == timedelta(
        days=3, hours=17, minutes=35
    )
    summer_ends = timedelta(days=3, hours=1)  # on a Sunday in November
    assert longest_pause(plan("5m", *CRON), utc("2022-01-10T12:00:00")) == summer_ends
