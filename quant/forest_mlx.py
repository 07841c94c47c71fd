"""Walk a compiled forest with MLX array operations: the portable evaluator, on any device MLX has.

Only integers decide (and gathers fetch), so a CPU, Metal and CUDA give the same leaves and the same bits.
"""

from collections.abc import Iterator

import mlx.core as mx
import numpy as np

from quant.forest import INFINITY_BITS, ZERO_BITS, Forest

BLOCK = 2**20  # (row, tree) pairs, or (row, column) keys, at once: bounds memory to some tens of MB


class Mlx:
    """The forest's arrays on MLX's default device; use it from one thread."""

    def __init__(self, forest: Forest) -> None:
        self._feature, self._nan_key, self._zero_key, self._set = map(mx.array, forest.columns.T)
        self._words, self._width = mx.array(forest.sets.ravel()), forest.sets.shape[1]
        self._nodes = mx.array(forest.nodes)
        self._roots = mx.array(forest.roots)
        self._leaf = mx.array(forest.leaf)
        self._value = mx.array(forest.value)
        self._depth = forest.depth

    def leaves(self, X: np.ndarray) -> np.ndarray:
        """Leaf numbers, int32 [N, trees]. X: float32 [N, F], C-contiguous."""
        parts = [np.array(mx.take(self._leaf, ends)) for ends in self._ends(X)]
        return np.concatenate([np.zeros((0, self._roots.size), np.int32), *parts])

    def totals(self, X: np.ndarray) -> np.ndarray:
        """Sums of scaled leaf values, int64 [N]. X: float32 [N, F], C-contiguous."""
        parts = [np.array(mx.take(self._value, ends).sum(axis=1)) for ends in self._ends(X)]
        return np.concatenate([np.zeros(0, np.int64), *parts])

    def _ends(self, X: np.ndarray) -> Iterator[mx.array]:
        """What `_walk` says of all rows, block by block."""
        rows = max(1, BLOCK // max(1, self._roots.size, self._feature.size))
        for start in range(0, len(X), rows):
            yield self._walk(self._keys(mx.array(X[start : start + rows])))

    def _walk(self, keys: mx.array) -> mx.array:
        """The node where each row's walk ends in each tree, int32 [rows, trees]. keys: int32 [rows, C]."""
        node = mx.broadcast_to(self._roots, (keys.shape[0], self._roots.size))
        for _ in range(self._depth):
            word = mx.take(self._nodes, node)
            key = mx.take_along_axis(keys, (word >> 16 & 0xFFFF).astype(mx.int32), axis=1)
            right = key > (word >> 32).astype(mx.int32)
            node = node + (word & 0xFFFF).astype(mx.int32) + right.astype(mx.int32)
        return node

    def _keys(self, X: mx.array) -> mx.array:
        """Keys of the rows in every column (see Forest), int32 [rows, C]."""
        x = mx.take(X, self._feature, axis=1)
        bits = x.view(mx.int32)
        magnitude = bits & 0x7FFFFFFF
        ordered = mx.where(bits >= 0, magnitude, -magnitude)
        ordered = mx.where(magnitude <= ZERO_BITS, self._zero_key, ordered)
        ordered = mx.where(magnitude > INFINITY_BITS, self._nan_key, ordered)
        if not self._words.size:
            return ordered
        # trunc(x) as LightGBM casts it: NaN, negatives from -1 down and what no set reaches are outside
        inside = (magnitude <= INFINITY_BITS) & (x > -1) & (x < 32 * self._width)
        category = mx.where(inside, x, 0).astype(mx.int32)
        place = mx.maximum(self._set, 0) * self._width + (category >> 5)
        member = inside & ((mx.take(self._words, place) >> (category & 31) & 1) == 1)
        return mx.where(self._set >= 0, mx.where(member, 0, 1), ordered)
