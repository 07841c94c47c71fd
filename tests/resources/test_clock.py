"""Time comes from one place and can be set."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from resources.clock import FixedClock, SystemClock


def test_a_fixed_clock_stands_still_until_it_is_set() -> None:
    clock = FixedClock(datetime(2024, 1, 2, 9, tzinfo=timezone(timedelta(hours=-5))))
    assert clock.now() == clock.now() == datetime(2024, 1, 2, 14, tzinfo=UTC)
    clock.set(datetime(2023, 1, 2, tzinfo=UTC))
    assert clock.now() == datetime(2023, 1, 2, tzinfo=UTC)


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="no time zone"):
        FixedClock(datetime(2024, 1, 2))


def test_the_system_clock_tells_aware_utc() -> None:
    assert SystemClock().now().utcoffset() == timedelta(0)
