"""Sets: what YAML declares becomes one flat list of named expressions."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import conf
from quant.expression import ExpressionError
from quant.inputs import CALENDAR
from quant.panel import Panel
from quant.program import Program
from quant.sets import Entry, expand

CONF = Path(conf.__file__).parent
BARS = ("open", "high", "low", "close", "volume", *CALENDAR)


def expanded(declared: dict[str, Any], **names: list[str]) -> dict[str, Entry]:
    return expand({"mine": declared}, file_of=lambda name: f"conf/features/{name}.yaml", names=names)


def test_an_entry_is_its_expression_or_says_more() -> None:
    entries = expanded({"a": "close", "b": {"expr": "open", "group": "bar", "description": "the open"}})
    assert entries["a"] == Entry("a", "close", "mine", "", "conf/features/mine.yaml")
    assert entries["b"] == Entry("b", "open", "bar", "the open", "conf/features/mine.yaml")
    assert list(entries) == ["a", "b"]


def test_every_member_of_a_family_has_the_bounds_that_it_declares() -> None:
    entries = expanded({"r_{n}": {"expr": "rsi(close, n)", "n": [6, 14], "low": 0, "high": 100, "nulls": 0.1}})
    assert [(entry.low, entry.high, entry.nulls) for entry in entries.values()] == [(0.0, 100.0, 0.1)] * 2


def test_a_family_expands_over_every_combination_of_its_parameters() -> None:
    family = {"expr": "ema(close, m) / mean(x, n)", "x": ["high", "low"], "n": [5, 10], "m": [3]}
    entries = expanded({"{x}_{n}_{m}": family | {"description": "{x} of {n}, {other}"}})
    assert list(entries) == ["high_5_3", "high_10_3", "low_5_3", "low_10_3"]
    assert entries["low_10_3"].text == "ema(close, 3) / mean(low, 10)"
    assert entries["low_10_3"].description == "low of 10, {other}"


def test_a_parameter_never_touches_an_argument_or_operator_of_the_same_name() -> None:
    entries = expanded({"a_{n}_{mean}": {"expr": "mean(close, n=n) * mean", "n": [5], "mean": [2]}})
    assert entries["a_5_2"].text == "mean(close, n=5) * 2"


def test_a_family_may_run_over_operators() -> None:
    entries = expanded({"{op}_5": {"expr": "op(close, 5) / close", "op": ["min", "max"]}})
    assert [entry.text for entry in entries.values()] == ["min(close, 5) / close", "max(close, 5) / close"]


def test_a_family_may_run_over_all_features() -> None:
    entries = expanded({"{f}_rank": {"expr": "rank(f)", "f": "features"}}, features=["a", "b"])
    assert [entry.text for entry in entries.values()] == ["rank(a)", "rank(b)"]


def test_fractions_and_negative_numbers_give_readable_names() -> None:
    entries = expanded({"x_{p}": {"expr": "close * p", "p": [0.5, -1]}})
    assert {name: entry.text for name, entry in entries.items()} == {
        "x_0_5": "close * 0.5",
        "x_m1": "close * -1",
    }


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ({"a": {"group": "g"}}, "conf/features/mine.yaml: a has no expr"),
        ({"a_{n}": "mean(close, n)"}, "parameter n has no values"),
        ({"a": {"expr": "mean(close, n)", "n": [5, 10]}}, "parameter n is not in the name"),
        (
            {"a_{f}": {"expr": "rank(f)", "f": "factors"}},
            r"parameter f is 'factors'.*known list \(features\)",
        ),
        ({"a_{n}": {"expr": "mean(close, n)", "n": []}}, "not a list of values"),
        ({"a_{n}": {"expr": "mean(close, n)", "n": [None]}}, "None, not a number or a name"),
        ({"a_{n}": {"expr": "mean(close, n", "n": [1]}}, r"mine.yaml: a_\{n\}, column 5: not an expression"),
        ({"a b": "close"}, "a b is not a name"),
        ({"1a": "close"}, "1a is not a name"),
        ({"__x": "close"}, "__x is not a name"),
        (
            {"a": {"expr": "close", "descripton": "x"}},
            r"a: descripton is no key of an entry; did you mean description\? The keys are expr, group, description",
        ),
        ({"a": {"expr": "close", "unit": 3}}, r"a: unit is no key of an entry. The keys are expr, .*a list of values"),
        (
            {"ok_{n}": {"expr": "mean(close, n)", "n": [5, 10]}, "ok_5": "close"},
            r"mine.yaml: ok_5 is also declared in conf/features/mine.yaml, by ok_\{n\}: rename one",
        ),
        (
            {"ok_5": "close", "ok_{n}": {"expr": "mean(close, n)", "n": [5, 10]}},
            r"ok_5 \(of ok_\{n\}\) is also declared in conf/features/mine.yaml, by ok_5: rename one",
        ),
        ({"a": {"expr": "close", "low": "0"}}, "a: low is '0', and must be a number"),
        ({"a": {"expr": "close", "high": 1e39}}, "a: high is 1e[+]39, and must be a number of float32"),
        ({"a": {"expr": "close", "low": 2, "high": 1}}, "low 2 is above high 1: no value fits"),
        ({"a": {"expr": "close", "nulls": 1.5}}, "nulls is 1.5, and must be a share"),
    ],
)
def test_a_malformed_entry_is_refused_with_its_file_and_name(declared: dict, message: str) -> None:
    with pytest.raises(ExpressionError, match=message):
        expanded(declared, features=["a"])


def test_one_name_in_two_sets_names_both_files() -> None:
    with pytest.raises(ExpressionError, match=r"conf/two.yaml: ma is also declared in conf/one.yaml"):
        expand({"one": {"ma": "close"}, "two": {"ma": "open"}}, file_of=lambda name: f"conf/{name}.yaml")


def shipped(group: str, *names: str, **lists: list[str]) -> dict[str, Entry]:
    sets = {name: yaml.safe_load((CONF / group / f"{name}.yaml").read_text()) for name in names}
    return expand(sets, file_of=lambda name: f"conf/{group}/{name}.yaml", names=lists)


def test_the_shipped_sets_compile_without_look_ahead() -> None:
    features = shipped("features", "technical")
    program = Program.compile(features, BARS, section=False)
    assert len(program.names) >= 100
    assert all(entry.description and entry.group != "technical" for entry in features.values())
    factors = shipped("factors", "pass_through", "cross_section", features=list(features))
    crossed = Program.compile(factors, (*BARS, *features))
    assert crossed.crosses
    assert crossed.lookback == 0
    assert set(features) < set(crossed.names)


def test_where_a_venue_reports_no_volume_only_volume_features_are_missing(market) -> None:
    panel = market(400, 2, missing=0)
    panel.columns["volume"][:] = np.nan
    features = shipped("features", "technical")
    for name, values in Program.compile(features, BARS).run(panel, tail=50).items():
        assert np.isnan(values).all() == (features[name].group == "volume"), name


def test_features_do_not_depend_on_the_price_level(market) -> None:
    panel = market(400, 2, missing=0.05)
    dear = {
        name: values * np.float32(64 if name in ("open", "high", "low", "close") else 1)
        for name, values in panel.columns.items()
    }
    program = Program.compile(shipped("features", "technical"), BARS)
    cheap_values = program.run(panel)
    for name, values in program.run(Panel(panel.time, panel.symbols, dear)).items():
        np.testing.assert_allclose(values, cheap_values[name], rtol=1e-3, atol=1e-4, err_msg=name)


def test_a_family_may_run_over_the_symbols_that_it_reads() -> None:
    made = expand({"m": {"to_{s}": {"expr": "close / of(s, close)", "s": ["SPY", "QQQ"]}}}, file_of=str)
    assert [entry.text for entry in made.values()] == ["close / of('SPY', close)", "close / of('QQQ', close)"]
    assert Program.compile(made, ["close"]).symbols == ("QQQ", "SPY")
