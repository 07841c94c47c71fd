"""The laws of expressions, bit for bit: a value depends on its own slots, and on nothing else.

Every operator, every composite and every shipped set is held to each law, on panels with gaps.
"""

from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

import conf
from quant.graph import ordered
from quant.inputs import CALENDAR
from quant.operators import COMPOSITES, OPERATORS
from quant.panel import Panel, instants
from quant.program import Program
from quant.sets import Entry, expand
from quant.signature import Composite, Operator

PRICED = ("open", "high", "low", "close", "volume")
BARS = (*PRICED, *CALENDAR)
SERIES = ("close", "open", "high")
WINDOWS = (2, 5, 13)  # one block, two blocks, three blocks of the doubling kernel
SLOTS = 420
SETS = (
    ("features", "technical"),
    ("features", "volatility"),
    ("features", "liquidity"),
    ("features", "momentum"),
    ("features", "regime"),
    ("features", "regime_vix"),
    ("features", "alpha158"),
    ("features", "alpha360"),
    ("factors", "cross_section"),
    ("factors", "alpha101"),
    ("factors", "alpha101_industry"),
)
EXTRAS = {
    "vwap": "typical_price()",
    "cap": "volume * close",
    "sector": "volume > 2500",
    "industry": "sector + (volume > 1000)",
    "subindustry": "industry + (volume > 4000)",
}
SPECIAL = {
    "**": "close ** (open / 100)",
    "and": "close > open and high > 50",
    "or": "close > open or high > 50",
    "not": "not close > open",
    "negate": "-close",
    "where": "where(close > open, high, low)",
    "of": 'of("S0", high) / close',
    "neutralize": "neutralize(close, volume > 2500)",
    "sum_since": "sum_since(volume, bar_of_session == 0, 100)",
    "min_since": "min_since(low, bar_of_session == 0, 100)",
    "max_since": "max_since(high, bar_of_session == 0, 100)",
    "vwap": "vwap(100)",
    "signed_power": "signed_power(close - open, 1.5)",
}

seeds = st.integers(0, 10_000)
shares = st.sampled_from([0.0, 0.05, 0.4])
law = settings(max_examples=8)


def examples(operator: Operator | Composite) -> list[str]:
    """Calls of an operator: its series are columns, its first number runs over window lengths."""
    if isinstance(operator, Composite):
        series = tuple(name for name in operator.parameters if name in ("x", "y"))
        windowed = "n" in operator.parameters
        lows = 1
    else:
        series = operator.series
        windowed = any(number.name == "n" for number in operator.numbers)
        lows = max((int(number.low) for number in operator.numbers), default=1)
    columns = list(SERIES[: len(series)])
    if operator.name in SPECIAL:
        return [SPECIAL[operator.name]]
    if not operator.name.isidentifier():
        return [f" {operator.name} ".join(columns)]
    if not windowed:
        return [f"{operator.name}({', '.join(columns)})"]
    return [f"{operator.name}({', '.join([*columns, f'n={max(n, lows)}'])})" for n in WINDOWS]


@cache
def every_operator() -> Program:
    texts = [text for operator in (*OPERATORS.values(), *COMPOSITES.values()) for text in examples(operator)]
    entries = {f"e{index}": text for index, text in enumerate(dict.fromkeys(texts))}
    return Program.compile(entries, BARS, lookahead=True)


def shipped(group: str, name: str) -> dict[str, Entry]:
    text = (Path(conf.__file__).parent / group / f"{name}.yaml").read_text()
    text = text.replace("${universe.reference}", "S0").replace('"VIX"', '"S0"')
    return expand({name: yaml.safe_load(text)}, file_of=lambda name: f"{name}.yaml")


@cache
def every_set() -> Program:
    entries: dict[str, str | Entry] = dict(EXTRAS)
    for group, name in SETS:
        entries |= shipped(group, name)
    return Program.compile(entries, BARS)


@cache
def every_feature() -> Program:
    """Every operator that does not look ahead."""
    whole = every_operator()
    past = {name: text for name, text in whole.texts.items() if not whole.outputs[name].lookahead}
    return Program.compile(past, BARS)


PROGRAMS = pytest.mark.parametrize("program", [every_operator(), every_set()], ids=["operators", "sets"])
LIVE = pytest.mark.parametrize("program", [every_feature(), every_set()], ids=["operators", "sets"])


def same_bits(found: np.ndarray, expected: np.ndarray) -> bool:
    """Equal bits; any NaN equals any other, all of them mean missing."""
    return bool(((found.view(np.int32) == expected.view(np.int32)) | (np.isnan(found) & np.isnan(expected))).all())


def assert_same(program: Program, found: dict[str, np.ndarray], expected: dict[str, np.ndarray], rows=None) -> None:
    """rows: entry name to the rows of `found` and of `expected` that must agree."""
    for name in program.names:
        here, there = rows(name) if rows else (slice(None), slice(None))
        assert same_bits(found[name][here], expected[name][there]), f"{name}: {program.texts[name]}"


