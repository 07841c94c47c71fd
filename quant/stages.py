"""Steps in stages: what the machine runs in one go, then what MLX computes from it over whole arrays.

MLX does what is not elementary arithmetic over one symbol: operators across the section, powers, exponentials.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from quant.machine import CODE
from quant.primitive import Series, Step


def is_native(step: Step) -> bool:
    return step.op in CODE


def plain(step: Step) -> Step:
    """The step that has these values: in the machine masks are 1 and 0 already."""
    return plain(step.args[0]) if step.op == "as_float" else step


@dataclass
class Stage:
    """Steps that the machine runs in one go, then steps that MLX computes from them.

    handed: native values that MLX or a later stage reads. outputs: by place among the program's outputs.
    """

    steps: list[Step] = field(default_factory=list)
    outside: list[Step] = field(default_factory=list)
    handed: dict[Step, None] = field(default_factory=dict)
    outputs: dict[int, Series] = field(default_factory=dict)


def staged(steps: Sequence[Step], outputs: Sequence[Series]) -> list[Stage]:
    """The stages of a program. steps: arguments before what reads them."""
    level: dict[Step, int] = {}
    count = 0
    for step in steps:
        args = [plain(arg) for arg in step.args]
        waits = is_native(step)
        level[step] = max((level[arg] + (waits and is_outside(arg)) for arg in args), default=0)
        count = max(count, level[step] + 1)
    stages = [Stage() for _ in range(count)]
    for step in steps:
        stage = stages[level[step]]
        if is_native(step):
            stage.steps.append(step)
        elif is_outside(step):
            stage.outside.append(step)
        for arg in map(plain, step.args):
            if is_native(arg) and (is_outside(step) or level[step] > level[arg]) and step.op != "as_float":
                stages[level[arg]].handed[arg] = None
    for place, output in enumerate(outputs):
        stages[level[plain(output.step)]].outputs[place] = output
    return stages


def is_outside(step: Step) -> bool:
    return not is_native(step) and step.op not in ("column", "constant", "as_float")


Reads = tuple[tuple[Step, int], ...]


@dataclass(frozen=True)
class Instruction:
    """An operation of the machine, what it reads at which lags, and its number."""

    op: str
    reads: Reads
    number: float = 0.0


def instructions(stage: Stage) -> dict[Step, Instruction]:
    """The instruction of each step; a product that only one sum reads is part of it.

    That saves a trip through the cache; both roundings stay.
    """
    made = {step: _instruction(step) for step in stage.steps}
    readers = Counter(arg for line in made.values() for arg, _ in line.reads)
    kept = {*stage.handed, *(plain(output.step) for output in stage.outputs.values())}
    for step, line in list(made.items()):
        for (factor, lag), other in (line.reads, line.reads[::-1]) if line.op == "add" else ():
            if factor in made and made[factor].op == "multiply" and readers[factor] == 1 and factor not in kept:
                made[step] = _sum_of_product(made.pop(factor).reads, lag, other)
                break
    return made


def _instruction(step: Step) -> Instruction:
    reads = tuple(zip(map(plain, step.args), step.lags, strict=True))
    return Instruction(step.op, reads, float(step.fixed[0]) if step.op == "fill" else 0.0)


def _sum_of_product(factors: Reads, lag: int, other: tuple[Step, int]) -> Instruction:
    numbers = [factor for factor, _ in factors if factor.op == "constant"]
    moved = tuple((factor, lag + before) for factor, before in factors if not factor.is_constant)
    if len(numbers) == 1 and len(moved) == 1:
        return Instruction("scale_add", (*moved, other), float(numbers[0].fixed[0]))
    return Instruction("multiply_add", (*((f, 0 if f.is_constant else lag + before) for f, before in factors), other))
