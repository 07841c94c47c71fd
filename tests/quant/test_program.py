"""Programs: many expressions, one graph, any chunking, the same bits."""

import threading
from datetime import datetime
from typing import Any

import numpy as np
import polars as pl
import pytest

from quant import evaluation, native
from quant.expression import ExpressionError
from quant.panel import Panel, to_frame
from quant.program import Program, evaluate
from quant.sets import Entry

COLUMNS = ("open", "high", "low", "close", "volume")


def test_entries_may_use_earlier_ones(market) -> None:
    program = Program.compile({"macd": "ema(close, 3) - ema(close, 6)", "signal": "mean(macd, 2)"}, COLUMNS)
    direct = Program.compile({"signal": "mean(ema(close, 3) - ema(close, 6), 2)"}, COLUMNS)
    panel = market(100, 2)
    assert program.outputs["signal"] is direct.outputs["signal"]
    np.testing.assert_array_equal(program.run(panel)["signal"], direct.run(panel)["signal"])
    assert program.names == ("macd", "signal")
    assert program.inputs == ("close",)


def test_an_entry_read_by_another_keeps_its_own_rows(market) -> None:
    panel = market(50, 2)
    program = Program.compile({"a": "close", "b": "lag(a, 7)", "c": "lead(a, 4)"}, COLUMNS, lookahead=True)
    values = program.run(panel)
    np.testing.assert_array_equal(values["a"], panel.columns["close"])
    np.testing.assert_array_equal(values["b"][7:], panel.columns["close"][:-7])
    np.testing.assert_array_equal(values["c"][:-4], panel.columns["close"][4:])
    assert np.isnan(values["b"][:7]).all()
    assert np.isnan(values["c"][-4:]).all()


def test_an_entry_that_names_a_later_one_is_told_so() -> None:
    with pytest.raises(ExpressionError, match=r"f.yaml: a, column 1: b is declared here or further down"):
        Program.compile({"a": Entry("a", "b + 1", "g", "", "f.yaml"), "b": "close"}, COLUMNS)


def test_an_input_may_be_passed_through_but_not_redefined(market) -> None:
    panel = market(10, 2)
    passed = Program.compile({"close": "close"}, COLUMNS).run(panel)["close"]
    np.testing.assert_array_equal(passed, panel.columns["close"])
    with pytest.raises(ExpressionError, match="close is already the name of an input"):
        Program.compile({"close": "close / open"}, COLUMNS)


def test_a_derived_name_stands_for_its_expression_bit_for_bit(market) -> None:
    panel = market(60, 3)
    derived = {"vwap": "(high + low + close) / 3", "spread": "high / vwap - 1"}
    program = Program.compile({"x": "vwap / close", "y": "mean(spread, 4)"}, COLUMNS, derived=derived)
    direct = Program.compile(
        {"x": "((high + low + close) / 3) / close", "y": "mean(high / ((high + low + close) / 3) - 1, 4)"}, COLUMNS
    )
    assert program.names == ("x", "y")
    assert program.inputs == ("high", "low", "close")
    for name, values in direct.run(panel).items():
        np.testing.assert_array_equal(program.run(panel)[name], values)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lead(close, 2)", r"source.derived: vwap, column 1: lead\(…, 2\) looks 2 slots ahead"),
        ("rank(close)", "source.derived: vwap: it mixes the symbols of a section"),
        ("vwap * 2", "source.derived: vwap, column 1: vwap is no column here"),
        ("nope * 2", "source.derived: vwap, column 1: unknown name nope"),
    ],
)
def test_a_derived_name_reads_one_symbol_s_past(text: str, message: str) -> None:
    with pytest.raises(ExpressionError, match=message):
        Program.compile({"x": "vwap / close"}, COLUMNS, derived={"vwap": text})


def test_a_derived_name_does_not_replace_a_column() -> None:
    with pytest.raises(ExpressionError, match=r"source\.derived: close: close is already the name of a column"):
        Program.compile({"x": "close"}, COLUMNS, derived={"close": "(high + low) / 2"})


def test_a_feature_that_looks_ahead_does_not_load() -> None:
    with pytest.raises(ExpressionError, match=r"f.yaml: leak, column 5: lead\(…, 5\) looks 3 slots ahead.*lag\(x, n\)"):
        Program.compile({"leak": Entry("leak", "lag(lead(close, 5), 2)", "g", "", "f.yaml")}, COLUMNS)
    assert Program.compile({"label": "lead(close, 5)"}, COLUMNS, lookahead=True).lookahead == 5


def test_a_feature_that_mixes_symbols_does_not_load() -> None:
    with pytest.raises(ExpressionError, match="x: it mixes the symbols of a section"):
        Program.compile({"x": "mean(rank(close), 3)"}, COLUMNS, section=False)


