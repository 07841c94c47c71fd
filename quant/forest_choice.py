"""Which evaluator walks a forest fastest, by the number of rows: measured once, good for forests of that shape.

All evaluators give the same bits, so this decides about time alone.
"""

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import get_args

import mlx.core as mx
import numpy as np
from llvmlite.binding import get_host_cpu_name  # type: ignore[import-untyped]

from quant.forest import Forest, Name

SIZES = (1, 8, 64, 512, 4_096, 32_768)  # batches that are timed
PATIENCE = 0.1  # seconds: what a larger batch may be expected to take before it is no longer tried
LEAST, ENOUGH = 3, 0.005  # a batch is timed so often, and again until so many seconds are spent

Timings = Mapping[Name, Mapping[int, float]]  # evaluator -> rows -> seconds
Shape = tuple[int, int, int]  # trees, leaves of the largest tree, columns: each rounded up to a power of two


@dataclass(frozen=True)
class Choice:
    """The evaluator for each number of rows: `steps` are `(rows, name)` by rising rows, each from its rows on."""

    steps: tuple[tuple[int, Name], ...]  # the first from 0 rows on

    def of(self, rows: int) -> Name:
        """The evaluator for so many rows."""
        chosen = self.steps[0][1]
        for start, name in self.steps[1:]:
            if rows < start:
                break
            chosen = name
        return chosen

    def __str__(self) -> str:
        """As people read it: `native, gpu from 182 rows`."""
        return ", ".join([self.steps[0][1], *(f"{name} from {rows:,} rows" for rows, name in self.steps[1:])])


def fixed(name: Name) -> Choice:
    """The same evaluator for every number of rows."""
    return Choice(((0, name),))


def fastest(timings: Timings) -> Choice:
    """The evaluator that took least at each size timed; between two sizes the nearer by ratio counts."""
    sizes = sorted({rows for taken in timings.values() for rows in taken})
    names = [min((taken[rows], name) for name, taken in timings.items() if rows in taken)[1] for rows in sizes]
    starts = [0, *(math.isqrt(below * above - 1) + 1 for below, above in pairwise(sizes))]
    steps = [(starts[0], names[0])]
    steps += [
        (start, name) for start, (before, name) in zip(starts[1:], pairwise(names), strict=True) if name != before
    ]
    return Choice(tuple(steps))


def available() -> tuple[Name, ...]:
    """Evaluators that this machine can run."""
    gpu = mx.default_device().type == mx.DeviceType.gpu
    return tuple(name for name in get_args(Name) if name != "gpu" or gpu)


def measure(forest: Forest, rows: np.ndarray, names: Iterable[Name] | None = None) -> Timings:
    """Time each evaluator (None: all available) on batches of `rows`, float32 [N, F], repeated to each size.

    rows: typical ones: what all fall down the same side of every split tells little. Takes seconds, and all of one
    core: never under load. A size that would outlast PATIENCE is left out.
    """
    found: dict[Name, dict[int, float]] = {}
    for name in available() if names is None else names:
        taken: dict[int, float] = {}
        forest.warm(name)
        for size in SIZES:
            last = next(reversed(taken), size)
            if taken and taken[last] * size / last > PATIENCE:
                break
            X = np.resize(rows, (size, rows.shape[1]))
            taken[size] = _least(partial(forest.raw, X, name))
        found[name] = taken
    return found


def shape(forest: Forest) -> Shape:
    """What decides how long a forest takes, coarse enough that a retrained one has the shape of the one before."""
    starts = np.append(forest.roots, len(forest.nodes))
    largest = int(np.diff(starts).max(initial=1) + 1) // 2
    trees, columns = len(forest.roots), len(forest.columns)
    return _power(trees), _power(largest), _power(columns)


def nearest(wanted: Shape, known: Iterable[Shape]) -> Shape | None:
    """The shape closest by ratio to the wanted one; None where none is known."""

    def distance(one: Shape) -> tuple[float, Shape]:
        return sum(abs(math.log2(a / b)) for a, b in zip(one, wanted, strict=True)), one

    return min(known, key=distance, default=None)


def device() -> str:
    """The kind of machine that timings hold for: its processor as LLVM names it, and MLX's default device."""
    return f"{get_host_cpu_name()} {mx.device_info().get('device_name', 'cpu')}"


def _least(call: Callable[[], object]) -> float:
    """Seconds of the fastest of several calls: what else the machine does can only add."""
    began, taken = time.perf_counter(), list[float]()
    while len(taken) < LEAST or time.perf_counter() - began < ENOUGH:
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return min(taken)


def _power(count: int) -> int:
    return 1 << max(0, count - 1).bit_length()
