"""Walk a compiled forest on the CPU with numba: eight trees in step, so that no walk waits for the other's memory.

Importing this compiles it, for seconds: `Forest.warm` does so before traffic. Compiled code is kept beside this file,
or in NUMBA_CACHE_DIR where that is set, for the next process.
"""

import numpy as np
from numba import njit, types

from quant.forest import GO_RIGHT, INFINITY_BITS, ZERO_BITS, Forest

LANES = 8  # trees walked together: `_arrive` names each
STRIDE = 4  # steps between two looks whether all have arrived; who has stays, so more than needed do no harm

# Stated, so that nothing is compiled under load: rows may be read-only and lie anywhere, as in a client's bytes.
_ROWS = types.Array(types.float32, 2, "C", readonly=True, aligned=False)
_BITS = types.Array(types.int32, 2, "C", readonly=True, aligned=False)
_PARTS = (types.int32[:, ::1], types.int32[:, ::1], types.int64[::1], types.int32[:, ::1])
_LEAVES = types.void(_ROWS, _BITS, *_PARTS, types.int32[::1], types.int32[:, ::1])
_TOTALS = types.void(_ROWS, _BITS, *_PARTS, types.int64[::1], types.int64[::1])


class Native:
    """The forest's arrays, walked row by row on the calling thread (the GIL is released)."""

    def __init__(self, forest: Forest) -> None:
        self._trees = len(forest.roots)
        # Lanes without a tree stand on a leaf of no value, behind all others.
        rest = np.full(-self._trees % LANES, len(forest.nodes), np.int32)
        roots = np.append(forest.roots, rest).reshape(-1, LANES)
        nodes = np.append(forest.nodes, np.int64(GO_RIGHT << 32))
        self._arrays = (forest.columns.copy(), forest.sets.copy(), nodes, roots)  # a file's arrays are read-only
        self._leaf = np.append(forest.leaf, np.int32(0))
        self._value = np.append(forest.value, np.int64(0))

    def leaves(self, X: np.ndarray) -> np.ndarray:
        """Leaf numbers, int32 [N, trees]. X: float32 [N, F], C-contiguous."""
        out = np.empty((len(X), self._arrays[-1].size), np.int32)
        _leaves(X, X.view(np.int32), *self._arrays, self._leaf, out)
        return np.ascontiguousarray(out[:, : self._trees])

    def totals(self, X: np.ndarray) -> np.ndarray:
        """Sums of scaled leaf values, int64 [N]. X: float32 [N, F], C-contiguous."""
        out = np.empty(len(X), np.int64)
        _totals(X, X.view(np.int32), *self._arrays, self._value, out)
        return out


@njit
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


@njit(inline="always")
def _step(nodes, node, keys):  # type: ignore[no-untyped-def]
    word = nodes[node]
    right = keys[np.uint64(word >> 16 & 0xFFFF)] > word >> 32
    return node + np.uint64(word & 0xFFFF) + np.uint64(right)


@njit(inline="always")
def _arrive(nodes, roots, keys):  # type: ignore[no-untyped-def]
    """The nodes where the walks of one row from eight roots end."""
    # Unsigned: a signed index would be tested for counting from the end, at every step.
    a, b, c, d = np.uint64(roots[0]), np.uint64(roots[1]), np.uint64(roots[2]), np.uint64(roots[3])
    e, f, g, h = np.uint64(roots[4]), np.uint64(roots[5]), np.uint64(roots[6]), np.uint64(roots[7])
    while (nodes[a] | nodes[b] | nodes[c] | nodes[d] | nodes[e] | nodes[f] | nodes[g] | nodes[h]) & 0xFFFF:
        for _ in range(STRIDE):
            a, b, c, d = _step(nodes, a, keys), _step(nodes, b, keys), _step(nodes, c, keys), _step(nodes, d, keys)
            e, f, g, h = _step(nodes, e, keys), _step(nodes, f, keys), _step(nodes, g, keys), _step(nodes, h, keys)
    return a, b, c, d, e, f, g, h


@njit(_LEAVES, cache=True, nogil=True)
def _leaves(X, bits, columns, sets, nodes, roots, leaf, out):  # type: ignore[no-untyped-def]
    keys = np.empty(len(columns), np.int32)
    for row in range(len(X)):
        _read(X[row], bits[row], columns, sets, keys)
        for group in range(len(roots)):
            ends = _arrive(nodes, roots[group], keys)
            for lane in range(LANES):
                out[row, group * LANES + lane] = leaf[ends[lane]]


@njit(_TOTALS, cache=True, nogil=True)
def _totals(X, bits, columns, sets, nodes, roots, value, out):  # type: ignore[no-untyped-def]
    keys = np.empty(len(columns), np.int32)
    for row in range(len(X)):
        _read(X[row], bits[row], columns, sets, keys)
        total = 0
        for group in range(len(roots)):
            a, b, c, d, e, f, g, h = _arrive(nodes, roots[group], keys)
            total += value[a] + value[b] + value[c] + value[d] + value[e] + value[f] + value[g] + value[h]
        out[row] = total
