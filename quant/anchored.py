"""Windows that begin anew where a series says so: what a session has seen so far.

A window of n slots forgets all before the newest slot where `start` is not 0. Merge rules of the doubling
kernel carry over: a block that holds a start replaces what came before it.
"""

from collections.abc import Callable
from functools import lru_cache

from quant.kernels import COUNT, Rule, State, Windows
from quant.primitive import Series, as_float, both, constant, maximum, not_equal, present, select


@lru_cache
def _since(rule: Rule) -> Rule:
    """(holds a start, slots since it, present ones among them, the state of `rule` over them)."""

    def leaf(x: Series, start: Series) -> State:
        begins = as_float(both(present(start), not_equal(start, 0)))
        return begins, constant(1), *COUNT.leaf(x), *rule.leaf(x)

    def merge(a: State, b: State, size: int) -> State:
        anew = b[0] > 0
        merged = (a[1] + b[1], a[2] + b[2], *rule.merge(a[3:], b[3:], size))
        kept = (select(anew, newer, whole) for newer, whole in zip(b[1:], merged, strict=True))
        return maximum(a[0], b[0]), *kept

    return Rule(leaf, merge)


def since(rule: Rule) -> Callable[[Windows, int], Series]:
    """The statistic of a rule since the newest start; it exists where half of the slots since then are present."""

    def compute(w: Windows, n: int) -> Series:
        begun, slots, count, value = w.window(_since(rule), n)
        return value + w.gate_where(both(begun > 0, 2 * count >= slots))

    return compute
