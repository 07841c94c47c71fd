"""Which other horizons a config brings along, with what of them, and what it says where it cannot."""

from collections.abc import Callable
from pathlib import Path

import pytest

from conf.compose import asked, compose, to_yaml

Mistake = Callable[..., str]


@pytest.fixture
def reads(folder: Path) -> Callable[[str], None]:
    """Write the set `mine`, which 5m has beside its own."""

    def write(text: str) -> None:
        (folder / "features" / "mine.yaml").write_text(f"# @package features.mine\n{text}\n")

    file = folder / "horizon" / "5m.yaml"
    file.write_text(file.read_text().replace("/features: [technical]", "/features: [technical, mine]"))
    return write


def test_a_horizon_that_is_read_comes_along_with_its_own_sets(folder: Path, reads: Callable[[str], None]) -> None:
    reads('slow: at("1h", rsi_14)')
    found = compose(["horizon=5m", "calendar=24x7"], folder)
    assert list(found) == ["5m", "1h"]
    assert asked(["horizon=5m"], folder) == ["5m"]
    other = (found["5m"].at or {})["1h"]
    assert (other.interval, other.calendar.name, list(other.features)) == ("1h", "24/7", ["technical"])
    assert found["1h"].at is None
    assert "mine" not in found["1h"].features


def test_sets_that_are_typed_are_those_of_the_horizons_that_are_asked_for(
    folder: Path, reads: Callable[[str], None]
) -> None:
    reads('slow: at("1h", rsi_14)')
    words = ["horizon=5m", "features=[mine,volume]", "~features.volume.volume_ratio"]
    found = compose(words, folder)
    assert list(found["5m"].features) == ["mine", "volume"]
    assert list(found["1h"].features) == list((found["5m"].at or {})["1h"].features) == ["technical"]


def test_factors_families_and_parameters_name_horizons_too(folder: Path, reads: Callable[[str], None]) -> None:
    reads('"slow_{h}": {expr: "at(h, close)", h: [1h, 1d]}')
    (folder / "factors" / "other.yaml").write_text('# @package factors.other\nquarter: rank(at("15m", close))\n')
    found = compose(["horizon=5m", "factors=[pass_through,other]"], folder)
    assert list(found["5m"].at or ()) == ["1h", "1d", "15m"]


def test_two_horizons_may_read_each_other(folder: Path, reads: Callable[[str], None]) -> None:
    reads('slow: at("1h", close)')
    (folder / "features" / "back.yaml").write_text('# @package features.back\nfast: at("5m", close)\n')
    file = folder / "horizon" / "1h.yaml"
    file.write_text(file.read_text().replace("/features: [technical]", "/features: [technical, back]"))
    found = compose(["horizon=5m"], folder)
    assert list(found["5m"].at or ()) == ["1h"]
    assert list(found["1h"].at or ()) == ["5m"]


def test_the_resolved_config_shows_what_is_read_and_nothing_where_nothing_is(
    folder: Path, reads: Callable[[str], None]
) -> None:
    reads('slow: at("1h", rsi_14)')
    found = compose(["horizon=5m"], folder)
    assert "\nat:\n  1h:\n    interval: 1h\n" in to_yaml(found["5m"])
    assert "\nat:" not in to_yaml(found["1h"])


def test_an_unknown_horizon_is_named_with_file_entry_and_the_nearest(
    mistake: Mistake, reads: Callable[[str], None]
) -> None:
    reads('fine: close\nslow: close / at("1hh", close)')
    text = mistake("horizon=5m")
    assert text.startswith("conf/features/mine.yaml:3: slow: close / at(")
    assert 'at("1hh", …), column 9, is no horizon; did you mean 1h?' in text
    assert "Write one of 1m, 15m, 1h, 1d" in text


def test_a_horizon_that_reads_itself_is_told(mistake: Mistake, reads: Callable[[str], None]) -> None:
    reads('slow: at("5m", close)')
    text = mistake("horizon=5m")
    assert text.startswith("conf/features/mine.yaml:2: slow: ")
    assert 'at("5m", …), column 1, is this horizon itself' in text


def test_what_is_read_is_not_for_a_file_to_say(mistake: Mistake, folder: Path) -> None:
    file = folder / "horizon" / "5m.yaml"
    file.write_text(file.read_text() + "at: {}\n")
    assert "at is not a key" in mistake("horizon=5m")