@pytest.mark.parametrize("text", ["lag(close, 3)", "lag(rank(close), 3)", "lead(close, 3)", "lead(rank(close), 3)"])
def test_a_program_of_shifted_values_alone_has_them_all(text: str, market) -> None:
    panel = market(30, 5, missing=0)
    plain = Program.compile({"x": text.split("(", 1)[1].rsplit(",", 1)[0]}, COLUMNS).run(panel)["x"]
    program = Program.compile({"x": text}, COLUMNS, lookahead=True)
    shift = -3 if text.startswith("lead") else 3
    expected = np.full_like(plain, np.nan)
    expected[max(shift, 0) : 30 + min(shift, 0)] = plain[max(-shift, 0) : 30 - max(shift, 0)]
    for evaluator in (program.native, program.eager):
        np.testing.assert_array_equal(evaluator.run(panel, 30)[0], expected)
        np.testing.assert_array_equal(evaluator.run(panel, 4)[0], expected[-4:])


def test_a_panel_without_a_needed_column_is_refused(market) -> None:
    panel = market(10, 2)
    program = Program.compile({"x": "vwap / close"}, (*COLUMNS, "vwap"))
    with pytest.raises(ValueError, match="the panel lacks column vwap; it has bar_of_session, close, day_of_week"):
        program.run(panel)


def test_tail_beyond_the_panel_is_refused(market) -> None:
    with pytest.raises(ValueError, match="tail 11: the panel has 10 slots"):
        Program.compile({"x": "close"}, COLUMNS).run(market(10, 2), tail=11)


def test_tail_gives_the_last_rows_even_of_a_panel_shorter_than_the_look_back(market) -> None:
    panel = market(30, 2)
    program = Program.compile({"x": "mean(close, 50)", "y": "mean(close, 10)"}, COLUMNS)
    whole = program.run(panel)
    for name, values in program.run(panel, tail=4).items():
        np.testing.assert_array_equal(values, whole[name][-4:])
    assert not np.isnan(whole["x"][-1]).all()


@pytest.mark.parametrize(("slots", "symbols"), [(0, 3), (1, 1), (5, 0)])
def test_empty_panels_give_empty_values(slots: int, symbols: int, market) -> None:
    panel = market(10, 3).between(0, slots)
    panel = Panel(
        panel.time,
        panel.symbols[:symbols],
        {name: np.ascontiguousarray(values[:, :symbols]) for name, values in panel.columns.items()},
    )
    values = Program.compile({"x": "ema(close, 3)", "y": "zscore(close)"}, COLUMNS).run(panel)
    assert {array.shape for array in values.values()} == {(slots, symbols)}


def test_many_symbols_and_a_long_look_back_are_computed_in_blocks_of_the_same_bits(market, monkeypatch) -> None:
    panel = market(200, 7)
    entries = {"x": "ema(close, 12)", "y": "mean(close, 40) / lag(open, 3)"}
    whole = Program.compile(entries, COLUMNS).run(panel)
    monkeypatch.setattr(evaluation, "CELLS", 600)
    for name, size in (("CELLS", 600), ("TILE", 3), ("BLOCK", 50)):
        monkeypatch.setattr(native, name, size)
    for tail in (None, 1, 50):
        program, asked = Program.compile(entries, COLUMNS), tail or 200
        for evaluator in (program.native, program.eager):
            for name, values in zip(program.names, evaluator.run(panel, asked), strict=True):
                np.testing.assert_array_equal(values, whole[name][-asked:])
    ranks = Program.compile({"x": "rank(ema(close, 12))"}, COLUMNS).run(panel)["x"]
    assert np.nanmax(ranks) == 1
    assert np.nanmin(ranks) == np.float32(1 / 7)


def test_results_that_are_not_finite_are_missing(market) -> None:
    panel = market(20, 2, missing=0)
    panel.columns["volume"][:] = 0
    values = Program.compile({"x": "close / volume", "y": "log(volume)", "z": "exp(close * 1000)"}, COLUMNS)
    for array in values.run(panel).values():
        assert np.isnan(array).all()


def test_a_division_by_zero_costs_its_slot_and_not_the_windows_around_it(market) -> None:
    panel = market(40, 1, missing=0)
    panel.columns["volume"][:] = 2
    panel.columns["volume"][20] = 0
    means = Program.compile({"x": "mean(close / volume, 5)"}, COLUMNS).run(panel)["x"]
    assert np.flatnonzero(np.isnan(means[4:, 0])).tolist() == [16]


