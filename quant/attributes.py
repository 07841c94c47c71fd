"""What is known of a symbol beside its bars (its sector, its market value): by session, never with hindsight."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl

from quant.graph import ordered
from quant.grid import Grid
from quant.panel import Floats
from quant.program import Program
from quant.universe import session_of

Span = tuple[str, date | None, date | None, float]

_SYMBOL = 2**33  # apart: days fit between two symbols' keys
_EVER = 2**31  # further than any date, in days


@dataclass(frozen=True)
class Attribute:
    """One attribute of symbols.

    spans: (symbol, first day, last day, value), sorted by symbol and day, without overlap; days are session dates,
    both included, None where there is no end. categories: the texts whose place here is the value of a text attribute,
    None where values are numbers of their own.
    """

    spans: tuple[Span, ...]
    categories: tuple[str, ...] | None = None

    @classmethod
    def of(cls, rows: Iterable[tuple[str, date | None, date | None, str | float | None]]) -> "Attribute":
        """From rows of texts or of numbers; texts become codes by the order of their names. A row of None is left out:
        the symbol has no value then."""
        held = [(symbol, a, b, value) for symbol, a, b, value in rows if value is not None]
        texts = sorted({value for *_, value in held if isinstance(value, str)})
        code = {text: number for number, text in enumerate(texts)}
        spans = [(s, a, b, float(code[value] if isinstance(value, str) else value)) for s, a, b, value in held]
        return cls(tuple(sorted(spans, key=lambda span: (span[0], span[1] or date.min))), tuple(texts) or None)

    @cached_property
    def symbols(self) -> tuple[str, ...]:
        """Symbols that ever have a value, in name order."""
        return tuple(dict.fromkeys(symbol for symbol, *_ in self.spans))

    def only(self, symbols: Iterable[str]) -> "Attribute":
        """The attribute of these symbols; codes stay what they were."""
        kept = set(symbols)
        return Attribute(tuple(span for span in self.spans if span[0] in kept), self.categories)

    def values(self, symbols: pl.Series, days: np.ndarray) -> Floats:
        """Float32 of each row's symbol (String [N]) on its session date (datetime64[D] [N]); NaN where it has none."""
        if not self.spans:
            return np.full(len(symbols), np.nan, np.float32)
        place = {symbol: number for number, symbol in enumerate(self.symbols)}
        of = symbols.replace_strict(place, default=-1, return_dtype=pl.Int64).to_numpy()
        owner = np.array([place[symbol] for symbol, *_ in self.spans], np.int64)
        first = np.array([_day(start, -_EVER) for _, start, _, _ in self.spans], np.int64)
        last = np.array([_day(end, _EVER) for _, _, end, _ in self.spans], np.int64)
        day = days.astype("datetime64[D]").astype(np.int64)
        # Spans are in the order of these keys, so the newest that began by a row's day is found by bisection.
        at = np.searchsorted(owner * _SYMBOL + first, of * _SYMBOL + day, side="right") - 1
        held = (at >= 0) & (owner[at] == of) & (day <= last[at])
        value = np.array([value for *_, value in self.spans], np.float32)
        return np.where(held, value[at], np.float32(np.nan))

    def to_dict(self) -> dict[str, Any]:
        """The attribute as JSON values."""
        spans = [[symbol, a and str(a), b and str(b), value] for symbol, a, b, value in self.spans]
        return {"categories": self.categories and list(self.categories), "spans": spans}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Attribute":
        """Read what `to_dict` gave, also after JSON."""
        categories = values["categories"]
        spans = ((symbol, _date(a), _date(b), value) for symbol, a, b, value in values["spans"])
        return cls(tuple(spans), categories and tuple(categories))


def attribute_columns(
    bars: pl.DataFrame, grid: Grid, attributes: Mapping[str, Attribute], wanted: Sequence[str]
) -> list[pl.Series]:
    """The wanted attributes as columns of bars (symbol, timestamp): each bar has that of its session.

    A symbol without a bar has no attribute at that slot either, so it does not count in a section it is not in.
    """
    if not wanted:
        return []
    days = session_of(bars["timestamp"], grid).to_numpy()
    return [pl.Series(name, attributes[name].values(bars["symbol"], days)) for name in wanted]


def coded(program: Program, attributes: Mapping[str, Attribute]) -> dict[str, list[str]]:
    """The categories of the text attributes whose codes get into values of the program, by name.

    To group by a text attribute any distinct codes do; a factor that passes a code on has other values under others.
    """
    passed = {node for node in program.outputs.values() if node.op == "column"}
    for node in ordered(program.outputs.values()):
        args = node.args[:1] if node.op == "neutralize" else node.args
        passed.update(arg for arg in args if arg.op == "column")
    names = {str(node.values[0]) for node in passed}
    return {name: list(a.categories) for name, a in attributes.items() if name in names and a.categories}


def _day(day: date | None, otherwise: int) -> int:
    return otherwise if day is None else int(np.datetime64(day, "D").astype(np.int64))


def _date(text: str | None) -> date | None:
    return None if text is None else date.fromisoformat(text)