def symbols(panel: Panel, chosen: list[int]) -> Panel:
    columns = {name: np.ascontiguousarray(values[:, chosen]) for name, values in panel.columns.items()}
    return Panel(panel.time, tuple(panel.symbols[index] for index in chosen), columns)


def test_every_operator_is_held_to_the_laws(market) -> None:
    program = every_operator()
    assert {node.op for node in ordered(program.outputs.values())} >= OPERATORS.keys()
    for name, values in program.run(market(SLOTS, 4, 0.05)).items():
        assert np.isfinite(values[program.outputs[name].lookback :]).mean() > 0.5, program.texts[name]


@PROGRAMS
@law
@given(seed=seeds, missing=shares, start=st.integers(1, SLOTS - 1))
def test_truncated_history_equals_full_history(program: Program, seed, missing, start, market) -> None:
    panel = market(SLOTS, 4, missing, seed)
    full = program.run(panel)
    cut = program.run(panel.between(start, SLOTS))

    def rows(name: str) -> tuple[slice, slice]:
        back = program.outputs[name].lookback
        return slice(back, None), slice(start + back, None)

    assert_same(program, cut, full, rows)


@PROGRAMS
@law
@given(seed=seeds, missing=shares, chunk=st.integers(1, SLOTS))
def test_chunked_equals_whole(program: Program, seed, missing, chunk, market) -> None:
    panel = market(SLOTS, 3, missing, seed)
    chunk = max(chunk, 70)  # a smaller one is as right and takes minutes
    assert_same(program, program.run(panel, chunk=chunk), program.run(panel, chunk=SLOTS))


@PROGRAMS
@law
@given(seed=seeds, missing=shares, tail=st.integers(1, 70), stop=st.integers(100, SLOTS))
def test_the_last_bars_equal_the_batch(program: Program, seed, missing, tail, stop, market) -> None:
    panel = market(SLOTS, 3, missing, seed)
    whole = program.run(panel)
    last = program.run(panel.between(0, stop), tail=tail)

    def rows(name: str) -> tuple[slice, slice]:
        known = program.outputs[name].lookahead  # a label of the last bars is not known yet
        return slice(0, tail - known), slice(stop - tail, stop - known)

    assert_same(program, last, whole, lambda name: rows(name) if rows(name)[0].stop > 0 else (slice(0), slice(0)))


@PROGRAMS
@law
@given(seed=seeds, missing=shares, chosen=st.lists(st.integers(0, 8), min_size=1, unique=True))
def test_a_subset_of_symbols_equals_the_whole(program: Program, seed, missing, chosen, market) -> None:
    panel = market(SLOTS, 9, missing, seed)
    chosen = sorted({0, *chosen})  # S0 is read by name: it belongs to every subset
    whole, part = program.run(panel), program.run(symbols(panel, chosen))
    for name in program.names:
        if not program.outputs[name].crosses:
            assert same_bits(part[name], np.ascontiguousarray(whole[name][:, chosen])), program.texts[name]


@PROGRAMS
@law
@given(seed=seeds, missing=shares, order=st.permutations(range(12)))
def test_a_section_knows_neither_order_nor_absent_symbols(program: Program, seed, missing, order, market) -> None:
    panel = market(SLOTS, 12, missing, seed)
    absent = [3, 5, 6, 7, 8, 9]
    for values in panel.columns.values():
        values[:, absent] = np.nan
    whole = program.run(panel)
    present = [index for index in order if index not in absent]
    part = program.run(symbols(panel, present))
    for name in program.names:
        assert same_bits(part[name], np.ascontiguousarray(whole[name][:, present])), program.texts[name]


@PROGRAMS
@law
@given(seed=seeds, missing=shares, after=st.integers(0, SLOTS - 2))
def test_no_value_moves_when_every_later_bar_changes(program: Program, seed, missing, after, market) -> None:
    panel = market(SLOTS, 4, missing, seed)
    before = program.run(panel)
    other = market(SLOTS, 4, 0.2, seed + 1)
    for name, values in panel.columns.items():
        values[after + 1 :] = other.columns[name][after + 1 :]
    changed = program.run(panel)

    def rows(name: str) -> tuple[slice, slice]:
        kept = slice(0, max(0, after + 1 - program.outputs[name].lookahead))
        return kept, kept

    assert_same(program, changed, before, rows)


@PROGRAMS
@law
@given(seed=seeds, missing=shares, slots=st.integers(1, SLOTS), share=st.floats(0, 1))
def test_the_machine_has_the_bits_of_mlx(program: Program, seed, missing, slots, share, market) -> None:
    panel = market(slots, 4, missing, seed)
    asked = max(1, round(share * slots))
    found, expected = program.native.run(panel, asked), program.eager.run(panel, asked)
    for name, machine, mlx in zip(program.names, found, expected, strict=True):
        assert same_bits(machine, mlx), program.texts[name]


