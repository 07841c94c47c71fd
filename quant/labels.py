"""Labels of bars, each with its own end; and what is learned of one: the outcome, its sign, or its grade."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from quant.barriers import Entry, Tie, triple_barrier
from quant.panel import Panel
from quant.program import Program
from quant.sets import expand

Floats = npt.NDArray[np.float64]
KEYS = {"kind", "name", "expr", "width", "profit", "loss", "entry", "tie"}  # of a label; the others are parameters
PRICES = ("open", "high", "low", "close")


@dataclass(frozen=True)
class Labels:
    """Of each slot and symbol [T, S]: the outcome (NaN = none), and how many slots ahead it is known."""

    value: Floats
    ahead: npt.NDArray[np.int32]


class Label(Protocol):
    """A way to label bars. inputs: the columns it reads; lookback, lookahead: the most slots it reads either way;
    crosses: whether a symbol's label reads other symbols too."""

    text: str
    inputs: tuple[str, ...]
    lookback: int
    lookahead: int
    crosses: bool

    def run(self, panel: Panel) -> Labels:
        """The label of every slot of the panel."""


class ExpressionLabel:
    """A label that is an expression: known where the farthest slot that it reads has closed."""

    def __init__(self, program: Program, text: str) -> None:
        self.text, self.inputs = text, program.inputs
        self.lookback, self.lookahead = program.lookback, program.lookahead
        self.crosses = program.crosses or bool(program.symbols)
        self._program = program

    def run(self, panel: Panel) -> Labels:
        [value] = self._program.run(panel).values()
        return Labels(value.astype(np.float64), np.full(value.shape, self.lookahead, np.int32))


class BarrierLabel:
    """A triple-barrier label: known when its position ends. width: a program of one value that looks back only."""

    def __init__(
        self, width: Program, text: str, *, profit: float | None, loss: float | None, bars: int, entry: Entry, tie: Tie
    ) -> None:
        barriers = ", ".join(f"{name} {size:g}" for name, size in (("profit", profit), ("loss", loss)) if size)
        until = f"until {barriers} times {text}, or {bars} bars" if barriers else f"over {bars} bars"
        self.text = f"the return from {entry.replace('_', ' ')} {until}"
        self.inputs = tuple(dict.fromkeys((*PRICES, *width.inputs)))
        self.lookback, self.lookahead = width.lookback, bars
        self.crosses = width.crosses or bool(width.symbols)
        self._width, self._entry, self._tie = width, entry, tie
        self._profit, self._loss = profit, loss

    def run(self, panel: Panel) -> Labels:
        [width] = self._width.run(panel).values()
        open, high, low, close = (panel.columns[name] for name in PRICES)
        touched = triple_barrier(
            open,
            high,
            low,
            close,
            width,
            profit=self._profit,
            loss=self._loss,
            bars=self.lookahead,
            entry=self._entry,
            tie=self._tie,
        )
        return Labels(touched.value, touched.ahead)


def label_of(declared: Mapping[str, Any], compiled: Callable[..., Program], file: str = "") -> Label:
    """The label that a config declares (conf/label), its parameters filled in.

    compiled: makes the program of entries, as `Program.compile` does over the names of the bars. file: for messages.
    """
    barriers = declared["kind"] == "triple_barrier"
    text = declared["width" if barriers else "expr"]
    used = set(re.findall(r"[A-Za-z_]\w*", text)) - KEYS
    given = {name: [value] for name, value in declared.items() if name in used}
    pattern = "_".join(["label", *(f"{{{name}}}" for name in given)])
    [entry] = expand({declared["name"]: {pattern: {"expr": text, **given}}}, file_of=lambda _: file).values()
    if not barriers:
        return ExpressionLabel(compiled({"label": entry}, lookahead=True), entry.text)
    rules = {name: declared[name] for name in ("profit", "loss", "bars", "entry", "tie")}
    return BarrierLabel(compiled({"width": entry}), entry.text, **rules)


def gains(outcome: Floats) -> Floats:
    """1 where the outcome is above 0, else 0: [N], for a binary objective."""
    return (outcome > 0).astype(np.float64)


def grades(outcome: Floats, section: npt.NDArray[np.generic], number: int) -> Floats:
    """Grade of each outcome within its section, 0 (lowest) .. number - 1: [N], for a ranking objective.

    The grade is floor(number * share of the section's outcomes below this one), so that equal outcomes have equal
    grades. outcome: finite, [N]; section: [N], in any order.
    """
    order = np.lexsort((outcome, section))
    of, values = section[order], outcome[order]
    place = np.arange(len(order))
    begins = np.concatenate([[True], of[1:] != of[:-1]])
    first = np.maximum.accumulate(np.where(begins, place, 0))
    differs = begins | np.concatenate([[True], values[1:] != values[:-1]])
    below = np.maximum.accumulate(np.where(differs, place, 0)) - first
    _, number_of, size = np.unique(of, return_inverse=True, return_counts=True)
    made = np.empty(len(order))
    made[order] = below * number // size[number_of]
    return made
