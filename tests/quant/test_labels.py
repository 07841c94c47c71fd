"""What is learned of a label, and labels that know their own end."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import rankdata

from quant.labels import BarrierLabel, ExpressionLabel, gains, grades, label_of
from quant.panel import Panel
from quant.program import Program

COLUMNS = ("open", "high", "low", "close")


def panel(slots: int = 60) -> Panel:
    chance = np.random.default_rng(0)
    close = 100 * np.exp(np.cumsum(chance.normal(0, 0.01, (slots, 2)), axis=0))
    opened = np.roll(close, 1, axis=0)
    made = {"open": opened, "high": np.maximum(opened, close), "low": np.minimum(opened, close), "close": close}
    time = np.datetime64("2024-01-01", "us") + np.arange(slots) * np.timedelta64(1, "D")
    return Panel(time, ("a", "b"), {name: np.ascontiguousarray(x, np.float32) for name, x in made.items()})


def test_a_gain_is_an_outcome_above_zero():
    assert gains(np.array([-1.0, 0.0, 1e-12, 2.0])).tolist() == [0, 0, 1, 1]


@settings(max_examples=100)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(-4, 4)), min_size=1, max_size=60), st.integers(2, 6))
def test_a_grade_is_the_share_of_the_section_below_it(rows, number):
    section, outcome = (np.array(column) for column in zip(*rows, strict=True))
    found = grades(outcome.astype(float), section, number)
    for of in set(section.tolist()):
        here = outcome[section == of]
        below = rankdata(here, "min") - 1
        assert found[section == of].tolist() == (below * number // len(here)).tolist()
    assert found.max() < number


def test_an_expression_is_known_as_far_ahead_as_it_reads():
    text = "lead(close, 6) / lead(open, 1) - 1"
    label = ExpressionLabel(Program.compile({"label": text}, COLUMNS, lookahead=True), text)
    made, bars = label.run(panel()), panel().columns
    np.testing.assert_allclose(made.value[:-6], bars["close"][6:] / bars["open"][1:-5] - 1, rtol=1e-4, atol=1e-6)
    assert np.isnan(made.value[-6:]).all()
    assert (made.ahead == label.lookahead).all()
    assert (label.lookahead, label.inputs) == (6, ("open", "close"))


def test_a_barrier_label_reads_its_width_off_the_past_and_says_what_it_is():
    width = Program.compile({"width": "std(close / lag(close, 1) - 1, 20)"}, COLUMNS)
    rules = {"profit": 2.0, "loss": None, "bars": 5, "entry": "next_open", "tie": "loss"}
    label = BarrierLabel(width, "std(close / lag(close, 1) - 1, 20)", **rules)
    assert (label.lookback, label.lookahead, set(label.inputs)) == (20, 5, set(COLUMNS))
    assert label.text == (
        "the return from next open until profit 2 times std(close / lag(close, 1) - 1, 20), or 5 bars"
    )
    made = label.run(panel())
    assert np.isfinite(made.value[20:-5]).all()
    assert np.isnan(made.value[0]).all()  # no return yet
    assert set(np.unique(made.ahead[20:-5])) <= {1, 2, 3, 4, 5}
    assert len(np.unique(made.ahead[20:-5])) > 1


def compiled(entries, **how):
    return Program.compile(entries, COLUMNS, **how)


def test_a_declared_label_has_its_parameters_filled_in():
    declared = {
        "kind": "expression", "name": "mine", "expr": "lead(close, bars) / lead(open, 1) - 1",
        "entry": "next_open", "bars": 6,
    }  # fmt: skip
    label = label_of(declared, compiled)
    assert (label.text, label.lookahead, label.crosses) == ("lead(close, 6) / lead(open, 1) - 1", 6, False)
    plain = ExpressionLabel(Program.compile({"label": label.text}, COLUMNS, lookahead=True), label.text)
    np.testing.assert_array_equal(label.run(panel()).value, plain.run(panel()).value)
    assert label_of({**declared, "expr": "rank(lead(close, bars))"}, compiled).crosses


def test_a_declared_barrier_label_shares_its_bars_with_its_width():
    declared = {
        "kind": "triple_barrier", "name": "mine", "width": "std(close / lag(close, 1) - 1, window) * sqrt(bars)",
        "window": 20, "profit": 1.0, "loss": None, "bars": 9, "entry": "next_open", "tie": "loss",
    }  # fmt: skip
    label = label_of(declared, compiled)
    assert (label.lookback, label.lookahead) == (20, 9)
    assert "std(close / lag(close, 1) - 1, 20) * sqrt(9)" in label.text
    again = label_of({**declared, "bars": 5}, compiled)
    assert (again.lookahead, "sqrt(5)" in again.text) == (5, True)
