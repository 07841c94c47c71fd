"""Membership by date."""

from datetime import UTC, date, datetime

import polars as pl

from quant.grid import CalendarSpec, Grid
from quant.universe import member_rows

DAILY = Grid(CalendarSpec("24/7"), "1d")


def _rows(*stamps: tuple[str, int]) -> pl.DataFrame:
    return pl.DataFrame(
        {"symbol": [s for s, _ in stamps], "timestamp": [datetime(2024, 1, d, tzinfo=UTC) for _, d in stamps]}
    )


def test_only_members_of_the_day_are_in_the_section() -> None:
    members = pl.DataFrame(
        {
            "symbol": ["A", "B", "A"],
            "start": [date(2024, 1, 2), date(2024, 1, 4), date(2024, 1, 8)],
            "end": [date(2024, 1, 3), None, None],
        }
    )
    rows = _rows(("A", 1), ("A", 2), ("A", 3), ("A", 4), ("B", 3), ("B", 4), ("B", 30), ("A", 8), ("C", 8))
    kept = member_rows(rows, members, DAILY)
    assert [(s, t.day) for s, t in kept.rows()] == [("A", 2), ("A", 3), ("B", 4), ("B", 30), ("A", 8)]


def test_without_declared_membership_every_row_stays() -> None:
    rows = _rows(("A", 1), ("B", 2))
    assert member_rows(rows, None, DAILY).equals(rows)


def test_an_evening_belongs_to_the_session_it_opens() -> None:
    cfd = Grid(CalendarSpec("template", "America/New_York", "18:00", "17:00"), "1h")
    members = pl.DataFrame(
        {"symbol": ["A"], "start": [date(2024, 1, 3)], "end": [None]}, schema_overrides={"end": pl.Date}
    )
    evening = [datetime(2024, 1, 2, hour, tzinfo=UTC) for hour in (21, 23)]  # 23:00 UTC is 18:00 in New York
    kept = member_rows(pl.DataFrame({"symbol": ["A", "A"], "timestamp": evening}), members, cfd)
    assert kept["timestamp"].to_list() == evening[1:]
