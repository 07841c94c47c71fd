"""The GPU kernel's own source, compiled for the CPU: it must find LightGBM's leaves before any GPU runs it.

On a machine with a GPU, test_forest.py asks the real kernel as well.
"""

import ctypes
import shutil
import subprocess

import lightgbm as lgb
import mlx.core as mx
import numpy as np
import pytest

from quant import forest, forest_gpu
from quant.forest_gpu import BODY, CUDA, METAL, Gpu
from tests.quant.forests import adversarial, train

# What MLX writes around the body, with a loop in place of the grid.
SOURCE = """
#include <cstdint>
extern "C" void walk(
    uint32_t threads, const int32_t* keys, const int32_t* keys_shape, const int64_t* nodes,
    const int32_t* roots, const int32_t* roots_shape, int32_t* ends) {
  for (uint32_t pair = 0; pair < threads; ++pair) {%s}
}
"""
# The same for CUDA, with the types that MLX declares.
SOURCE_CUDA = """
#include <cstdint>
#include <cooperative_groups.h>
namespace mlx::core::cu {
struct Shape { int32_t sizes[10]; __device__ int32_t operator[](size_t axis) const { return sizes[axis]; } };
__global__ void custom_kernel_walk(
    const int32_t* keys, const __grid_constant__ Shape keys_shape, const int64_t* nodes,
    const int32_t* roots, const __grid_constant__ Shape roots_shape, int32_t* ends) {%s}
}
"""
INT32, INT64 = (np.ctypeslib.ndpointer(dtype, flags="C_CONTIGUOUS") for dtype in (np.int32, np.int64))


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """A stand-in for what `kernel()` returns: called like it, it runs the body for a grid of whole groups."""
    if shutil.which("g++") is None:
        pytest.skip("no C++ compiler here")
    folder = tmp_path_factory.mktemp("kernel")
    (folder / "walk.cpp").write_text(SOURCE % BODY)
    flags = ["-O1", "-fsanitize=undefined", "-fno-sanitize-recover", "-static-libubsan", "-Wall", "-Wextra", "-Werror"]
    subprocess.run(["g++", "-shared", "-fPIC", *flags, "-o", "walk.so", "walk.cpp"], cwd=folder, check=True)
    library = ctypes.CDLL(str(folder / "walk.so"))
    library.walk.argtypes = [ctypes.c_uint32, INT32, INT32, INT64, INT32, INT32, INT32]

    def kernel(inputs, grid, threadgroup, output_shapes, output_dtypes):
        keys, nodes, roots = map(np.array, inputs)
        assert (keys.dtype, nodes.dtype, roots.dtype, output_dtypes) == (np.int32, np.int64, np.int32, [mx.int32])
        assert grid == (keys.shape[0] * len(roots), 1, 1)
        group = threadgroup[0]
        threads = -(-grid[0] // group) * group  # CUDA starts whole groups
        ends = np.full(threads, -1, np.int32)
        shapes = [np.array(array.shape, np.int32) for array in (keys, roots)]
        library.walk(threads, keys, shapes[0], nodes, roots, shapes[1], ends)
        assert (ends[grid[0] :] == -1).all(), "a thread beyond the last pair wrote"
        return [mx.array(ends[: grid[0]].reshape(output_shapes[0]))]

    return kernel


@pytest.mark.parametrize(
    ("params", "categories"),
    [
        ({"objective": "regression", "num_leaves": 31}, False),
        ({"objective": "regression", "num_leaves": 63, "zero_as_missing": True}, False),
        ({"objective": "binary", "num_leaves": 31, "use_missing": False}, True),
        ({"objective": "lambdarank", "num_leaves": 255, "min_data_in_leaf": 1}, True),
    ],
    ids=["NaN missing", "zero missing", "categories", "wide"],
)
def test_the_kernels_body_finds_every_leaf_and_the_same_bits(compiled, monkeypatch, params, categories):
    monkeypatch.setattr(forest_gpu, "kernel", lambda: compiled)
    monkeypatch.setattr("quant.forest_mlx.BLOCK", 7_001)  # several launches, none a whole number of groups
    booster = train(params, 50, categories=categories)
    X, made = adversarial(booster, 1_003), forest.compile(booster)
    gpu = Gpu(made)
    np.testing.assert_array_equal(gpu.leaves(X), booster.predict(X, pred_leaf=True))
    assert gpu.totals(X).tobytes() == made.evaluator("native").totals(X).tobytes()


def test_a_forest_that_never_splits_needs_no_kernel(monkeypatch):
    monkeypatch.setattr(forest_gpu, "kernel", lambda: pytest.fail("there is nothing to walk"))
    X = np.random.default_rng(0).normal(size=(100, 2)).astype(np.float32)
    made = forest.compile(lgb.train({"objective": "regression", "verbose": -1}, lgb.Dataset(X, np.full(100, 2.5)), 3))
    assert Gpu(made).totals(X).tobytes() == made.evaluator("native").totals(X).tobytes()


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no CUDA compiler here")
def test_the_cuda_source_compiles_without_a_warning(tmp_path):
    (tmp_path / "walk.cu").write_text(SOURCE_CUDA % CUDA)
    nvcc = ["nvcc", "-std=c++17", "-arch=sm_80", "-Werror", "all-warnings", "-ptx", "walk.cu", "-o", "walk.ptx"]
    subprocess.run(nvcc, cwd=tmp_path, check=True)
    assert ".entry" in (tmp_path / "walk.ptx").read_text()


def test_both_sources_are_the_same_body_with_their_own_thread_number():
    assert METAL == "uint32_t pair = thread_position_in_grid.x;" + BODY  # by this name MLX declares it
    assert CUDA == "uint32_t pair = uint32_t(cooperative_groups::this_grid().thread_rank());" + BODY
    assert all(name in BODY for name in ("keys_shape", "roots_shape"))  # MLX passes the shapes that a source names
