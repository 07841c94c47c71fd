"""Tensors of the Open Inference Protocol as the matrix that a forest reads."""

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from serving.problems import Problem, field_error, nearest, refuse_fields
from serving.v2_messages import Tensor

TYPES = {
    "FP16": "<f2", "FP32": "<f4", "FP64": "<f8", "BOOL": "|b1",
    "INT8": "|i1", "INT16": "<i2", "INT32": "<i4", "INT64": "<i8",
    "UINT8": "|u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8",
}  # fmt: skip


def matrix(inputs: Sequence[Tensor], behind: memoryview, factors: Sequence[str], most: int) -> np.ndarray:
    """float32 [N, F], its own memory, of one tensor [N, F] or of one tensor per factor.

    behind: the binary values in the inputs' order; most: rows of one request. Raises a 422 that names the input.
    """
    arrays, first = [], 0
    for at, tensor in enumerate(inputs):
        size = tensor.parameters.get("binary_data_size")
        if size is not None and (type(size) is not int or not 0 <= size <= len(behind) - first):
            why = f"binary_data_size is {size}, {len(behind) - first} bytes are left behind the JSON"
            raise _refused(at, "parameters", why)
        arrays.append(_array(at, tensor, None if size is None else behind[first : first + size], factors, most))
        first += size or 0
    if first != len(behind):
        raise Problem(422, "wrong-tensors", f"{len(behind) - first} bytes behind the JSON belong to no input")
    if len(arrays) == 1 and arrays[0].shape[1] == len(factors):
        return arrays[0]
    return _joined(inputs, arrays, factors)


def _array(at: int, tensor: Tensor, raw: memoryview | None, factors: Sequence[str], most: int) -> np.ndarray:
    """One tensor as float32 [N, F] or [N, 1]."""
    kind = TYPES.get(tensor.datatype)
    if kind is None:
        near = nearest(tensor.datatype, TYPES)
        raise _refused(at, "datatype", f"{tensor.datatype!r} is no number type: {', '.join(TYPES)}", near)
    shape = tensor.shape
    if len(shape) not in (1, 2) or (len(shape) == 2 and shape[1] not in (1, len(factors))):
        why = f"{shape} is neither [rows, {len(factors)}], all factors, nor [rows] or [rows, 1], one of them"
        raise _refused(at, "shape", why)
    if not 0 < shape[0] <= most:
        raise _refused(at, "shape", f"{shape[0]:,} rows: send 1 to {most:,} in one request")
    count = prod(shape)
    if raw is not None:
        if tensor.data is not None:
            raise _refused(at, "data", "the values are in the JSON and behind it: send them once")
        if len(raw) != count * np.dtype(kind).itemsize:
            why = f"{len(raw)} bytes are not {shape} of {tensor.datatype}"
            raise _refused(at, "parameters", why)
        values = np.frombuffer(raw, kind)
    else:
        values = _listed(at, tensor, count)
    with np.errstate(over="ignore"):  # beyond float32 is infinite: on the same side of every threshold
        # A copy in any case: rows are read as integers too, which a stray offset in the body would forbid.
        return np.array(values, np.float32).reshape(shape[0], -1)


def _listed(at: int, tensor: Tensor, count: int) -> np.ndarray:
    """The values of `data`, flat or by row, float64 [count]."""
    if tensor.data is None:
        raise _refused(at, "data", "has no values: send data, or binary_data_size and bytes behind the JSON")
    try:
        values = np.array(tensor.data, np.float64)  # None becomes NaN
    except ValueError as error:
        raise _refused(at, "data", "has rows of different lengths, or rows and values mixed") from error
    if values.size != count or (values.ndim == 2 and len(values) != tensor.shape[0]):
        raise _refused(at, "data", f"has shape {list(values.shape)}, the tensor {tensor.shape}")
    return values.reshape(-1)


def _joined(inputs: Sequence[Tensor], arrays: Sequence[np.ndarray], factors: Sequence[str]) -> np.ndarray:
    """One tensor per factor, side by side in the model's order."""
    given = {tensor.name: at for at, tensor in enumerate(inputs)}
    errors = []
    for at, tensor in enumerate(inputs):
        near = nearest(tensor.name, factors)
        if tensor.name not in factors:
            hint = f"; did you mean {near!r}?" if near else ""
            errors.append(tensor_error(["inputs", at, "name"], f"the model has no factor {tensor.name!r}{hint}", near))
        elif given[tensor.name] != at:
            errors.append(tensor_error(["inputs", at, "name"], f"factor {tensor.name!r} was sent twice"))
        elif arrays[at].shape != (len(arrays[0]), 1):
            why = f"{list(inputs[at].shape)} is not [{len(arrays[0])}]: every factor needs a value for each row"
            errors.append(tensor_error(["inputs", at, "shape"], why))
    if missing := [name for name in factors if name not in given]:
        why = f"send one tensor [rows, {len(factors)}], or one for each factor: {', '.join(missing[:10])} are missing"
        errors.append(tensor_error(["inputs"], why))
    if errors:
        raise refuse_fields("wrong-tensors", errors)
    return np.concatenate([arrays[given[name]] for name in factors], axis=1)


def tensor_error(location: Sequence[str | int], detail: str, near: str | None = None) -> dict[str, Any]:
    """A field error without `row`: the number in its place is that of an input."""
    error = field_error(location, detail, near)
    error.pop("row", None)
    return error


def _refused(at: int, key: str, why: str, near: str | None = None) -> Problem:
    return refuse_fields("wrong-tensors", [tensor_error(["inputs", at, key], why, near)])
