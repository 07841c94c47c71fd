"""A stage as the machine reads it: numbered registers, each with just the history that is read of it."""

from collections.abc import Mapping, Sequence

import numpy as np

from quant.evaluation import Span
from quant.machine import CODE
from quant.primitive import Series, Step
from quant.stages import Stage, instructions, is_outside, plain


class Code:
    """One stage as the machine reads it.

    loads: what it reads, in order: columns and values of earlier stages. low, high: its first and last row,
    relative to the first and the last slot asked for.
    """

    def __init__(self, stage: Stage, spans: Mapping[Step, Span], rest: Mapping[Step, float]) -> None:
        self.stage = stage
        self.loads: list[Step] = []
        self._rest = rest
        self._lines: list[tuple[int, ...]] = []
        self._numbers: list[float] = []
        self._since: list[int] = []
        self._kept: list[int] = []
        self._initial: list[float] = []  # what a register holds at first; temporary ones anything
        self._free: list[int] = []
        self._register: dict[Step, int] = {}
        self._reads = instructions(stage)
        self._write(spans)
        self.low = min((low for low in self._since), default=0)
        self.high = max((spans[step][1] for step in (*self._reads, *self.loads) if not step.is_constant), default=0)
        self.lines = np.array(self._lines, np.int32).reshape(-1, 8)
        self.numbers = np.array(self._numbers, np.float32)
        self.since = np.array(self._since, np.int64)
        self.kept = np.array(self._kept, np.int64)
        self.initial = np.array(self._initial, np.float32)

    def _write(self, spans: Mapping[Step, Span]) -> None:
        stage = self.stage
        stores: dict[Step, list[tuple[int, Series]]] = {}
        for place, output in stage.outputs.items():
            stores.setdefault(plain(output.step), []).append((place, output))
        handed = {step: place for place, step in enumerate(stage.handed)}
        lags: dict[Step, int] = {}  # the farthest that is read back of each
        last: dict[Step, int] = {}  # the last of the stage's steps that reads it
        for at, step in enumerate(self._reads):
            last.setdefault(step, at)
            for arg, lag in self._reads[step].reads:
                lags[arg], last[arg] = max(lags.get(arg, 0), lag), at
        for step, pairs in stores.items():
            lags[step] = max(lags.get(step, 0), *(output.shift for _, output in pairs))

        def emit(op: str, written: int, args: Sequence[int], since: int, number: float = 0.0) -> None:
            self._lines.append((CODE[op], written, *args, *([written, 0] * 3)[: 6 - len(args)]))
            self._numbers.append(number)
            self._since.append(since)

        def register(step: Step) -> int:
            if step not in self._register:
                persists = lags.get(step, 0) > 0 or step.op == "constant"
                if not persists and self._free:
                    self._register[step] = self._free.pop()
                else:
                    self._register[step] = len(self._kept)
                    self._kept.append(lags.get(step, 0))
                    self._initial.append(self._rest[step])
                if step.op != "constant" and step not in own:
                    emit("load", self._register[step], (len(self.loads), 0), spans[step][0])
                    self.loads.append(step)
            return self._register[step]

        def release(step: Step, at: int) -> None:
            if last.get(step, at) == at and not lags.get(step, 0) and step.op != "constant" and step in self._register:
                self._free.append(self._register.pop(step))

        def hand_on(step: Step) -> None:
            where, low = register(step), spans[step][0]
            if step in handed:
                emit("hand", where, (where, 0, handed[step], 0), low)
            for place, output in stores.get(step, ()):
                ahead = max(-output.shift, 0)
                emit("store", where, (where, max(output.shift, 0), place, -ahead), low)

        own = self._reads.keys()
        for at, step in enumerate(self._reads):
            line = self._reads[step]
            flat = [part for arg, lag in line.reads for part in (register(arg), lag)]
            emit(line.op, register(step), flat, spans[step][0], line.number)
            hand_on(step)
            for arg in dict.fromkeys((*(arg for arg, _ in line.reads), step)):
                release(arg, at)
        for step in stores:
            if step not in own and not is_outside(step):
                hand_on(step)
