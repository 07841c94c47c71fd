"""Columns of a model's input that want a look: too good against the label, empty, constant, twice the same, in units.

Nothing is fitted here, so every row is out of sample.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import polars as pl

from quant.audit import Finding, listed
from quant.correlation import rank_correlation
from quant.score import section_ic
from quant.stats import Mean, lags_for, mean_of

# Good single columns reach a rank IC of 0.02 to 0.05, and 0.1 is rare. Above LEVEL a column is asked about when it
# knows the label more than twice as well as the return already known; above CERTAIN whatever else it knows.
LEVEL, CERTAIN = 0.1, 0.2
CHANCE = 1e-4  # that the best of all columns, were they noise, comes out as far from zero as the t asked for
MIN_SECTIONS = 100
MISSING = 0.5
DUPLICATE = 0.9999
MOVED = 0.01  # of its deviation: what doubling moves by less is rounding, or the 1 in log(volume + 1)
ROWS = 20_000  # that duplicates are looked for in, fewer for many columns
MOST_TOLD = 10


@dataclass(frozen=True)
class Columns:
    """rows: time, symbol, label, past (the label that has just become known), and the columns; null = missing.

    lookahead: sections a label reaches ahead. calendar: columns that read the calendar alone. declared: column -> where
    and how it is declared, for a reader. extras: columns that read what a source brings beside its bars.
    """

    rows: pl.DataFrame
    names: tuple[str, ...]
    lookahead: int
    calendar: frozenset[str]
    declared: dict[str, str]
    extras: frozenset[str] = frozenset()


def judge(columns: Columns) -> list[Finding]:
    """Every check of the rows, the gravest first."""
    return [too_good(columns), missing(columns), constant(columns), duplicates(columns)]


def too_good(columns: Columns) -> Finding:
    """Rank IC of each column with the label, Newey-West t, beside its IC with the return already known."""
    check, names = "columns: too good against the label", columns.names
    least = NormalDist().inv_cdf(1 - CHANCE / (2 * len(names)))
    found: dict[str, tuple[Mean, float]] = {}  # IC with the label; and with the past one where that is asked
    for name in names:
        ahead = rank_ic(columns, name, "label")
        if ahead.n >= MIN_SECTIONS and not math.isnan(ahead.mean):
            high = abs(ahead.mean) > LEVEL
            found[name] = ahead, rank_ic(columns, name, "past").mean if high else math.nan
    if not found:
        few = f"no column has {MIN_SECTIONS} sections with a label and values that vary"
        return Finding(check, "skip", few, advice="Bring more bars to judge columns against the label")
    best = max(found, key=lambda name: abs(found[name][0].mean))
    number = f"highest rank IC {found[best][0].mean:+.3f} ({best}, t {found[best][0].t:.1f}) of {len(found)} columns"
    suspects = [name for name, (ahead, past) in found.items() if _suspicious(ahead, past, least)]
    suspects.sort(key=lambda name: -abs(found[name][0].mean))
    number = f"{number}; asked about beyond {LEVEL:g} with t beyond {least:.1f}"
    hints = _of_extras(columns, {name: ahead for name, (ahead, _) in found.items() if name not in suspects}, least)
    if not suspects:
        return Finding(check, "hint" if hints else "pass", number, hints)
    return Finding(
        check,
        "warn",
        f"{len(suspects)} of {len(found)} columns; {number}",
        tuple(
            f"{name}: rank IC {ahead.mean:+.3f} (t {ahead.t:.1f}) with the label, {past:+.3f} with the return already "
            f"known | {columns.declared[name]}"
            for name, (ahead, past) in ((name, found[name]) for name in suspects)
        )
        + hints,
        tuple(suspects),
        "Too good against the label: find out when each source column was known. One stamped with the start of its "
        "bar may hold what happened in the bars after it",
    )


def _of_extras(columns: Columns, found: Mapping[str, Mean], least: float) -> tuple[str, ...]:
    """Columns of a source's extras that know the label beyond chance: an honest one may, one known too early does."""
    told = [name for name, ahead in found.items() if name in columns.extras and abs(ahead.t) > least]
    told.sort(key=lambda name: -abs(found[name].mean))
    return _cut(
        [
            f"{name} reads a column of source.extras, rank IC {found[name].mean:+.3f} (t {found[name].t:.1f}): was "
            f"that column known when its bar was? | {columns.declared[name]}"
            for name in told
        ]
    )


def missing(columns: Columns) -> Finding:
    """Columns without a value in most rows."""
    shares = _shares(columns)
    worst = max(shares, key=lambda name: shares[name])
    empty = [name for name in columns.names if shares[name] > MISSING]
    return Finding(
        "columns: mostly missing",
        "warn" if empty else "pass",
        f"{len(empty)} of {len(shares)} columns miss more than {MISSING:.0%}; most: {shares[worst]:.1%} ({worst})",
        _cut([f"{name}: {shares[name]:.1%} of rows have no value | {columns.declared[name]}" for name in empty]),
        tuple(empty),
        "Mostly missing: bring the bar column that they read, shorten their windows, or leave them out of the sets"
        if empty
        else "",
    )