def test_programs_run_in_any_thread(market) -> None:
    panel = market(100, 3)
    program = Program.compile({"x": "rsi(close, 5)", "y": "rank(close)"}, COLUMNS)
    expected = program.run(panel)
    found: list[dict[str, np.ndarray]] = []
    threads = [threading.Thread(target=lambda: found.append(program.run(panel))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3
    for values in found:
        for name, array in values.items():
            np.testing.assert_array_equal(array, expected[name])


def test_a_program_describes_itself() -> None:
    program = Program.compile({"a": "mean(close / open, 5)", "b": "rank(lead(a, 2))"}, COLUMNS, lookahead=True)
    assert program.describe().to_dicts() == [
        {
            "name": "a",
            "expression": "mean(close / open, 5)",
            "lookback": 4,
            "lookahead": 0,
            "crosses": False,
            "inputs": ["close", "open"],
        },
        {
            "name": "b",
            "expression": "rank(lead(a, 2))",
            "lookback": 2,
            "lookahead": 2,
            "crosses": True,
            "inputs": ["close", "open"],
        },
    ]


def test_a_notebook_evaluates_an_expression_over_a_frame(market) -> None:
    panel = market(50, 3)
    frame = to_frame(panel.time, panel.symbols, panel.columns).drop_nulls("close").sample(fraction=1, shuffle=True)
    values = evaluate(frame, "mean(close, 5) / close", name="ratio")
    assert values.columns == ["symbol", "timestamp", "ratio"]
    assert values.select("symbol", "timestamp").equals(frame.select("symbol", "timestamp"))
    expected = Program.compile({"ratio": "mean(close, 5) / close"}, COLUMNS).run(panel)["ratio"]
    dense = Panel.from_frame(values, panel.time, panel.symbols, ["ratio"]).columns["ratio"]
    np.testing.assert_array_equal(dense, expected)
    assert values.schema["ratio"] == pl.Float32


def test_a_notebook_takes_daily_bars_by_their_date() -> None:
    days = pl.date_range(pl.date(2024, 1, 1), pl.date(2024, 1, 5), eager=True)
    frame = pl.DataFrame({"symbol": "AAPL", "timestamp": days, "close": [1.0, 2.0, 3.0, 4.0, 5.0]})
    values = evaluate(frame, "lag(close, 1)")
    assert values.schema["timestamp"] == pl.Datetime("us", "UTC")
    assert values["timestamp"].dt.replace_time_zone(None).to_list() == days.cast(pl.Datetime("us")).to_list()
    assert values["value"].to_list() == [None, 1, 2, 3, 4]


BARS = pl.DataFrame({"symbol": ["A", "A"], "timestamp": [datetime(2024, 1, 1), datetime(2024, 1, 2)], "close": [1, 2]})


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (BARS.to_pandas(), r"the frame is a pandas.*DataFrame, not a Polars DataFrame: .* polars.from_pandas"),
        (BARS.lazy(), r"the frame is a LazyFrame: collect it first"),
        ({"close": [1]}, r"the frame is a builtins.dict, not a Polars DataFrame"),
        (BARS.drop("symbol"), r"no column symbol; it has timestamp, close: add it, as with frame.with_columns"),
        (BARS.drop("timestamp"), r"no column timestamp; it has symbol, close: add it, as with frame.rename"),
        (BARS.clear(), "the frame has no rows"),
        (BARS.with_columns(symbol=pl.Series([None, "A"])), "1 of 2 rows have no symbol: drop them"),
        (BARS.with_columns(timestamp=pl.lit(None, pl.Date)), "2 of 2 rows have no timestamp: drop them"),
        (BARS.with_columns(symbol=pl.lit(700)), "symbol is Int32, not a text: cast it"),
        (BARS.with_columns(timestamp=pl.lit("2024-01-01")), "timestamp is String, not a Date or Datetime: convert it"),
    ],
)
def test_a_frame_that_is_none_of_bars_is_refused_with_a_way_out(frame: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate(frame, "close")


@pytest.mark.parametrize(("text", "kind"), [(["close"], "list"), ({"x": "close"}, "dict"), (3, "int")])
def test_an_expression_that_is_no_text_is_refused(text: Any, kind: str) -> None:
    with pytest.raises(ExpressionError, match=f"the expression is a {kind}, not a text such as"):
        evaluate(BARS, text)


def test_a_text_column_is_to_be_numbered_first() -> None:
    with pytest.raises(ExpressionError, match="sector is text: number it first"):
        evaluate(BARS.with_columns(sector=pl.lit("tech")), "neutralize(close, by=sector)")
    with pytest.raises(ExpressionError, match=r"^value, column 1: unknown name clse; did you mean close\?"):
        evaluate(BARS, "clse")
