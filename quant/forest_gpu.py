"""Walk a compiled forest with a kernel of our own on a GPU that MLX has: Metal or CUDA, one thread per row and tree.

Keys and sums are those of the portable evaluator. The kernel compares integers and follows indices, no more.
"""

from functools import cache
from typing import Any

import mlx.core as mx

from quant.forest_mlx import Mlx

THREADS = 256  # in a group

# The body is C++ that Metal, CUDA and a plain compiler read alike; the signature is made by MLX from the arrays given.
# CUDA rounds the grid up to whole groups: threads beyond the last pair do nothing.
BODY = """
    if (pair < uint32_t(keys_shape[0]) * uint32_t(roots_shape[0])) {
        uint32_t row = pair / uint32_t(roots_shape[0]);
        uint32_t tree = pair % uint32_t(roots_shape[0]);
        int32_t node = roots[tree];
        int64_t word = nodes[node];
        while ((word & 0xFFFF) != 0) {
            int32_t key = keys[row * uint32_t(keys_shape[1]) + uint32_t(word >> 16 & 0xFFFF)];
            node += int32_t(word & 0xFFFF) + (key > int32_t(word >> 32) ? 1 : 0);
            word = nodes[node];
        }
        ends[pair] = node;
    }
"""
METAL = "uint32_t pair = thread_position_in_grid.x;" + BODY
CUDA = "uint32_t pair = uint32_t(cooperative_groups::this_grid().thread_rank());" + BODY


class Gpu(Mlx):
    """The forest's arrays on MLX's default device, which is a GPU; use it from one thread."""

    def _walk(self, keys: mx.array) -> mx.array:
        rows, trees = keys.shape[0], self._roots.size
        if not keys.size:  # no tree splits
            return mx.broadcast_to(self._roots, (rows, trees))
        (ends,) = kernel()(
            inputs=[keys, self._nodes, self._roots],
            grid=(rows * trees, 1, 1),
            threadgroup=(THREADS, 1, 1),
            output_shapes=[(rows, trees)],
            output_dtypes=[mx.int32],
        )
        return ends


@cache  # compiled once
def kernel() -> Any:
    """The kernel of the GPU that is here, from keys [N, C], nodes [M] and roots [R] to ends int32 [N, R]."""
    made, source = (mx.fast.metal_kernel, METAL) if mx.metal.is_available() else (mx.fast.cuda_kernel, CUDA)
    return made(name="tenor_forest_walk", input_names=["keys", "nodes", "roots"], output_names=["ends"], source=source)
