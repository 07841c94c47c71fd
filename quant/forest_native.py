"""Walk a compiled forest on the CPU with numba. Call `Forest.warm` before traffic: compiling takes seconds.

Compiled code is kept beside this file, or in NUMBA_CACHE_DIR where that is set, for the next process.
"""

import numpy as np
from numba import njit

from quant.forest import INFINITY_BITS, ZERO_BITS, Forest


class Native:
    """The forest's arrays, walked row by row on the calling thread (the GIL is released)."""

    def __init__(self, forest: Forest) -> None:
        self._arrays = (forest.columns, forest.sets, forest.nodes, forest.roots)
        self._leaf = forest.leaf
        self._value = forest.value

    def leaves(self, X: np.ndarray) -> np.ndarray:
        """Leaf numbers, int32 [N, trees]. X: float32 [N, F], C-contiguous."""
        out = np.empty((len(X), len(self._arrays[-1])), np.int32)
        _leaves(X, X.view(np.int32), *self._arrays, self._leaf, out)
        return out

    def totals(self, X: np.ndarray) -> np.ndarray:
        """Sums of scaled leaf values, int64 [N]. X: float32 [N, F], C-contiguous."""
        out = np.empty(len(X), np.int64)
        _totals(X, X.view(np.int32), *self._arrays, self._value, out)
        return out


@njit(cache=True, nogil=True)
def _read(x, bits, columns, sets, keys):  # type: ignore[no-untyped-def]
    """Keys of one row in every column (see Forest)."""
    for c in range(len(columns)):
        f = columns[c, 0]
        magnitude = bits[f] & 0x7FFFFFFF
        if columns[c, 3] >= 0:
            keys[c] = 1
            # trunc(x) as LightGBM casts it: NaN, negatives from -1 down and what no set reaches are outside
            if magnitude <= INFINITY_BITS and x[f] > -1 and x[f] < 32 * sets.shape[1]:
                k = int(x[f])
                keys[c] = 1 - (sets[columns[c, 3], k >> 5] >> (k & 31) & 1)
        elif magnitude > INFINITY_BITS:
            keys[c] = columns[c, 1]
        elif magnitude <= ZERO_BITS:
            keys[c] = columns[c, 2]
        else:
            keys[c] = magnitude if bits[f] >= 0 else -magnitude


@njit(cache=True, nogil=True)
def _walk(nodes, root, keys):  # type: ignore[no-untyped-def]
    node = root
    while True:
        word = nodes[node]
        step = word & 0xFFFF
        if step == 0:
            return node
        node += step + (keys[word >> 16 & 0xFFFF] > word >> 32)


@njit(cache=True, nogil=True)
def _leaves(X, bits, columns, sets, nodes, roots, leaf, out):  # type: ignore[no-untyped-def]
    keys = np.empty(len(columns), np.int64)
    for row in range(len(X)):
        _read(X[row], bits[row], columns, sets, keys)
        for tree in range(len(roots)):
            out[row, tree] = leaf[_walk(nodes, roots[tree], keys)]


@njit(cache=True, nogil=True)
def _totals(X, bits, columns, sets, nodes, roots, value, out):  # type: ignore[no-untyped-def]
    keys = np.empty(len(columns), np.int64)
    for row in range(len(X)):
        _read(X[row], bits[row], columns, sets, keys)
        total = 0
        for tree in range(len(roots)):
            total += value[_walk(nodes, roots[tree], keys)]
        out[row] = total
