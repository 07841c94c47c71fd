"""Attributes of symbols: each bar has that of its session, and a text has the same code wherever it is read."""

import json
from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quant.attributes import Attribute, attribute_columns, coded
from quant.grid import CalendarSpec, Grid
from quant.inputs import bar_panel, names
from quant.program import Program

DAY = date(2024, 1, 1)
Held = dict[str, list[tuple[int, int, float]]]


def days(*numbers: int) -> np.ndarray:
    return np.array([np.datetime64(DAY) + number for number in numbers], "datetime64[D]")


@st.composite
def spans(draw: st.DrawFn) -> Held:
    """Per symbol, spans of days without overlap, with gaps between some."""
    held: Held = {}
    for symbol in draw(st.lists(st.sampled_from("ABCDEF"), unique=True)):
        edges = sorted(draw(st.lists(st.integers(-40, 40), unique=True, max_size=8)))
        pairs = list(zip(edges[::2], edges[1::2], strict=False))
        held[symbol] = [(a, b, draw(st.integers(0, 5)) / 4) for a, b in pairs]
    return held


@given(spans(), st.randoms(use_true_random=False))
def test_a_row_has_the_value_whose_span_holds_its_day(held: Held, random) -> None:  # type: ignore[no-untyped-def]
    rows = [
        (symbol, DAY + timedelta(a), DAY + timedelta(b), value)
        for symbol, found in held.items()
        for a, b, value in found
    ]
    random.shuffle(rows)
    attribute = Attribute.of(rows)
    asked = [(symbol, day) for symbol in "ABCDEFG" for day in range(-45, 46)]
    random.shuffle(asked)
    found = attribute.values(pl.Series([symbol for symbol, _ in asked]), days(*(day for _, day in asked)))
    expected = [next((value for a, b, value in held.get(symbol, []) if a <= day <= b), np.nan) for symbol, day in asked]
    np.testing.assert_array_equal(found, np.array(expected, np.float32))


def test_a_span_without_an_end_never_ends_and_one_without_a_start_was_always_so() -> None:
    attribute = Attribute.of([("A", None, DAY, 1.0), ("A", DAY + timedelta(1), None, 2.0)])
    when = np.array(["0001-01-01", "2024-01-01", "2024-01-02", "9999-12-31"], "datetime64[D]")
    assert attribute.values(pl.Series(["A"] * 4), when).tolist() == [1, 1, 2, 2]


def test_texts_are_coded_by_their_names_in_order_whatever_the_rows() -> None:
    rows = [("A", None, None, "tech"), ("B", None, None, "energy"), ("C", None, None, None), ("D", None, None, "tech")]
    for given_rows in (rows, rows[::-1]):
        attribute = Attribute.of(given_rows)
        assert attribute.categories == ("energy", "tech")
        values = attribute.values(pl.Series(["A", "B", "C", "D", "E"]), days(0, 0, 0, 0, 0))
        np.testing.assert_array_equal(values, [1, 0, np.nan, 1, np.nan])
    # The codes stay where only some symbols are kept.
    assert attribute.only(["A"]).values(pl.Series(["A", "B"]), days(0, 0))[0] == 1
    assert attribute.only(["A"]).symbols == ("A",)


def test_numbers_pass_as_they_are() -> None:
    attribute = Attribute.of([("A", None, None, 2.5e9), ("B", None, None, -1)])
    assert attribute.categories is None
    assert attribute.values(pl.Series(["B", "A"]), days(0, 0)).tolist() == [-1, 2.5e9]


def test_an_attribute_survives_json() -> None:
    for rows in ([("A", DAY, None, "x"), ("B", None, DAY, "y")], [("A", None, None, 0.1)], []):
        attribute = Attribute.of(rows)
        assert Attribute.from_dict(json.loads(json.dumps(attribute.to_dict()))) == attribute


def test_an_attribute_is_missing_where_there_is_no_bar_so_that_a_section_holds_only_who_is_in_it() -> None:
    grid = Grid(CalendarSpec("XNYS"), "1d")
    slots = grid.slots(date(2024, 1, 2), date(2024, 1, 4))
    stamps = pl.Series(slots).dt.replace_time_zone("UTC")
    bars = pl.DataFrame({"symbol": ["A", "B", "A"], "timestamp": [stamps[0], stamps[0], stamps[2]]})
    prices = {name: 1.0 for name in ("open", "high", "low", "close", "volume", "price_factor", "volume_factor")}
    bars = bars.with_columns(**{name: pl.lit(value) for name, value in prices.items()}, cap=pl.lit(9.0))
    attributes = {"cap": Attribute.of([("A", None, date(2024, 1, 3), 3.0), ("A", date(2024, 1, 4), None, 4.0),
                                       ("B", None, None, 5.0)])}  # fmt: skip
    panel = bar_panel(bars, grid, slots, ("A", "B"), ["close", "cap"], attributes)
    # A column of that name among the bars sent does not stand for it.
    np.testing.assert_array_equal(panel.columns["cap"], np.array([[3, 5], [np.nan, np.nan], [4, np.nan]], np.float32))


def test_the_session_decides_and_not_the_date_in_utc() -> None:
    sydney = Grid(CalendarSpec("XASX"), "1h")
    slots = sydney.slots(date(2023, 2, 2), date(2023, 2, 2))
    assert slots[0].astype("datetime64[D]") == np.datetime64("2023-02-01")
    bars = pl.DataFrame({"symbol": ["A"] * len(slots), "timestamp": pl.Series(slots).dt.replace_time_zone("UTC")})
    sector = Attribute.of([("A", None, date(2023, 2, 1), "old"), ("A", date(2023, 2, 2), None, "new")])
    [column] = attribute_columns(bars, sydney, {"sector": sector}, ["sector"])
    assert set(column) == {sector.categories.index("new")}  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("text", "passed"),
    [
        ("neutralize(close, by=sector)", False),
        ("rank(neutralize(close, sector))", False),
        ("sector", True),
        ("neutralize(sector, by=sector)", True),
        ("sector == 2", True),
        ("mean(sector, 3)", True),
        ("neutralize(close, sector + 1)", True),
        ("close * cap", False),
    ],
)
def test_codes_get_into_values_unless_they_only_group(text: str, passed: bool) -> None:
    attributes = {
        "sector": Attribute.of([("A", None, None, "x")]),
        "cap": Attribute.of([("A", None, None, 1.0)]),
    }
    program = Program.compile({"factor": text}, (*names(), *attributes))
    assert coded(program, attributes) == ({"sector": ["x"]} if passed else {})