@LIVE
@law
@given(seed=seeds, missing=shares, cuts=st.sets(st.integers(1, SLOTS - 1), max_size=30))
def test_a_live_state_equals_the_batch(program: Program, seed, missing, cuts, market) -> None:
    """Bar by bar, or several at once: every value of every bar."""
    panel = market(SLOTS, 4, missing, seed)
    whole = program.run(panel)
    live = program.live(panel.symbols)
    edges = [0, *sorted(cuts), SLOTS]
    for start, stop in pairwise(edges):
        values = live.advance(panel.between(start, stop))
        assert_same(program, values, whole, lambda _, start=start, stop=stop: (slice(None), slice(start, stop)))


def test_a_live_state_refuses_what_it_cannot_go_on_with(market) -> None:
    panel = market(10, 3, missing=0)
    with pytest.raises(ValueError, match="a program that looks ahead has no live state"):
        Program.compile({"y": "lead(close, 1) / close"}, BARS, lookahead=True).live(panel.symbols)
    live = Program.compile({"x": "close / lag(open, 2)"}, BARS).live(panel.symbols)
    with pytest.raises(ValueError, match="the panel's symbols are not those of the live state"):
        live.advance(symbols(panel, [1, 0, 2]))
    with pytest.raises(ValueError, match="the panel lacks column open"):
        live.advance(Panel(panel.time, panel.symbols, {"close": panel.columns["close"]}))


def test_a_value_has_the_same_bits_at_every_place_of_an_array(market) -> None:
    """Vector and remainder loops of a backend must round alike: arrays of 1 to 70 values."""
    elementwise = [operator for operator in OPERATORS.values() if not operator.numbers and not operator.crosses]
    program = Program.compile({f"e{at}": examples(made)[0] for at, made in enumerate(elementwise)}, BARS)
    panel = market(70, 1, missing=0)
    for evaluator in (program.native, program.eager):
        whole = dict(zip(program.names, evaluator.run(panel, 70), strict=True))
        for size in range(1, 71):
            part = dict(zip(program.names, evaluator.run(panel.between(70 - size, 70), size), strict=True))
            assert_same(program, part, whole, lambda _, size=size: (slice(None), slice(70 - size, None)))


@PROGRAMS
def test_slots_before_the_panel_read_as_missing_bars(program: Program, market) -> None:
    panel = market(SLOTS, 4, 0.1)
    padded = {name: values.copy() for name, values in panel.columns.items()}
    for values in padded.values():
        values[:300] = np.nan
    whole = program.run(Panel(panel.time, panel.symbols, padded))
    assert_same(program, program.run(panel.between(300, SLOTS)), whole, lambda _: (slice(None), slice(300, None)))


@pytest.fixture(scope="module")
def real(market_data: Path) -> Panel:
    """Two weeks of thinly traded minute bars: nine symbols, most slots missing for some of them."""
    frame = pl.read_parquet(market_data / "dev_eq_us_1m_2024.parquet")
    frame = frame.filter(pl.col("timestamp").dt.date().is_between(pl.date(2024, 7, 1), pl.date(2024, 7, 12)))
    frame = frame.with_columns(symbol=pl.col("symbol").replace("AZO", "S0"))
    time = np.unique(instants(frame["timestamp"]))
    bars = Panel.from_frame(frame, time, sorted(frame["symbol"].unique()), PRICED)
    days = time.astype("datetime64[D]")
    place = np.arange(len(time)) - np.searchsorted(days, days)  # of each slot in its day
    fields = {
        "minute_of_session": place,
        "session_progress": place / 390,
        "day_of_week": (days.astype(int) + 3) % 7,
        "bar_of_session": place,
    }
    dense = {
        name: np.repeat(values.astype(np.float32)[:, None], len(bars.symbols), axis=1)
        for name, values in fields.items()
    }
    return bars.joined(Panel(time, bars.symbols, dense))


@PROGRAMS
def test_the_laws_hold_on_real_bars_with_gaps(program: Program, real: Panel) -> None:
    assert 0.2 < np.isnan(real.columns["close"]).mean() < 0.9
    slots = len(real.time)
    whole = program.run(real)
    assert_same(program, program.run(real, chunk=997), whole)
    assert_same(program, dict(zip(program.names, program.eager.run(real, slots), strict=True)), whole)
    start = slots // 3

    def rows(name: str) -> tuple[slice, slice]:
        back = program.outputs[name].lookback
        return slice(back, None), slice(start + back, None)

    assert_same(program, program.run(real.between(start, slots)), whole, rows)
    for stop in (slots, slots - 1, slots // 2):
        last = program.run(real.between(max(0, stop - program.lookback - 1), stop), tail=1)
        for name in program.names:
            if not program.outputs[name].lookahead:
                assert same_bits(last[name], whole[name][stop - 1 : stop]), program.texts[name]
