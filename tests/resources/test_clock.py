"""Time comes from one place and can be set."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from resources.clock import VARIABLE, FileClock, FixedClock, SystemClock, clock_of_environment


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


def test_a_file_moves_the_clock_of_every_process_that_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(clock_of_environment(), SystemClock)
    file = tmp_path / "clock"
    monkeypatch.setenv(VARIABLE, str(file))
    clock = clock_of_environment()
    assert isinstance(clock, FileClock)
    tell = "from resources.clock import clock_of_environment as made; print(made().now().isoformat())"
    for moment in (datetime(2024, 1, 2, 9, tzinfo=UTC), datetime(2023, 1, 2, tzinfo=UTC)):
        clock.set(moment)
        assert clock.now() == moment
        other = subprocess.run([sys.executable, "-c", tell], capture_output=True, text=True, check=True)
        assert other.stdout.strip() == moment.isoformat()
    assert [path.name for path in tmp_path.iterdir()] == ["clock"]


@pytest.mark.parametrize("text", [None, "", "yesterday", "2024-01-02T09:00"])
def test_a_clock_file_without_a_time_is_named(tmp_path: Path, text: str | None) -> None:
    file = tmp_path / "clock"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ValueError, match=f"{VARIABLE} names {file}"):
        FileClock(file).now()
