"""What the audit of sets says: broken laws named with their entry, columns too good to be true, and the verdict."""

import dataclasses

import numpy as np
import polars as pl
import pytest
import scipy.stats

from quant.audit import Finding, verdict
from quant.audit_columns import Columns, constant, duplicates, missing, rank_ic, scale, time_ic, too_good
from quant.audit_laws import LAWS, Subject, examine
from quant.audit_tables import compare
from quant.panel import Panel
from quant.program import Program

SECTIONS, SYMBOLS, AHEAD = 400, 12, 6
ENTRIES = {
    "honest": "mean(close, 5) / close",
    "size": "abs(close - open)",
    "of_size": "mean(size, 3)",
    "rank": "rank(close)",
}
USING_ABS = ("size", "of_size")


ONE_BY_ONE = ("same bar by bar", "same in a live state")  # the patched `run` is not what a live state calls


def subject(panel: Panel) -> Subject:
    program = Program.compile(ENTRIES, [*panel.columns])
    return Subject("factors", program, panel, {name: f"{name}.yaml" for name in ENTRIES})


def test_lawful_entries_pass_every_law(market) -> None:
    findings = list(examine(subject(market(200, 5, 0.1))))
    assert [finding.status for finding in findings] == ["pass"] * len(LAWS)


@pytest.mark.parametrize(
    ("wrong", "laws"),
    [
        (lambda values, panel, chunk: chunk or 0, {"same in chunks"}),
        (lambda values, panel, chunk: np.nan_to_num(values[-1:]), {"same when later bars change", *ONE_BY_ONE}),
        (lambda values, panel, chunk: len(panel.time), {"same without older history", *ONE_BY_ONE}),
        (lambda values, panel, chunk: len(panel.symbols), {"same for fewer symbols", "same in a live state"}),
    ],
)
def test_an_operator_that_breaks_a_law_is_named_with_the_entries_that_use_it(
    wrong, laws: set[str], market, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = Program.run

    def run(self: Program, panel: Panel, tail: int | None = None, chunk: int | None = None):
        """As if `abs` added what is wrong: to size, which calls it, and to of_size, which reads size."""
        values = honest(self, panel, tail=tail, chunk=chunk)
        return values | {name: values[name] + np.float32(wrong(values[name], panel, chunk)) for name in USING_ABS}

    monkeypatch.setattr(Program, "run", run)
    findings = list(examine(subject(market(200, 5, 0.1))))
    failed = {finding.check.removeprefix("factors: "): finding for finding in findings if finding.status == "fail"}
    assert set(failed) == laws
    for finding in failed.values():
        assert finding.columns == USING_ABS
        assert finding.details[0].startswith("size.yaml: size, S")
        assert "abs(close - open)" in finding.details[0]
        assert "instead of" in finding.details[0]


def test_entries_that_read_their_section_are_not_asked_to_hold_for_fewer_symbols(market) -> None:
    panel = market(200, 5, 0.1)
    program = Program.compile({"rank": "rank(close)"}, [*panel.columns])
    found = {finding.check: finding.status for finding in examine(Subject("f", program, panel, {}))}
    assert found["f: same for fewer symbols"] == "skip"


def columns(calendar: frozenset[str] = frozenset(), symbols: int = SYMBOLS, **made: np.ndarray) -> Columns:
    """A market of independent returns; made: columns [SECTIONS, symbols] beside noise."""
    random = np.random.default_rng(1)
    steps = random.normal(0, 0.01, (SECTIONS + AHEAD, symbols))
    price = 50 * np.exp(np.cumsum(steps, axis=0))
    label = np.full((SECTIONS, symbols), np.nan)
    label[:] = price[AHEAD:] / price[:-AHEAD] - 1
    past = np.full_like(label, np.nan)
    past[AHEAD:] = label[:-AHEAD]
    every = {"noise": random.normal(size=label.shape), **made}
    long = {"label": label, "past": past, **every}
    rows = pl.DataFrame(
        {
            "time": np.repeat(np.arange(SECTIONS), symbols),
            "symbol": [f"S{index}" for index in range(symbols)] * SECTIONS,
            **{name: pl.Series(values.ravel(), nan_to_null=True) for name, values in long.items()},
        }
    )
    return Columns(rows, tuple(every), AHEAD, calendar, {name: f"set.yaml: {name}" for name in every})


def steps() -> np.ndarray:
    """The returns of that market: row t is the return of bar t."""
    return np.random.default_rng(1).normal(0, 0.01, (SECTIONS + AHEAD, SYMBOLS))


def test_a_column_that_holds_the_next_return_is_named_and_the_last_return_is_not() -> None:
    made = columns(next_return=steps()[1 : SECTIONS + 1], last_return=steps()[:SECTIONS])
    found = too_good(made)
    assert (found.status, found.columns) == ("warn", ("next_return",))
    assert "set.yaml: next_return" in found.details[0]


def test_a_column_that_is_the_label_itself_is_named_although_its_correlation_never_varies() -> None:
    label = columns().rows["label"].to_numpy().reshape(SECTIONS, SYMBOLS)
    found = too_good(columns(cheat=label))
    assert found.columns == ("cheat",)
    assert "+1.000 (t inf)" in found.details[0]


def test_noise_and_a_good_honest_column_are_not_asked_about() -> None:
    ahead = np.random.default_rng(3).normal(size=(SECTIONS, SYMBOLS))
    label = columns().rows["label"].to_numpy().reshape(SECTIONS, SYMBOLS)
    good = 0.06 * label / label.std() + ahead
    noise = {f"n{index}": np.random.default_rng(index).normal(size=label.shape) for index in range(30)}
    assert too_good(columns(good=good, **noise)).status == "pass"


def test_a_column_that_is_the_same_for_all_symbols_is_judged_over_time() -> None:
    market = steps()[1 : SECTIONS + 1].mean(axis=1, keepdims=True) * np.ones((1, SYMBOLS))
    same = columns(market_next=market)
    tilted = same.rows.with_columns(label=pl.col("market_next").rolling_sum(SYMBOLS).shift(-SYMBOLS))
    found = too_good(dataclasses.replace(same, rows=tilted.with_columns(label=pl.col("market_next"))))
    assert found.columns == ("market_next",)


def test_rank_ic_is_the_mean_of_scipys_by_section() -> None:
    made = columns()
    expected = [
        scipy.stats.spearmanr(part["noise"], part["label"]).statistic
        for part in made.rows.partition_by("time", maintain_order=True)
    ]
    assert rank_ic(made, "noise", "label").mean == pytest.approx(np.mean(expected), abs=1e-12)


def test_the_ic_over_time_of_one_symbol_is_scipys() -> None:
    rows = columns(symbols=1).rows
    pair = rows.select("time", "symbol", prediction="noise", outcome="label")
    expected = scipy.stats.spearmanr(pair["prediction"], pair["outcome"]).statistic
    assert time_ic(pair).mean() == pytest.approx(expected, abs=1e-12)


def test_columns_in_one_order_are_a_pair_and_others_are_not() -> None:
    noise = np.random.default_rng(5).normal(size=(SECTIONS, SYMBOLS))
    found = duplicates(columns(a=noise, b=np.exp(noise), c=-noise, d=noise + 0.1 * noise[::-1]))
    assert found.status == "hint"
    assert [detail.partition(" (")[0] for detail in found.details] == ["a and b", "a and c", "b and c"]


def test_empty_and_constant_columns_are_named() -> None:
    empty = np.where(np.random.default_rng(0).random((SECTIONS, SYMBOLS)) < 0.4, 1.5, np.nan)
    flat = np.full((SECTIONS, SYMBOLS), 7.0)
    made = columns(frozenset({"weekday"}), empty=empty, flat=flat, weekday=flat)
    assert missing(made).columns == ("empty",)
    found = constant(made)
    assert (found.status, found.columns) == ("warn", ("empty", "flat"))
    assert found.details[-1].startswith("weekday: of the calendar alone")
    assert constant(columns(frozenset({"weekday"}), weekday=flat)).status == "hint"


def test_columns_that_move_with_the_level_of_price_or_volume_are_hints() -> None:
    made = columns()
    plain = made.rows.select(pl.col("time").alias("timestamp"), "symbol", "noise")
    plain = plain.with_columns(range=10 + pl.col("noise"), turnover=5 + pl.col("noise"))
    doubled = {
        "price": plain.with_columns(pl.col("range") * 2, noise=pl.col("noise") * (1 + 1e-5)),
        "volume": plain.with_columns(pl.col("turnover") * 2),
    }
    declared = {name: f"set.yaml: {name}" for name in ("noise", "range", "turnover")}
    found = scale(dataclasses.replace(made, names=tuple(declared), declared=declared), plain, doubled)
    assert found.status == "hint"
    assert [detail.partition("|")[0] for detail in found.details] == [
        "range: divide by the price? ",
        "turnover: divide by the volume? ",
    ]


def table(values: np.ndarray) -> pl.DataFrame:
    """Ten bars of two symbols with the columns a, b, c: values [20, 3]."""
    stamps = pl.datetime_range(pl.datetime(2024, 1, 2), pl.datetime(2024, 1, 2, 9), "1h", eager=True)
    keys = {"timestamp": stamps.repeat_by(2).explode(), "symbol": ["A", "B"] * 10}
    return pl.DataFrame(keys | {name: pl.Series(values[:, i], dtype=pl.Float32) for i, name in enumerate("abc")})


@pytest.fixture
def now() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(20, 3))


