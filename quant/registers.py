"""A stage as the machine reads it: numbered registers, each with just the history that is read of it."""

from collections.abc import Mapping, Sequence

import numpy as np

from quant.evaluation import Span
from quant.machine import CODE
from quant.primitive import Series, Step
from quant.stages import Stage, instructions, is_outside, plain


class Code:
    """The instructions of one stage.

    loads: what it reads, in order: columns and values of earlier stages. outside_outputs: by place among the
    program's outputs, those that MLX computes. low, high: its first and last row, relative
    to the first and the last slot asked for. lines, numbers, since, kept: see `machine.advance`, since relative to
    the first slot asked for. initial: what each register's history holds at first.
    """

    def __init__(self, stage: Stage, spans: Mapping[Step, Span], rest: Mapping[Step, float]) -> None:
        self.stage, self._spans, self._rest = stage, spans, rest
        self.loads: list[Step] = []
        self._instructions = instructions(stage)
        self._handed = {step: place for place, step in enumerate(stage.handed)}
        self._stored: dict[Step, list[tuple[int, Series]]] = {}
        for place, output in stage.outputs.items():
            self._stored.setdefault(plain(output.step), []).append((place, output))
        self.outside_outputs = {at: output for at, output in stage.outputs.items() if is_outside(output.step)}
        self._lags, self._last = self._reads()
        self._register: dict[Step, int] = {}
        self._free: list[int] = []  # registers without history that may be written anew
        self._kept: list[int] = []
        self._initial: list[float] = []
        self._lines: list[tuple[int, ...]] = []
        self._numbers: list[float] = []
        self._since: list[int] = []
        self._write()
        varying = [step for step in (*self._instructions, *self.loads) if not step.is_constant]
        self.low = min(self._since, default=0)
        # Not below 0: what is read of earlier slots alone is still stored at the last one asked for.
        self.high = max(0, *(spans[step][1] for step in varying)) if varying else 0
        self.lines = np.array(self._lines, np.int32).reshape(-1, 8)
        self.numbers = np.array(self._numbers, np.float32)
        self.since = np.array(self._since, np.int64)
        self.kept = np.array(self._kept, np.int64)
        self.initial = np.array(self._initial, np.float32)

    def _reads(self) -> tuple[dict[Step, int], dict[Step, int]]:
        """Of each step: how far back it is read, and the place of the last instruction that reads it."""
        lags: dict[Step, int] = {}
        last: dict[Step, int] = {}
        for at, (step, line) in enumerate(self._instructions.items()):
            last.setdefault(step, at)
            for arg, lag in line.reads:
                lags[arg], last[arg] = max(lags.get(arg, 0), lag), at
        for step, stores in self._stored.items():
            lags[step] = max(lags.get(step, 0), *(output.shift for _, output in stores))
        return lags, last

    def _write(self) -> None:
        for at, (step, line) in enumerate(self._instructions.items()):
            reads = [part for arg, lag in line.reads for part in (self._place(arg), lag)]
            # The result's register is chosen while those of its arguments are still held: loops may assume that
            # they write elsewhere than they read.
            self._emit(line.op, self._place(step), reads, step, line.number)
            self._pass_on(step)
            for arg in dict.fromkeys((*(arg for arg, _ in line.reads), step)):
                self._release(arg, at)
        for step in self._stored:
            if step not in self._instructions and not is_outside(step):
                self._pass_on(step)

    def _emit(self, op: str, written: int, reads: Sequence[int], step: Step, number: float = 0.0) -> None:
        unused = [written, 0] * (3 - len(reads) // 2)
        self._lines.append((CODE[op], written, *reads, *unused))
        self._numbers.append(number)
        self._since.append(self._spans[step][0])

    def _place(self, step: Step) -> int:
        """The register of a step; one that another stage or the panel has is loaded first."""
        if step in self._register:
            return self._register[step]
        if self._free and not self._persists(step):
            self._register[step] = self._free.pop()
        else:
            self._register[step] = len(self._kept)
            self._kept.append(self._lags.get(step, 0))
            self._initial.append(self._rest[step])
        if step.op != "constant" and step not in self._instructions:
            self._emit("load", self._register[step], (len(self.loads), 0), step)
            self.loads.append(step)
        return self._register[step]

    def _persists(self, step: Step) -> bool:
        return step.op == "constant" or self._lags.get(step, 0) > 0

    def _release(self, step: Step, at: int) -> None:
        if self._last.get(step, at) == at and not self._persists(step):
            self._free.append(self._register.pop(step))

    def _pass_on(self, step: Step) -> None:
        where = self._place(step)
        if step in self._handed:
            self._emit("hand", where, (where, 0, self._handed[step], 0), step)
        for place, output in self._stored.get(step, ()):
            back, ahead = max(output.shift, 0), max(-output.shift, 0)
            self._emit("store", where, (where, back, place, -ahead), step)