def constant(columns: Columns) -> Finding:
    """Columns with one value in every row. One that reads the calendar alone is so by the calendar."""
    extremes = columns.rows.select(
        *(pl.col(name).min().alias(f"{name}|min") for name in columns.names),
        *(pl.col(name).max().alias(f"{name}|max") for name in columns.names),
    ).row(0, named=True)
    same = {
        name: extremes[f"{name}|min"]
        for name in columns.names
        if extremes[f"{name}|min"] is not None and extremes[f"{name}|min"] == extremes[f"{name}|max"]
    }
    wanted = [name for name in same if name not in columns.calendar]
    details = [f"{name}: {same[name]:g} in every row | {columns.declared[name]}" for name in wanted]
    if idle := [name for name in same if name in columns.calendar]:
        details.append(f"{listed(idle)}: of the calendar alone, which has one value for them at this interval")
    return Finding(
        "columns: constant",
        "warn" if wanted else "hint" if same else "pass",
        f"{len(same)} of {len(columns.names)} columns",
        tuple(details),
        tuple(wanted),
        "Constant: check the bar column that they read, or leave them out of the sets" if wanted else "",
    )


def duplicates(columns: Columns) -> Finding:
    """Pairs in the same order in every row: a tree cannot tell one from the other."""
    step = max(1, columns.rows.height // min(ROWS, 2_000_000_000 // max(1, len(columns.names)) ** 2 or 1))
    ranked = columns.rows.gather_every(step).select(pl.col(name).rank() for name in columns.names)
    order = rank_correlation(ranked.select(pl.all().cast(pl.Float64).fill_null(np.nan)).to_numpy())
    rows, others = np.nonzero(np.triu(np.abs(order) > DUPLICATE, k=1))
    names = columns.names
    pairs = [
        f"{names[a]} and {names[b]} ({order[a, b]:+.5f})" for a, b in zip(rows.tolist(), others.tolist(), strict=True)
    ]
    return Finding(
        "columns: twice the same",
        "hint" if pairs else "pass",
        f"{len(pairs)} pair{'' if len(pairs) == 1 else 's'} of columns with a rank correlation beyond {DUPLICATE}",
        _cut(pairs),
    )


def scale(columns: Columns, plain: pl.DataFrame, doubled: Mapping[str, pl.DataFrame]) -> Finding:
    """Columns that move when every price, or every volume, is twice as high: what a model learns at one level of it
    does not hold at the next. A ratio, a rank and a return stay as they are.

    plain, doubled: rows (timestamp, symbol, columns) from the bars as they are, and from bars with twice the price or
    volume, by what was doubled.
    """
    told = []
    for what, frame in doubled.items():
        both = plain.join(frame, on=["timestamp", "symbol"], how="inner", suffix="|2")
        for name in columns.names:
            pair = both.select(name, f"{name}|2").drop_nulls().cast(pl.Float64)
            was, now = pair[name].to_numpy(), pair[f"{name}|2"].to_numpy()
            if len(was) and np.median(np.abs(now - was)) > MOVED * was.std():
                told.append(f"{name}: divide by the {what}? | {columns.declared[name]}")
    return Finding(
        "columns: in units of the price or the volume",
        "hint" if told else "pass",
        f"{len(told)} of {len(columns.names)} columns move when every {' or every '.join(doubled)} is doubled",
        _cut(told),
    )


def rank_ic(columns: Columns, name: str, outcome: str) -> Mean:
    """Rank correlation with an outcome: across each section, or over time where a section has nothing to compare."""
    pair = columns.rows.select("time", "symbol", pl.col(name).alias("prediction"), pl.col(outcome).alias("outcome"))
    pair = pair.drop_nulls()
    series = section_ic(pair, "spearman")["ic"].to_numpy()
    if len(series) < MIN_SECTIONS:
        series = time_ic(pair)
    return _mean(series, columns.lookahead)


def time_ic(pair: pl.DataFrame) -> np.ndarray:
    """Products of standardised ranks over each symbol's own time, averaged by time [n]; their mean is a rank IC.

    pair: time, symbol, prediction, outcome, without nulls. For a market of one symbol, or a column that is the same
    for all of them.
    """

    def standard(name: str) -> pl.Expr:
        ranked = pl.col(name).rank()
        return ((ranked - ranked.mean()) / ranked.std(ddof=0)).over("symbol")

    product = (standard("prediction") * standard("outcome")).alias("product")
    found = pair.select("time", product).filter(pl.col("product").is_finite())
    return found.group_by("time").agg(pl.col("product").mean()).sort("time")["product"].to_numpy()


def _suspicious(ahead: Mean, past: float, least: float) -> bool:
    known = 0.0 if math.isnan(past) else abs(past)
    high = abs(ahead.mean) > CERTAIN or (abs(ahead.mean) > LEVEL and abs(ahead.mean) > 2 * known)
    return high and abs(ahead.t) > least


def _mean(series: np.ndarray, lookahead: int) -> Mean:
    found = mean_of(series, lags_for(len(series), lookahead - 1))
    if found.error == 0 and found.mean:  # the same correlation in every section: nothing is more certain
        return Mean(found.mean, found.std, 0.0, math.copysign(math.inf, found.mean), found.n)
    return found


def _shares(columns: Columns) -> dict[str, float]:
    counts = columns.rows.select(columns.names).null_count().row(0)
    return {name: count / max(1, columns.rows.height) for name, count in zip(columns.names, counts, strict=True)}


def _cut(lines: Sequence[str]) -> tuple[str, ...]:
    more = (f"and {len(lines) - MOST_TOLD} more",) if len(lines) > MOST_TOLD else ()
    return (*lines[:MOST_TOLD], *more)