def test_equal_tables_differ_nowhere_and_a_missing_value_is_a_missing_value(now) -> None:
    now[3, 1] = np.nan
    found = compare(table(now).fill_nan(None), table(now), ["a", "b", "c"])
    assert (found.none, found.values) == (True, 60)


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (lambda was: was[:, 1:2].__imul__(2), "the expressions or the code of b changed"),
        (lambda was: was[16::2].__imul__(2), "bars were revised since it was written: A from 2024-01-02 08:00Z"),
        (lambda was: was.__imul__(2), "the expressions, the code or the bars changed"),
        (lambda was: was.__imul__(1 + 1e-6), "rounding size"),
    ],
)
def test_the_likeliest_cause_is_read_off_rows_and_columns(change, cause: str, now) -> None:
    was = now.copy()
    change(was)
    found = compare(table(was), table(now), ["a", "b", "c"])
    assert not found.none
    assert cause in found.looks_like()


def test_rows_without_a_bar_and_bars_without_a_row_are_counted(now) -> None:
    whole = table(now)
    found = compare(whole[:18], whole[1:], ["a"])
    assert (found.lacking.height, found.extra.height) == (2, 1)
    assert "bars came or went" in found.looks_like()


def test_a_failure_is_broken_a_warning_wants_a_look_and_a_hint_is_fine() -> None:
    fine, hint = Finding("x", "pass", "0"), Finding("y", "hint", "1", ("a",))
    warned = Finding("z", "warn", "2", ("b",), ("b", "a"), "look")
    failed = Finding("law", "fail", "3", ("c",), ("c",), "mend")
    assert verdict([fine, hint]).text == "OK"
    assert verdict([fine, warned]).text == "look at these 2 columns: a, b"
    broken = verdict([fine, warned, failed])
    assert (broken.broken, broken.advice) == (True, ("mend", "look"))
