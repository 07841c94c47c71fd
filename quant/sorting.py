"""The sorted window as a merge rule: blocks of the doubling kernel merge as sorted lists do, and quantiles of it.

Batcher's odd-even merge (Knuth, "The Art of Computer Programming" 3, 5.3.4) is a fixed sequence of minima and
maxima, so it is elementwise over shifted arrays like every other rule, and windows share their sorted blocks.
"""

import math

from quant.kernels import COUNT, Rule, State, Windows
from quant.primitive import Series, absolute, fill, maximum, minimum

ABSENT = 3e38  # sorts after every value, and times 0 it is 0, which infinity is not


def _merged(a: State, b: State) -> State:
    """Two sorted lists of arrays, of any lengths, as one sorted list."""
    if not a or not b:
        return a + b
    if len(a) == len(b) == 1:
        return minimum(a[0], b[0]), maximum(a[0], b[0])
    evens, odds = _merged(a[::2], b[::2]), _merged(a[1::2], b[1::2])
    merged = [evens[0]]
    for odd, even in zip(odds, evens[1:], strict=False):
        merged += [minimum(odd, even), maximum(odd, even)]
    paired = min(len(odds), len(evens) - 1)
    return (*merged, *odds[paired:], *evens[1 + paired :])


# The present values of the block in rising order, then one ABSENT for each missing slot.
SORTED = Rule(lambda x: (fill(x, ABSENT),), lambda a, b, _: _merged(a, b))


def quantile(w: Windows, n: int, q: float) -> Series:
    """The q-quantile of the present values, interpolated linearly between the two nearest (Hyndman and Fan's type 7).

    How many values are present differs from slot to slot, so each sorted value is weighted by how near its
    place is to the wanted one: all weights but two are 0. Sorted values that no weight reaches are never computed.
    """
    ordered = w.window(SORTED, n)
    (count,) = w.window(COUNT, n)
    place = q * maximum(count - 1, 0.0)
    first, last = math.floor(q * ((n + 1) // 2 - 1)), math.ceil(q * (n - 1))
    total = w.gate(n)
    for at in range(first, last + 1):
        total = total + ordered[at] * maximum(1 - absolute(place - at), 0.0)
    return total
