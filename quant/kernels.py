"""The one rolling algorithm ("doubling"): windows of 1, 2, 4 … slots, merged into a window of n.

A merge rule says what a block of slots remembers and how a block merges with the block just after it. All
arrays are [rows, S] float32; a window of n over R rows gives R - n + 1 rows, ending where the input ends.
Every step is elementwise over shifted arrays, so a row's bits depend on its own slots only.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import mlx.core as mx

from quant.arrays import fill, present, select

State = tuple[mx.array, ...]


@dataclass(frozen=True, eq=False)
class Rule:
    """What a block of slots remembers.

    leaf: the state of single slots, from the inputs. merge(older, newer, size): the state of two neighbours,
    where size is the slots of the newer. overlaps: blocks that share slots merge to the same state (extremes),
    which saves merges; size is then how much later the newer one ends.
    """

    leaf: Callable[..., State]
    merge: Callable[[State, State, int], State]
    overlaps: bool = False


class Windows:
    """Windows of any length over the same inputs: levels and results are computed once and shared.

    inputs: arrays [R, S]; a slot is present where all of them are.
    """

    def __init__(self, *inputs: mx.array) -> None:
        self.inputs = inputs
        self._levels: dict[Rule, list[State]] = {}
        self._windows: dict[tuple[Rule, int], State] = {}
        self._gates: dict[tuple[int, int], mx.array] = {}

    def window(self, rule: Rule, n: int) -> State:
        """The state of every n slots that end at a row: arrays [R - n + 1, S]."""
        if (rule, n) not in self._windows:
            self._windows[rule, n] = self._assemble(rule, n)
        return self._windows[rule, n]

    def latest(self, n: int) -> State:
        """The inputs at the last slot of each window: arrays [R - n + 1, S]."""
        return _from(self.inputs, n - 1)

    def gate(self, n: int, least: int = 1) -> mx.array:
        """0 where a value over n slots exists, NaN elsewhere.

        It exists where the last slot is present, and at least half of the slots are; least: how many present
        slots the statistic needs at all.
        """
        needed = max(least, (n + 1) // 2)
        if (n, needed) not in self._gates:
            (count,) = self.window(COUNT, n)
            self._gates[n, needed] = self.gate_where(n, count >= needed)
        return self._gates[n, needed]

    def gate_where(self, n: int, enough: mx.array) -> mx.array:
        """0 where the last slot of the window is present and `enough` holds, NaN elsewhere."""
        here = _from(self._level(COUNT, 0), n - 1)[0]
        return 0 / (here * enough)

    def _assemble(self, rule: Rule, n: int) -> State:
        powers = [power for power in range(n.bit_length()) if n >> power & 1]
        if rule.overlaps and len(powers) > 1:
            level = self._level(rule, powers[-1])
            apart = n - 2 ** powers[-1]
            return rule.merge(_until(level, apart), _from(level, apart), apart)
        newer, size = self._level(rule, powers[0]), 2 ** powers[0]
        for power in powers[1:]:
            older = _until(self._level(rule, power), size)
            newer = rule.merge(older, _from(newer, 2**power), size)
            size += 2**power
        return newer

    def _level(self, rule: Rule, power: int) -> State:
        levels = self._levels.setdefault(rule, [])
        if not levels:
            levels.append(rule.leaf(*self.inputs))
        while len(levels) <= power:
            block, size = levels[-1], 2 ** (len(levels) - 1)
            levels.append(rule.merge(_until(block, size), _from(block, size), size))
        return levels[power]


def _from(state: State, rows: int) -> State:
    return tuple(part[rows:] for part in state)


def _until(state: State, rows: int) -> State:
    return tuple(part[: part.shape[0] - rows] for part in state)


def _added(older: State, newer: State, size: int) -> State:
    return tuple(a + b for a, b in zip(older, newer, strict=True))


def _everywhere(*inputs: mx.array) -> mx.array:
    """1.0 where every input is present, else 0.0."""
    here = present(inputs[0])
    for other in inputs[1:]:
        here = mx.logical_and(here, present(other))
    return here.astype(mx.float32)


COUNT = Rule(lambda *inputs: (_everywhere(*inputs),), _added)
SUM = Rule(lambda x: (fill(x, 0.0),), _added)
PRODUCT = Rule(lambda x: (fill(x, 1.0),), lambda a, b, _: (a[0] * b[0],))
MIN = Rule(lambda x: (fill(x, float("inf")),), lambda a, b, _: (mx.minimum(a[0], b[0]),), overlaps=True)
MAX = Rule(lambda x: (fill(x, float("-inf")),), lambda a, b, _: (mx.maximum(a[0], b[0]),), overlaps=True)


def _latest_extreme(
    extreme: Callable[[mx.array, mx.array], mx.array], beats: Callable[[mx.array, mx.array], mx.array]
) -> Callable[[State, State, int], State]:
    def merge(a: State, b: State, size: int) -> State:
        return extreme(a[0], b[0]), select(beats(a[0], b[0]), a[1] + size, b[1])

    return merge


# (extreme, slots since it); of equal extremes the newest counts.
ARGMIN = Rule(lambda x: (fill(x, float("inf")), mx.zeros_like(x)), _latest_extreme(mx.minimum, mx.less), overlaps=True)
ARGMAX = Rule(
    lambda x: (fill(x, float("-inf")), mx.zeros_like(x)), _latest_extreme(mx.maximum, mx.greater), overlaps=True
)


def _aged(a: State, b: State, size: int) -> State:
    count, total, ages, aged = (older + newer for older, newer in zip(a, b, strict=True))
    return count, total, ages + size * a[0], aged + size * a[1]


# Sums over present slots: (1, x, age, age · x); age counts slots back from the window's end.
AGED = Rule(lambda x: (_everywhere(x), fill(x, 0.0), mx.zeros_like(x), mx.zeros_like(x)), _aged)


@lru_cache(maxsize=1024)
def decayed(keep: float) -> Rule:
    """(Σ weight · x, Σ weight) over present slots, a slot's weight being keep ** age."""

    def merge(a: State, b: State, size: int) -> State:
        factor = keep**size
        return tuple(newer + factor * older for older, newer in zip(a, b, strict=True))

    return Rule(lambda x: (fill(x, 0.0), _everywhere(x)), merge)


