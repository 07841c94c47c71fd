"""One pass over an expression graph: each node once, for exactly the slots that are read of it."""

from collections.abc import Iterable, Mapping, Sequence

import mlx.core as mx
import numpy as np

from quant.elementwise import finite
from quant.graph import Node
from quant.kernels import Windows
from quant.operators import OPERATORS
from quant.panel import Floats, Panel

Span = tuple[int, int]


def covered(nodes: Sequence[Node], outputs: Iterable[Node]) -> dict[Node, Span]:
    """For each node the slots it is read at, relative to the first and the last slot asked for.

    nodes: arguments before what reads them.
    """
    spans: dict[Node, Span] = dict.fromkeys(outputs, (0, 0))
    for node in reversed(nodes):
        if not node.args:
            continue
        low, high = spans[node]
        first, last = OPERATORS[node.op].reads(*node.values)
        for arg in node.args:
            known = spans.get(arg, (low + first, high + last))
            spans[arg] = min(known[0], low + first), max(known[1], high + last)
    return spans


def evaluate_slots(
    nodes: Sequence[Node],
    spans: Mapping[Node, Span],
    outputs: Sequence[Node],
    panel: Panel,
    start: int,
    stop: int,
) -> list[Floats]:
    """Values of the outputs at the panel's rows start … stop (excluded): float32 [stop - start, S] each.

    Slots outside the panel read as missing. A result that is not finite is missing.
    """
    made = _graph(nodes, spans, outputs, panel, start, stop)
    mx.eval(*made)
    return [np.array(array) for array in made]


def _graph(
    nodes: Sequence[Node],
    spans: Mapping[Node, Span],
    outputs: Sequence[Node],
    panel: Panel,
    start: int,
    stop: int,
) -> list[mx.array]:
    """The lazy arrays; only the outputs leave, so that MLX frees each intermediate after its last use."""
    values: dict[Node, mx.array] = {}
    windows: dict[tuple[Node, ...], Windows] = {}

    def at(node: Node, low: int, high: int) -> mx.array:
        """A computed node at the slots start + low … stop + high."""
        if node.is_constant:
            return values[node]
        skip = low - spans[node][0]
        return values[node][skip : skip + stop - start + high - low]

    def rolled(node: Node) -> mx.array:
        low = max(spans[arg][0] for arg in node.args)
        high = min(spans[arg][1] for arg in node.args)
        if node.args not in windows:
            windows[node.args] = Windows(*(at(arg, low, high) for arg in node.args))
        operator = OPERATORS[node.op]
        full = operator.compute(windows[node.args], *node.values)
        skip = spans[node][0] - (low - operator.reads(*node.values)[0])
        return full[skip : skip + stop - start + spans[node][1] - spans[node][0]]

    for node in nodes:
        low, high = spans[node]
        if node.op == "constant":
            values[node] = mx.array(float(node.values[0]), dtype=mx.float32)
        elif node.op == "column":
            values[node] = mx.array(_rows(panel.columns[str(node.values[0])], start + low, stop + high))
        elif OPERATORS[node.op].rolling:
            values[node] = rolled(node)
        else:
            operator = OPERATORS[node.op]
            first, last = operator.reads(*node.values)
            args = (at(arg, low + first, high + last) for arg in node.args)
            numbers = [panel.symbols.index(number) if isinstance(number, str) else number for number in node.values]
            values[node] = operator.compute(*args, *numbers)
    return [finite(at(output, 0, 0)) for output in outputs]


def _rows(values: Floats, start: int, stop: int) -> Floats:
    """Rows start … stop of a column; rows it does not have are missing bars."""
    inside = values[max(start, 0) : max(stop, 0)]
    before, after = min(max(-start, 0), stop - start), max(stop - max(len(values), start), 0)
    if not before and not after:
        return inside
    return np.pad(inside, ((before, after), (0, 0)), constant_values=np.nan)
