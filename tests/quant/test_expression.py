"""The language: what it means, what it refuses, and how it says so."""

import time

import numpy as np
import pytest

from quant.expression import ExpressionError, parse
from quant.graph import column, constant
from quant.program import Program

COLUMNS = ("open", "high", "low", "close", "volume", "raw_close")


def compile_one(text: str) -> Program:
    return Program.compile({"x": text}, COLUMNS, lookahead=True)


@pytest.mark.parametrize(
    "text",
    [
        "close - open - low",
        "close - (open - low)",
        "-close * open + 2 * low",
        "close / open / low",
        "close * 2 ** 3",
        "-close ** 2",
        "(close + high) * (2 + 3) / 4",
        "+close - -open",
    ],
)
def test_arithmetic_is_pythons(text: str, market) -> None:
    panel = market(30, 2)
    expected = eval(text, {}, {name: values.astype(np.float64) for name, values in panel.columns.items()})
    values = compile_one(text).run(panel)["x"]
    np.testing.assert_allclose(values, expected, rtol=2e-6)


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("close > open", lambda c, o: c > o),
        ("open <= close < open * 1.01", lambda c, o: (o <= c) & (c < o * np.float32(1.01))),
        ("close > open and close > 50", lambda c, o: (c > o) & (c > 50)),
        ("close > open or not close > 50", lambda c, o: (c > o) | ~(c > 50)),
        ("close if close > open else open", lambda c, o: np.maximum(c, o)),
        ("where(close != open, 1, 2)", lambda c, o: np.where(c != o, 1, 2)),
    ],
)
def test_conditions_are_pythons_and_missing_where_a_side_is(text: str, plain, market) -> None:
    panel = market(60, 3)
    close, open_ = panel.columns["close"], panel.columns["open"]
    expected = np.where(np.isnan(close) | np.isnan(open_), np.nan, plain(close, open_))
    np.testing.assert_array_equal(compile_one(text).run(panel)["x"], expected.astype(np.float32))


def test_equal_expressions_are_one_node() -> None:
    assert parse("mean(close, 5) + 1") is parse("mean( close,n=5 )+1.0")
    assert parse("\n  close + 1 \n") is parse("close + 1")
    assert parse("rsi(close)") is parse("rsi(close, 14)")
    assert parse("close ** 2") is parse("close * close")
    assert parse("2 * 3 + 4") is constant(10)
    assert parse("raw(close)", names={"raw_close": column("raw_close")}) is column("raw_close")


