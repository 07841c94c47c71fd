"""Attributes from a config: a file's mistakes are told with the file, the symbol and the row."""

import re
from datetime import date
from pathlib import Path

import polars as pl
import pytest

from quant.attributes import Attribute
from resources.sources import SourceError
from resources.sources.attributes import read_attributes


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sectors.csv"


def test_nothing_is_declared_by_null() -> None:
    assert read_attributes(None) == {}


def test_inline_values_hold_for_all_time() -> None:
    found = read_attributes({"sector": {"B": "tech", "A": "energy"}, "cap": {"A": 3.0}})
    assert found["sector"] == Attribute((("A", None, None, 0.0), ("B", None, None, 1.0)), ("energy", "tech"))
    assert found["cap"] == Attribute((("A", None, None, 3.0),), None)


def test_a_file_gives_an_attribute_per_column_with_its_spans(path: Path) -> None:
    path.write_text(
        "start,symbol,end,sector,cap\n2024-03-01,META,,tech,2\n,META,2024-02-29,media,1\n,0700, , tech ,\n,ON,,,5\n"
    )
    found = read_attributes(str(path))
    assert list(found) == ["sector", "cap"]
    assert found["sector"] == Attribute(
        (("0700", None, None, 1.0), ("META", None, date(2024, 2, 29), 0.0), ("META", date(2024, 3, 1), None, 1.0)),
        ("media", "tech"),
    )
    assert found["cap"].spans[-1] == ("ON", None, None, 5.0)
    assert found["cap"].symbols == ("META", "ON")  # an empty cell is a symbol without that attribute


def test_parquet_says_the_same_as_csv(path: Path) -> None:
    path.write_text("symbol,start,end,sector,size\nA,2024-01-01,2024-06-30,x,1\nA,2024-07-01,,y,2\nB,2024-01-01,,x,\n")
    other = path.with_suffix(".parquet")
    pl.read_csv(path, try_parse_dates=True).with_columns(pl.col("sector").cast(pl.Categorical)).write_parquet(other)
    assert read_attributes(str(other)) == read_attributes(str(path))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("symbol,sector\nA,x\nB,y\nA,z\n", r"row 3 \(A\) covers days that row 1 covers too"),
        ("symbol,sector\nA,x\nB,y\nA,x\n", r"row 3 \(A\) covers days that row 1 covers too"),
        ("symbol,start,end,sector\nA,2024-01-01,2024-06-30,x\nA,2024-06-30,,y\n", r"row 2 \(A\) covers .* row 1"),
        ("symbol,start,end,sector\nB,,,x\nA,2024-01-01,,x\nA,2025-01-01,,y\n", r"row 3 \(A\) covers .* row 2"),
        ("symbol,start,end,sector\nA,2025-01-01,,y\nA,,,x\n", r"row 1 \(A\) covers .* row 2"),
        ("symbol,start,end,sector\nA,2024-06-30,2024-01-01,x\n", r"row 1 \(A\) ends on 2024-01-01, before it starts"),
        ("symbol,start,sector\nA,2024-01-01,x\nB,yesterday,x\n", r"row 2 \(B\) has the start yesterday, not a date"),
        ("symbol,start,sector\nA,20240131,x\n", r"row 1 \(A\) has the start 20240131, not a date"),
        ("symbol,sector\nA,x\n,y\n", r"row 2 has no symbol"),
        ("symbol,cap\nA,1\nB,inf\n", r"row 2 \(B\) has the cap inf, not a finite number"),
        ("symbol,start,end\nA,,\n", r"has no attribute beside its symbol"),
        ("ticker,sector\nA,x\n", r"lacks the column\(s\) symbol; it has ticker, sector"),
        ("symbol,GICS sector\nA,x\n", r"the column 'GICS sector', which is no name"),
        ("symbol,close\nA,1\n", r"the column 'close', which is a column of the bars"),
        ("symbol,listed\nA,2020-01-01\n", r"the column listed is Date; attributes are texts or numbers"),
        ("", r"cannot be read"),
    ],
)
def test_a_mistake_names_the_file_the_symbol_and_the_row(path: Path, text: str, told: str) -> None:
    path.write_text(text)
    with pytest.raises(SourceError, match=told) as error:
        read_attributes(str(path))
    assert str(error.value).startswith(f"universe.attributes: {path}")


def test_a_file_that_is_not_there_is_named() -> None:
    there = f"universe.attributes: there is no file nowhere.csv in {Path.cwd()}: a relative path is read from"
    with pytest.raises(SourceError, match=re.escape(there)):
        read_attributes("nowhere.csv")
