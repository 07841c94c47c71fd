"""Steps computed by MLX: each once, as arrays [slots, symbols], for exactly the slots that are read of it."""

from collections.abc import Callable, Iterable, Mapping, Sequence

import mlx.core as mx
import numpy as np

from quant.arrays import fill, finite, present, select
from quant.operators import OPERATORS
from quant.panel import Floats, Panel
from quant.primitive import Series, Step

Span = tuple[int, int]
CELLS = 2**18  # slots times symbols computed at once: arrays of 1 MB, whatever the size of the panel

COMPUTE: dict[str, Callable[..., mx.array]] = {
    "add": mx.add,
    "subtract": mx.subtract,
    "multiply": mx.multiply,
    "divide": mx.divide,
    "negate": mx.negative,
    "less": mx.less,
    "less_equal": mx.less_equal,
    "greater": mx.greater,
    "greater_equal": mx.greater_equal,
    "equal": mx.equal,
    "not_equal": mx.not_equal,
    "present": present,
    "both": mx.logical_and,
    "as_float": lambda mask: mask.astype(mx.float32),
    "select": select,
    "minimum": mx.minimum,
    "maximum": mx.maximum,
    "absolute": mx.abs,
    "sign": mx.sign,
    "sqrt": mx.sqrt,
    "log": mx.log,
    "exp": mx.exp,
    "power": mx.power,
    "sigmoid": mx.sigmoid,
    "tanh": mx.tanh,
    "sin": mx.sin,
    "cos": mx.cos,
}


def covered(steps: Sequence[Step], outputs: Iterable[Series]) -> dict[Step, Span]:
    """For each step the slots it is read at, relative to the first and the last slot asked for.

    steps: arguments before what reads them.
    """
    spans: dict[Step, Span] = {}

    def read(step: Step, low: int, high: int) -> None:
        known = spans.get(step, (low, high))
        spans[step] = min(known[0], low), max(known[1], high)

    for output in outputs:
        read(output.step, -output.shift, -output.shift)
    for step in reversed(steps):
        low, high = spans[step]
        for arg, lag in zip(step.args, step.lags, strict=True):
            read(arg, low - lag, high - lag)
    return spans


class Eager:
    """Steps run one by one over whole arrays: on a GPU, and wherever the machine is not.

    whole: symbols are read across, so a chunk holds all of them.
    """

    def __init__(
        self, steps: Sequence[Step], spans: Mapping[Step, Span], outputs: Sequence[Series], whole: bool
    ) -> None:
        self.steps, self.spans, self.outputs, self.whole = steps, spans, outputs, whole
        self.lookback = -min((low for low, _ in spans.values()), default=0)

    def run(self, panel: Panel, asked: int, chunk: int | None = None) -> Floats:
        """Values of the outputs at the panel's last `asked` slots, float32 [outputs, asked, S].

        Slots outside the panel read as missing. A result that is not finite is missing. chunk: slots at once.
        """
        slots, symbols = len(panel.time), len(panel.symbols)
        values = np.empty((len(self.outputs), asked, symbols), np.float32)
        width = self._width(asked, symbols)
        step = chunk or max(CELLS // max(width, 1), 2 * self.lookback, 1)
        for left in range(0, symbols, width):
            right = min(left + width, symbols)
            part = panel if width == symbols else panel.of(left, right)
            for start in range(slots - asked, slots, step):
                stop = min(start + step, slots)
                made = self._graph(part, start, stop)
                mx.eval(*made)
                for place, array in enumerate(made):
                    values[place, start - slots + asked : stop - slots + asked, left:right] = np.array(array)
        return values

    def _width(self, asked: int, symbols: int) -> int:
        """Symbols computed at once: fewer where look-back alone would exceed CELLS, but all where they are mixed."""
        if self.whole:
            return max(symbols, 1)
        return max(1, min(symbols, CELLS // (min(asked, 2 * self.lookback) + self.lookback + 1)))

    def _graph(self, panel: Panel, start: int, stop: int) -> list[mx.array]:
        """The lazy arrays; only the outputs leave, so that MLX frees each intermediate after its last use."""
        values: dict[Step, mx.array] = {}

        def at(step: Step, low: int, high: int) -> mx.array:
            """A computed step at the slots start + low … stop + high."""
            if step.is_constant:
                return values[step]
            skip = low - self.spans[step][0]
            return values[step][skip : skip + stop - start + high - low]

        for step in self.steps:
            low, high = self.spans[step]
            if step.op == "constant":
                values[step] = mx.array(float(step.fixed[0]), dtype=mx.float32)
            elif step.op == "column":
                values[step] = mx.array(rows_of(panel.columns[str(step.fixed[0])], start + low, stop + high))
            else:
                args = (at(arg, low - lag, high - lag) for arg, lag in zip(step.args, step.lags, strict=True))
                values[step] = compute(step, panel.symbols, *args)
        return [finite(at(output.step, -output.shift, -output.shift)) for output in self.outputs]


def compute(step: Step, symbols: Sequence[str], *args: mx.array) -> mx.array:
    """The array of one step from those of its arguments [rows, S]."""
    if step.op == "fill":
        return fill(args[0], float(step.fixed[0]))
    if step.op == "section":
        name, *numbers = step.fixed
        places = [symbols.index(number) if isinstance(number, str) else number for number in numbers]
        return OPERATORS[str(name)].compute(*args, *places)
    return COMPUTE[step.op](*args)


def rows_of(values: Floats, start: int, stop: int) -> Floats:
    """Rows start … stop of a column; rows it does not have are missing bars."""
    inside = values[max(start, 0) : max(stop, 0)]
    before, after = min(max(-start, 0), stop - start), max(stop - max(len(values), start), 0)
    if not before and not after:
        return inside
    return np.pad(inside, ((before, after), (0, 0)), constant_values=np.nan)