@pytest.mark.parametrize(
    ("text", "lookback", "lookahead"),
    [
        ("close / open", 0, 0),
        ("lag(close, 3)", 3, 0),
        ("mean(close, 5)", 4, 0),
        ("mean(lag(close, 2), 5) + lag(close, 9)", 9, 0),
        ("std(mean(close, 5), 10)", 13, 0),
        ("volatility(close, 12)", 12, 0),
        ("corr(close, lag(volume, 3), 10)", 12, 0),
        ("lead(close, 6) / lead(open, 1) - 1", 0, 6),
        ("mean(lead(close, 5), 3)", 0, 5),
        ("lead(close, 2) - lag(close, 2)", 2, 2),
        ("lag(lead(close, 2), 2)", 0, 0),
        ("wma(close, 1)", 0, 0),
    ],
)
def test_look_back_and_look_ahead_are_read_off_the_graph(text: str, lookback: int, lookahead: int) -> None:
    made = parse(text)
    assert (made.lookback, made.lookahead) == (lookback, lookahead)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the expression is empty"),
        ("close +", "not an expression"),
        ("rsi(clse, 14)", r"column 5: unknown name clse; did you mean close\?"),
        ("rsy(close, 14)", r"unknown operator rsy; did you mean rsi\?"),
        ("rsi", r"rsi is no column here; as an operator it needs arguments: rsi\(x, n=14\)"),
        ("mean(close)", r"mean\(x, n\) needs n"),
        ("mean(close, 5, 6)", r"mean\(x, n\) takes 2 arguments, 3 are given"),
        ("mean(close, m=5)", r"mean\(x, n\) has no argument m"),
        ("mean(close, 5, n=5)", "is given n twice"),
        ("mean(close, **close)", "no argument"),
        ("macd(close, fats=3)", r"no argument fats; did you mean fast\?"),
        ("mean(close, 0)", "n is 0, not a whole number from 1 to 10000"),
        ("mean(close, 2.5)", "n is 2.5, not a whole number"),
        ("mean(close, 10001)", "not a whole number from 1 to 10000"),
        ("std(close, 1)", "n is 1, not a whole number from 2"),
        ("mean(close, open)", "n must be a number"),
        ("max(close, open)", r"for two series write maximum\(x, y\)"),
        ("mean(5, 5)", "x is the constant 5, it must be a series"),
        ("lag(close, -1)", r"would look ahead: write lead\(x, 1\)"),
        ("rsi(close, 0)", r"rsi\(x, n=14\): .*n is 0"),
        ("raw(mean(close, 5))", "raw takes one of open, high"),
        ("raw(open)", r"unknown name raw_open; did you mean raw_close\?"),
        ("close.mean", "attribute access is not part of the language"),
        ("close[0]", "indexing is not part of the language"),
        ("'close'", "this constant is not part of the language"),
        ("True", "this constant"),
        ("1j * close", "this constant"),
        ("lambda: close", "a lambda is not part"),
        ("[close]", "List is not part"),
        ("(close := 3)", "NamedExpr is not part"),
        ("close @ open", "BinOp is not part"),
        ("close % 2", "BinOp is not part"),
        ("~close", "UnaryOp is not part"),
        ("f'{close}'", "JoinedStr is not part"),
        ("close in open", "in is not a comparison"),
        ("close is open", "is is not a comparison"),
        ("(lambda: 1)()", "cannot be called"),
        ("__import__('os')", "unknown operator __import__"),
        ("close.__class__.__mro__", "attribute access"),
        ("__builtins__", "unknown name __builtins__"),
        ("1 / 0 + close", "1 / 0 is not a finite number"),
        ("(-8) ** 0.5 * close", "is not a finite number"),
        ("9 ** 9 ** 9 ** 9 * close", "is not a finite number"),
        ("1e39 * close", "does not fit float32"),
        ("1 < 2", "< of constants"),
        ("not 1", "not of constants"),
        ("log(-2) * close", r"log\(-2\) is not a finite number"),
        ("where(1, 2, 3) * close", "where of constants"),
        ("of(SPY, close)", r'of takes a symbol in quotes and a series: of\("SYMBOL", x\)'),
        ("of('SPY', 5)", "x is the constant 5"),
        ("of('SPY')", "of takes a symbol"),
        ("3 + 4", "the expression is a constant"),
    ],
)
def test_a_mistake_is_refused_with_its_place_and_a_way_out(text: str, message: str) -> None:
    with pytest.raises(ExpressionError, match=message):
        compile_one(text)


@pytest.mark.parametrize(
    "text",
    [
        "(" * 2_000 + "close" + ")" * 1_900,
        "-" * 3_900 + "close",
        "+".join(["close"] * 150),
        "not " * 900 + "close",
        "a" * 100_000,
        "9" * 3_990,
        "abs(" * 500 + "close" + ")" * 500,
        "mean(" * 80 + "close" + ", 10000)" * 80,
        "(close\n" * 50,
        "close\x00",
        "ema(" * 12 + "close" + ", 10000)" * 12,
    ],
)
def test_hostile_text_is_refused_quickly(text: str) -> None:
    began = time.perf_counter()
    with pytest.raises(ExpressionError) as caught:
        compile_one(text)
    assert time.perf_counter() - began < 1
    assert len(str(caught.value)) < 1_000


def test_a_message_names_the_file_the_entry_and_the_column() -> None:
    with pytest.raises(ExpressionError) as caught:
        parse("é_1 + clse", file="conf/features/mine.yaml", entry="my_feature", names={"é_1": column("close")})
    assert str(caught.value) == (
        "conf/features/mine.yaml: my_feature, column 7: unknown name clse: no column, no attribute of the universe, "
        "no earlier entry\n  é_1 + clse\n        ^"
    )
