"""The live state of a program: it goes on by a bar of every symbol, without its window being computed again."""

from collections.abc import Sequence

import mlx.core as mx
import numpy as np

from quant.evaluation import compute
from quant.native import Native, Run
from quant.panel import Floats, Panel
from quant.primitive import Step
from quant.registers import Code
from quant.stages import is_outside, plain


class Live:
    """Registers of a program for some symbols; at first every bar so far is missing. One thread at a time.

    Give it at least the program's look-back of slots and what follows has the bits that `Program.run` gives.
    """

    def __init__(self, native: Native, names: Sequence[str], symbols: Sequence[str]) -> None:
        if any(output.shift < 0 for output in native.outputs):
            raise ValueError("a program that looks ahead has no live state")
        self.names, self.symbols = tuple(names), tuple(symbols)
        self._native = native
        self._runs = [Run(code, max(len(symbols), 1)) for code in native.stages]
        self._groups = {code: _groups(code.stage.outside) for code in native.stages}
        self._past = {step: self._rest(step, slots) for step, slots in self._read_back().items()}

    def advance(self, panel: Panel) -> dict[str, Floats]:
        """Values of the panel's slots, float32 [T, S] by name: the slots that follow those seen so far.

        Raises ValueError for a panel of other symbols or without a column that the program reads.
        """
        if panel.symbols != self.symbols:
            raise ValueError("the panel's symbols are not those of the live state")
        slots = len(panel.time)
        values = np.empty((len(self.names), slots, len(self.symbols)), np.float32)
        made: dict[Step, Floats] = {}
        for run in self._runs:
            code = run.code
            inputs = [self._load(step, panel, made) for step in code.loads]
            handed = np.empty((len(code.stage.handed), slots, len(self.symbols)), np.float32)
            if inputs:
                run.advance(0, np.stack(inputs), handed, values, 0, (0, slots))
            made |= zip(code.stage.handed, handed, strict=True)
            self._outside(code, panel, made)
            for place, output in code.outside_outputs.items():
                found = self._behind(output.step, output.shift, panel, made)
                values[place] = found + (found - found)
        for step, past in self._past.items():
            self._past[step] = np.concatenate([past, self._load(step, panel, made)])[-len(past) :]
        return dict(zip(self.names, values, strict=True))

    def _outside(self, code: Code, panel: Panel, made: dict[Step, Floats]) -> None:
        """What MLX computes between two stages, in one evaluation."""
        lazy: dict[Step, mx.array] = {}

        def read(arg: Step, lag: int) -> mx.array:
            if arg.op == "constant":
                return mx.array(float(arg.fixed[0]))
            if arg not in lazy:
                return mx.array(self._behind(arg, lag, panel, made))
            if not lag:
                return lazy[arg]
            known = mx.concatenate([mx.array(self._past[arg]), lazy[arg]])
            return known[len(known) - len(panel.time) - lag : len(known) - lag]

        for group in self._groups[code]:
            given = [[read(plain(arg), lag) for arg, lag in zip(step.args, step.lags, strict=True)] for step in group]
            if len(group) == 1:
                lazy[group[0]] = compute(group[0], self.symbols, *given[0])
            else:
                rows = compute(group[0], self.symbols, mx.concatenate([arg for [arg] in given]))
                lazy |= zip(group, mx.split(rows, len(group)), strict=True)
        mx.eval(*lazy.values())
        made |= {step: np.array(values) for step, values in lazy.items()}

    def _load(self, step: Step, panel: Panel, made: dict[Step, Floats]) -> Floats:
        if step.op != "column":
            return made[step]
        name = str(step.fixed[0])
        if name not in panel.columns:
            raise ValueError(f"the panel lacks column {name}; it has {', '.join(sorted(panel.columns))}")
        return panel.columns[name]

    def _behind(self, step: Step, lag: int, panel: Panel, made: dict[Step, Floats]) -> Floats:
        """The step's values `lag` slots before each of the panel's."""
        now = self._load(step, panel, made)
        if not lag:
            return now
        known = np.concatenate([self._past[step], now])
        return known[len(known) - len(now) - lag : len(known) - lag]

    def _read_back(self) -> dict[Step, int]:
        """How far back MLX and the outputs read steps that no register keeps."""
        reads = [
            (plain(arg), lag)
            for code in self._native.stages
            for step in code.stage.outside
            for arg, lag in zip(step.args, step.lags, strict=True)
        ]
        reads += [(output.step, output.shift) for output in self._native.outputs if is_outside(output.step)]
        slots: dict[Step, int] = {}
        for step, lag in reads:
            if lag and not step.is_constant:
                slots[step] = max(slots.get(step, 0), lag)
        return slots

    def _rest(self, step: Step, slots: int) -> Floats:
        return np.full((slots, len(self.symbols)), self._native.rest[step], np.float32)


def _groups(steps: Sequence[Step]) -> list[list[Step]]:
    """Steps in an order in which each follows its arguments; those that do the same to one argument are together.

    A row of a section depends on no other row, so such steps are one, of all their rows: at a single slot it is the
    number of operations that costs.
    """
    found: list[list[Step]] = []
    waiting = list(steps)
    while waiting:
        ready = [step for step in waiting if not any(plain(arg) in waiting for arg in step.args)]
        alike: dict[object, list[Step]] = {}
        for step in ready:
            together = step.op == "section" and len(step.args) == 1
            alike.setdefault((step.op, step.fixed) if together else step, []).append(step)
        found += alike.values()
        waiting = [step for step in waiting if step not in ready]
    return found
