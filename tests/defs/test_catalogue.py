"""The catalogue of shipped sets, and the page about them."""

import re
from pathlib import Path

import pytest

import defs
from defs.catalogue import catalogue, definition, definitions, page
from quant.expression import parse

FILE = Path(defs.__file__).parent.parent / "docs" / "sets.md"


def test_the_page_is_what_the_files_say() -> None:
    assert FILE.read_text() == page(), "run python -m defs.catalogue > docs/sets.md"


def test_the_catalogue_has_at_least_485_distinct_definitions() -> None:
    assert len(definitions()) >= 485


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("lag(close, 59) / close", "lag(close, 5) / close"),
        ("lag(volume, 3) / (volume + 1e-12)", "volume / (volume + 1e-12)"),
        ("lag(rsi(close, 14), 3)", "rsi(close, 14) / 100 - 0.5"),
        ("-returns(close, 5)", "roc(close, 5)"),
    ],
)
def test_lags_multiples_and_offsets_are_one_definition(one: str, other: str) -> None:
    assert definition(parse(one)) is definition(parse(other))


@pytest.mark.parametrize(
    ("one", "other"),
    [("mean(close, 5) / close", "mean(close, 10) / close"), ("returns(close, 5)", "returns(close, 10)")],
)
def test_other_windows_are_other_definitions(one: str, other: str) -> None:
    assert definition(parse(one)) is not definition(parse(other))


def test_technical_has_at_least_100_definitions_and_only_the_lags_that_say_so() -> None:
    entries, program = catalogue()
    technical = [name for name, entry in entries.items() if entry.file == "conf/features/technical.yaml"]
    found: dict[int, list[str]] = {}
    for name in technical:
        found.setdefault(id(definition(program.outputs[name])), []).append(name)
    assert len(found) >= 100
    for names in found.values():
        assert sum("_lag_" not in name for name in names) == 1, names
    assert len({id(program.outputs[name]) for name in technical}) == len(technical)


def test_every_feature_says_what_it_is() -> None:
    for entry in catalogue()[0].values():
        if entry.file.startswith("conf/features/"):
            assert entry.description, entry.name
            assert entry.group != re.sub(r".*/|\.yaml", "", entry.file), f"{entry.name} has no group"
