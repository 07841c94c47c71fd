"""Membership by date."""

from datetime import UTC, date, datetime

import polars as pl

from quant.universe import member_rows


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
    kept = member_rows(rows, members)
    assert [(s, t.day) for s, t in kept.rows()] == [("A", 2), ("A", 3), ("B", 4), ("B", 30), ("A", 8)]


def test_without_declared_membership_every_row_stays() -> None:
    rows = _rows(("A", 1), ("B", 2))
    assert member_rows(rows, None).equals(rows)