def _shares(a: mx.array, b: mx.array) -> tuple[mx.array, mx.array]:
    """The merged count, and the newer block's share of it (0 where both blocks are empty)."""
    count = a + b
    return count, b / mx.maximum(count, 1.0)


def _moments(a: State, b: State, size: int) -> State:
    count, share = _shares(a[0], b[0])
    delta = b[1] - a[1]
    step = delta * share
    return count, a[1] + step, a[2] + b[2] + delta * step * a[0]


# (count, mean, Σ(x - mean)²): Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for
# computing sample variances" (1979). It keeps in float32 the digits that sums of squares lose.
MOMENTS = Rule(lambda x: (_everywhere(x), fill(x, 0.0), mx.zeros_like(x)), _moments)


def _high_moments(a: State, b: State, size: int) -> State:
    count, share = _shares(a[0], b[0])
    rest = 1 - share  # the older block's share; where both are empty every term below is 0
    delta = b[1] - a[1]
    step = delta * share
    spread = delta * step * a[0]
    m2 = a[2] + b[2] + spread
    m3 = a[3] + b[3] + spread * delta * (rest - share) + 3 * delta * (rest * b[2] - share * a[2])
    m4 = (
        a[4]
        + b[4]
        + spread * delta * delta * (rest * rest - rest * share + share * share)
        + 6 * delta * delta * (rest * rest * b[2] + share * share * a[2])
        + 4 * delta * (rest * b[3] - share * a[3])
    )
    return count, a[1] + step, m2, m3, m4


# (count, mean, M2, M3, M4): Pébay, "Formulas for robust, one-pass parallel computation of covariances and
# arbitrary-order statistical moments" (Sandia SAND2008-6212).
HIGH_MOMENTS = Rule(
    lambda x: (_everywhere(x), fill(x, 0.0), mx.zeros_like(x), mx.zeros_like(x), mx.zeros_like(x)),
    _high_moments,
)


def _co_moments(a: State, b: State, size: int) -> State:
    count, share = _shares(a[0], b[0])
    dx, dy = b[1] - a[1], b[2] - a[2]
    weight = share * a[0]
    step_x, step_y = dx * share, dy * share
    return (
        count,
        a[1] + step_x,
        a[2] + step_y,
        a[3] + b[3] + dx * dx * weight,
        a[4] + b[4] + dy * dy * weight,
        a[5] + b[5] + dx * dy * weight,
    )


def _pair_leaf(x: mx.array, y: mx.array) -> State:
    both = _everywhere(x, y)
    zero = mx.zeros_like(both)
    return both, _where_both(both, x), _where_both(both, y), zero, zero, zero


def _where_both(both: mx.array, x: mx.array) -> mx.array:
    return select(both > 0, x, mx.zeros_like(x))


# (count, mean x, mean y, Mxx, Myy, Mxy) over slots where both are present; Pébay, as above.
CO_MOMENTS = Rule(_pair_leaf, _co_moments)


def _trend(a: State, b: State, size: int) -> State:
    older_time = a[2] - size * (a[0] > 0)
    return _co_moments((a[0], a[1], older_time, *a[3:]), b, size)


def _trend_leaf(x: mx.array) -> State:
    zero = mx.zeros_like(x)
    return _everywhere(x), fill(x, 0.0), zero, zero, zero, zero


# CO_MOMENTS of x and time, where time is 0 at the window's last slot and falls by 1 a slot back.
TREND = Rule(_trend_leaf, _trend)
