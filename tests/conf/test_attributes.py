"""Attributes written inline: what cannot stand in an expression, or is no symbol or value, is refused with its key."""

from pathlib import Path

import pytest

from conf.compose import compose, to_yaml
from conf.schema import Horizon
from tests.conf.conftest import Mistake


@pytest.mark.parametrize(
    ("written", "key", "told"),
    [
        ("3", "attributes is 3", "a file, or each attribute's value by symbol"),
        ("{}", "attributes is {}", "a file, or each attribute's value by symbol"),
        ("{sector: tech}", "attributes.sector is tech", "a mapping of symbols to values"),
        ("{sector: {}}", "attributes.sector is {}", "a mapping of symbols to values"),
        ("{the sector: {A: x}}", "attributes.the sector is", "letters, digits and _"),
        ("{sector: {ON: tech}}", "attributes.sector is", "put the symbol True in quotes"),
        ("{sector: {0700: tech}}", "attributes.sector is", "put the symbol 448 in quotes"),
        ("{sector: {A: true}}", "attributes.sector is", "give A a text or a number (or leave it out), not True"),
        ("{sector: {A: null}}", "attributes.sector is", "give A a text or a number (or leave it out), not None"),
        ("{sector: {A: ' '}}", "attributes.sector is", "give A a text or a number (or leave it out), not ' '"),
        ("{sector: {A: 10, B: x}}", "attributes.sector is", "texts alone or numbers alone"),
    ],
)
def test_a_mistake_names_the_file_the_key_and_what_to_write(
    folder: Path, mistake: Mistake, written: str, key: str, told: str
) -> None:
    file = folder / "universe" / "mine.yaml"
    file.write_text(f"name: mine\nsymbols: null\nattributes: {written}\n")
    message = mistake("universe=mine")
    assert message.startswith("conf/universe/mine.yaml:3: universe." + key)
    assert told in message


def test_texts_numbers_and_files_are_kept_through_the_printed_config(folder: Path) -> None:
    file = folder / "universe" / "mine.yaml"
    for written, read in (
        ("sectors.csv", "sectors.csv"),
        ("null", None),
        ("{sector: {'ON': tech, '0700': media}, cap: {A: 1, BRK.B: 2.5}}",
         {"sector": {"ON": "tech", "0700": "media"}, "cap": {"A": 1.0, "BRK.B": 2.5}}),
    ):  # fmt: skip
        file.write_text(f"name: mine\nattributes: {written}\n")
        horizon = compose(["universe=mine"], folder)["5m"]
        assert horizon.universe.attributes == read
        import yaml

        assert Horizon.model_validate(yaml.safe_load(to_yaml(horizon))) == horizon
