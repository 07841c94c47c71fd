"""Trading hours that a process kept are those that another one would make, or are not taken."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from quant import calendars
from quant.calendars import CalendarSpec, segments
from resources.hours import Hours

SPECS = [
    CalendarSpec("XNYS"),
    CalendarSpec("24/7"),
    CalendarSpec("template", "America/New_York", "18:00", "17:00", (0, 1, 2, 3, 4), (("16:15", "16:30"),), "XNYS"),
]


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    before = dict(calendars.made)
    calendars.made.clear()
    yield
    calendars.made.clear()
    calendars.made.update(before)


def test_hours_come_back_as_they_were_made(tmp_path: Path) -> None:
    expected = {spec: segments(spec) for spec in SPECS}
    Hours(tmp_path).keep()
    calendars.made.clear()
    assert set(Hours(tmp_path).recall()) == set(SPECS)
    for spec, hours in expected.items():
        found = calendars.made[spec]
        for name in ("dates", "first", "open", "close"):
            assert np.array_equal(getattr(found, name), getattr(hours, name))
            assert getattr(found, name).dtype == getattr(hours, name).dtype
    assert len(list((tmp_path / "calendars").iterdir())) == 3
    Hours(tmp_path).keep()
    assert len(list((tmp_path / "calendars").iterdir())) == 3


@pytest.mark.parametrize(
    "harm", [lambda data: data[: len(data) // 2], lambda data: b"", lambda data: data[:300] + b"\0" * 8 + data[308:]]
)
def test_a_damaged_file_is_not_taken_and_written_again(tmp_path: Path, harm) -> None:  # type: ignore[no-untyped-def]
    segments(SPECS[1])
    Hours(tmp_path).keep()
    [file] = (tmp_path / "calendars").iterdir()
    whole = file.read_bytes()
    file.write_bytes(harm(whole))
    calendars.made.clear()
    assert Hours(tmp_path).recall() == []
    assert calendars.made == {}
    segments(SPECS[1])
    Hours(tmp_path).keep()
    calendars.made.clear()
    assert Hours(tmp_path).recall() == [SPECS[1]]


def test_another_version_of_exchange_calendars_makes_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    segments(SPECS[1])
    Hours(tmp_path).keep()
    monkeypatch.setattr("resources.hours.version", lambda _: "99.0")
    assert Hours(tmp_path).recall() == []
