"""The one rolling algorithm ("doubling"): windows of 1, 2, 4 … slots, merged into a window of n.

A merge rule says what a block of slots remembers and how a block merges with the block just before it. Every
step is elementwise over shifted series, so a row's bits depend on its own slots only.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from quant.primitive import Series, as_float, both, constant, fill, maximum, minimum, present, select

State = tuple[Series, ...]


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
    """Windows of any length over the same inputs, each state at the window's last slot.

    A slot is present where all inputs are.
    """

    def __init__(self, *inputs: Series) -> None:
        self.inputs = inputs
        self._levels: dict[Rule, list[State]] = {}
        self._windows: dict[tuple[Rule, int], State] = {}

    def window(self, rule: Rule, n: int) -> State:
        """The state of the n slots that end at each slot."""
        if (rule, n) not in self._windows:
            self._windows[rule, n] = self._assemble(rule, n)
        return self._windows[rule, n]

    def gate(self, n: int, least: int = 1) -> Series:
        """0 where a value over n slots exists, NaN elsewhere.

        It exists where the last slot is present, and at least half of the slots are; least: how many present
        slots the statistic needs at all.
        """
        (count,) = self.window(COUNT, n)
        return self.gate_where(count >= max(least, (n + 1) // 2))

    def gate_where(self, enough: Series) -> Series:
        """0 where the last slot of the window is present and the mask holds, NaN elsewhere."""
        (here,) = self._level(COUNT, 0)
        return 0 / (here * as_float(enough))

    def _assemble(self, rule: Rule, n: int) -> State:
        powers = [power for power in range(n.bit_length()) if n >> power & 1]
        if rule.overlaps and len(powers) > 1:
            level = self._level(rule, powers[-1])
            apart = n - 2 ** powers[-1]
            return rule.merge(_before(level, apart), level, apart)
        newer, size = self._level(rule, powers[0]), 2 ** powers[0]
        for power in powers[1:]:
            newer = rule.merge(_before(self._level(rule, power), size), newer, size)
            size += 2**power
        return newer

    def _level(self, rule: Rule, power: int) -> State:
        levels = self._levels.setdefault(rule, [])
        if not levels:
            levels.append(rule.leaf(*self.inputs))
        while len(levels) <= power:
            block, size = levels[-1], 2 ** (len(levels) - 1)
            levels.append(rule.merge(_before(block, size), block, size))
        return levels[power]


def _before(state: State, slots: int) -> State:
    return tuple(part.lag(slots) for part in state)


def _added(older: State, newer: State, size: int) -> State:
    return tuple(a + b for a, b in zip(older, newer, strict=True))


def _everywhere(*inputs: Series) -> Series:
    """1.0 where every input is present, else 0.0."""
    here = present(inputs[0])
    for other in inputs[1:]:
        here = both(here, present(other))
    return as_float(here)


COUNT = Rule(lambda *inputs: (_everywhere(*inputs),), _added)
SUM = Rule(lambda x: (fill(x, 0.0),), _added)
PRODUCT = Rule(lambda x: (fill(x, 1.0),), lambda a, b, _: (a[0] * b[0],))
MIN = Rule(lambda x: (fill(x, float("inf")),), lambda a, b, _: (minimum(a[0], b[0]),), overlaps=True)
MAX = Rule(lambda x: (fill(x, float("-inf")),), lambda a, b, _: (maximum(a[0], b[0]),), overlaps=True)


def _latest_extreme(
    extreme: Callable[[Series, Series], Series], beats: Callable[[Series, Series], Series]
) -> Callable[[State, State, int], State]:
    def merge(a: State, b: State, size: int) -> State:
        return extreme(a[0], b[0]), select(beats(a[0], b[0]), a[1] + size, b[1])

    return merge


# (extreme, slots since it); of equal extremes the newest counts.
ARGMIN = Rule(lambda x: (fill(x, float("inf")), constant(0)), _latest_extreme(minimum, Series.__lt__), overlaps=True)
ARGMAX = Rule(lambda x: (fill(x, float("-inf")), constant(0)), _latest_extreme(maximum, Series.__gt__), overlaps=True)


def _aged(a: State, b: State, size: int) -> State:
    count, total, ages, aged = (older + newer for older, newer in zip(a, b, strict=True))
    return count, total, ages + size * a[0], aged + size * a[1]


# Sums over present slots: (1, x, age, age · x); age counts slots back from the window's end.
AGED = Rule(lambda x: (_everywhere(x), fill(x, 0.0), constant(0), constant(0)), _aged)


@lru_cache(maxsize=1024)
def decayed(keep: float) -> Rule:
    """(Σ weight · x, Σ weight) over present slots, a slot's weight being keep ** age."""

    def merge(a: State, b: State, size: int) -> State:
        factor = keep**size
        return tuple(newer + factor * older for older, newer in zip(a, b, strict=True))

    return Rule(lambda x: (fill(x, 0.0), _everywhere(x)), merge)


def _shares(a: Series, b: Series) -> tuple[Series, Series]:
    """The merged count, and the newer block's share of it (0 where both blocks are empty)."""
    count = a + b
    return count, b / maximum(count, 1.0)


def _moments(a: State, b: State, size: int) -> State:
    count, share = _shares(a[0], b[0])
    delta = b[1] - a[1]
    step = delta * share
    return count, a[1] + step, a[2] + b[2] + delta * step * a[0]


# (count, mean, Σ(x - mean)²): Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for
# computing sample variances" (1979). It keeps in float32 the digits that sums of squares lose.
MOMENTS = Rule(lambda x: (_everywhere(x), fill(x, 0.0), constant(0)), _moments)


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
    lambda x: (_everywhere(x), fill(x, 0.0), constant(0), constant(0), constant(0)),
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


def _pair_leaf(x: Series, y: Series) -> State:
    here = _everywhere(x, y)
    zero = constant(0)
    return here, select(here > 0, x, zero), select(here > 0, y, zero), zero, zero, zero


# (count, mean x, mean y, Mxx, Myy, Mxy) over slots where both are present; Pébay, as above.
CO_MOMENTS = Rule(_pair_leaf, _co_moments)


def _trend(a: State, b: State, size: int) -> State:
    older_time = a[2] - size * as_float(a[0] > 0)
    return _co_moments((a[0], a[1], older_time, *a[3:]), b, size)


def _trend_leaf(x: Series) -> State:
    zero = constant(0)
    return _everywhere(x), fill(x, 0.0), zero, zero, zero, zero


# CO_MOMENTS of x and time, where time is 0 at the window's last slot and falls by 1 a slot back.
TREND = Rule(_trend_leaf, _trend)
