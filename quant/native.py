"""A program on the CPU: its stages run by the machine, tile by tile, and what lies between them by MLX."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import mlx.core as mx
import numpy as np

from quant.evaluation import Span, compute, rows_of
from quant.machine import advance, forget
from quant.panel import Floats, Panel
from quant.primitive import Series, Step
from quant.registers import Code
from quant.rest import resting
from quant.stages import Stage, plain, staged

TILE = 64  # symbols at once
CELLS = 2**25  # floats that stages hand on, at once: 128 MB
BLOCK = 2048  # floats at once: the operands of an operation stay in the cache, and its dispatch costs nothing


class Run:
    """The state of one stage for some neighbouring symbols."""

    def __init__(self, code: Code, width: int) -> None:
        self.code, self.width = code, width
        self.block = max(1, BLOCK // width)
        self.room = np.where(code.kept > 0, 2 * code.kept + self.block, self.block)
        self.base = np.cumsum(self.room * width) - self.room * width
        self.arena = np.repeat(code.initial, self.room * width)
        self.row = code.kept.copy()

    def restart(self) -> None:
        """Forget all rows."""
        code = self.code
        forget(code.initial, self.base, code.kept, self.row, self.arena, self.width)

    def advance(
        self, left: int, inputs: Floats, handed: Floats, outputs: Floats, first: int, span: tuple[int, int]
    ) -> None:
        """Go on by the rows of `inputs`; `first` of them is the slot that outputs[:, span[0]] is for."""
        code = self.code
        since = code.since + first
        advance(
            code.lines, code.numbers, since, self.base, code.kept, self.room, self.row, self.arena,
            self.width, self.block, left, inputs, handed, outputs, first, *span,
        )  # fmt: skip


@dataclass(frozen=True)
class Block:
    """Values of one step [rows, S] from row `origin` of the panel on."""

    origin: int
    values: Floats

    def rows(self, start: int, stop: int) -> Floats:
        return rows_of(self.values, start - self.origin, stop - self.origin)


class Native:
    """A program compiled for the machine."""

    def __init__(self, steps: Sequence[Step], spans: Mapping[Step, Span], outputs: Sequence[Series]) -> None:
        self.outputs = tuple(outputs)
        self.spans = spans
        self.rest = resting(steps)
        self.stages = [Code(stage, spans, self.rest) for stage in staged(steps, outputs)]

    def run(self, panel: Panel, asked: int, chunk: int | None = None) -> Floats:
        """Values of the outputs at the panel's last `asked` slots, float32 [outputs, asked, S].

        Slots outside the panel read as missing. A result that is not finite is missing. chunk: slots at once.
        """
        slots = len(panel.time)
        values = np.empty((len(self.outputs), asked, len(panel.symbols)), np.float32)
        step = chunk or self._chunk(slots, len(panel.symbols))
        if not values.size:
            return values
        for start in range(slots - asked, slots, step):
            self._fill(panel, start, min(start + step, slots), values, start - slots + asked)
        return values

    def _chunk(self, slots: int, symbols: int) -> int:
        """Slots at once: all, or as many as CELLS of what the stages hand on allow."""
        held = sum(len(code.stage.handed) + len(code.stage.outside) for code in self.stages)
        lookback = -min((low for low, _ in self.spans.values()), default=0)
        return max(CELLS // max(held * symbols, 1), 2 * lookback, 1) if held else max(slots, 1)

    def _fill(self, panel: Panel, start: int, stop: int, outputs: Floats, at: int) -> None:
        """Write the values at the panel's rows start … stop into `outputs` from slot `at` on."""
        symbols = len(panel.symbols)
        blocks = {step: Block(0, panel.columns[str(step.fixed[0])]) for step in self.spans if step.op == "column"}
        span = at, at + stop - start
        for code in self.stages:
            begin, end = max(start + code.low, 0), stop + code.high
            if len(code.lines):
                inputs = np.stack([blocks[step].rows(begin, end) for step in code.loads])
                handed = np.empty((len(code.stage.handed), end - begin, symbols), np.float32)
                runs: dict[int, Run] = {}
                for left, right in _tiles(symbols):
                    if right - left in runs:
                        runs[right - left].restart()
                    else:
                        runs[right - left] = Run(code, right - left)
                    runs[right - left].advance(left, inputs, handed, outputs, start - begin, span)
                blocks |= {step: Block(begin, values) for step, values in zip(code.stage.handed, handed, strict=True)}
            blocks |= self._outside(code.stage, blocks, panel.symbols, start, stop)
            for place, output in code.outside_outputs.items():
                values = blocks[output.step].rows(start - output.shift, stop - output.shift)
                outputs[place, span[0] : span[1]] = values + (values - values)

    def _outside(
        self, stage: Stage, blocks: Mapping[Step, Block], symbols: Sequence[str], start: int, stop: int
    ) -> dict[Step, Block]:
        made: dict[Step, mx.array] = {}

        def read(arg: Step, low: int, high: int) -> mx.array:
            arg = plain(arg)
            if arg.op == "constant":
                return mx.array(float(arg.fixed[0]), dtype=mx.float32)
            if arg in made:
                skip = low - self.spans[arg][0]
                return made[arg][skip : skip + stop - start + high - low]
            return mx.array(blocks[arg].rows(start + low, stop + high))

        for step in stage.outside:
            low, high = self.spans[step]
            args = (read(arg, low - lag, high - lag) for arg, lag in zip(step.args, step.lags, strict=True))
            made[step] = compute(step, symbols, *args)
        mx.eval(*made.values())
        return {step: Block(start + self.spans[step][0], np.array(values)) for step, values in made.items()}


def _tiles(symbols: int) -> list[tuple[int, int]]:
    """Symbols 0 … symbols in equal parts of at most TILE."""
    tiles = -(-symbols // TILE)
    edges = [symbols * tile // tiles for tile in range(tiles + 1)]
    return list(pairwise(edges))
