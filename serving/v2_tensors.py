"""Tensors of the Open Inference Protocol as the matrix that a forest reads."""

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from serving.problems import Faults, Problem, field_error, nearest, refuse_fields
from serving.v2_messages import Tensor

ALL = "factors"  # the name of the tensor [rows, factors]

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
        size = tensor.parameters.binary_data_size
        if size is not None and size > len(behind) - first:
            why = f"binary_data_size is {size}, {len(behind) - first} bytes are left behind the JSON"
            raise _refused(at, "parameters", why)
        arrays.append(_array(at, tensor, None if size is None else behind[first : first + size], factors, most))
        first += size or 0
    if first != len(behind):
        why = f"{len(behind) - first} bytes behind the JSON belong to no input: each says its binary_data_size"
        raise refuse_fields("wrong-tensors", [tensor_error(["inputs"], why)])
    if len(arrays) == 1 and arrays[0].shape[1] == len(factors):
        name = inputs[0].name
        if name != ALL and (name not in factors or len(factors) > 1):
            near = nearest(name, [ALL])
            why = f"no input {name!r}: all factors in one tensor are the input {ALL!r}, of which GET /v2/models/… tells"
            raise _refused(0, "name", why, near)
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
        raise _uneven(at, tensor.data) from error
    if values.size != count or (values.ndim == 2 and len(values) != tensor.shape[0]):
        raise _refused(at, "data", f"has shape {list(values.shape)}, the tensor {tensor.shape}")
    return values.reshape(-1)


def _joined(inputs: Sequence[Tensor], arrays: Sequence[np.ndarray], factors: Sequence[str]) -> np.ndarray:
    """One tensor per factor, side by side in the model's order."""
    given = {tensor.name: at for at, tensor in enumerate(inputs)}
    faults = Faults()

    def wrong(at: int) -> dict[str, Any]:
        name = inputs[at].name
        if name in known:
            if given[name] != at:
                return tensor_error(["inputs", at, "name"], f"factor {name!r} was sent twice")
            why = f"{list(inputs[at].shape)} is not [{len(arrays[0])}]: every factor needs a value for each row"
            return tensor_error(["inputs", at, "shape"], why)
        near = nearest(name, factors)
        hint = f"; did you mean {near!r}?" if near else ""
        return tensor_error(["inputs", at, "name"], f"the model has no factor {name!r}{hint}", near)

    known, shape = set(factors), (len(arrays[0]), 1) if arrays else ()
    faults.each(
        (
            at
            for at, tensor in enumerate(inputs)
            if tensor.name not in known or given[tensor.name] != at or arrays[at].shape != shape
        ),
        wrong,
    )
    if missing := [name for name in factors if name not in given]:
        more = f" and {len(missing) - 10} more" if len(missing) > 10 else ""
        lacking = f"{', '.join(missing[:10])}{more} {'is' if len(missing) == 1 else 'are'} missing"
        why = f"send one tensor [rows, {len(factors)}], or one for each factor: {lacking}"
        faults.add([tensor_error(["inputs"], why)], 1)
    faults.refuse("wrong-tensors")
    return np.concatenate([arrays[given[name]] for name in factors], axis=1)


def _uneven(at: int, data: Sequence[Any]) -> Problem:
    """The refusal of rows of different lengths, or of rows and values mixed."""
    sizes = [f"a list of {len(one)}" if isinstance(one, list) else "a value" for one in data]
    row = next(row for row, size in enumerate(sizes) if size != sizes[0])
    why = f"row {row} is {sizes[row]}, row 0 is {sizes[0]}: send rows of one length, or values alone"
    return refuse_fields("wrong-tensors", [tensor_error(["inputs", at, "data", row], why) | {"row": row}])


def misread(location: Sequence[str | int], detail: str, sent: Any) -> Problem:
    """The refusal of a value of a wrong type at `location` of the request: by row and column where it is a tensor's.

    sent: the request as Python values.
    """
    error = tensor_error(location, detail)
    if len(location) > 3 and location[0] == "inputs" and location[2] == "data":
        row, column = int(location[3]), int(location[4]) if len(location) > 4 else None
        tensor = sent["inputs"][location[1]]
        shape, flat = tensor.get("shape"), not any(isinstance(one, list) for one in tensor["data"])
        if (
            column is None
            and flat
            and isinstance(shape, list)
            and len(shape) == 2
            and type(shape[1]) is int
            and shape[1] > 0
        ):
            row, column = divmod(row, shape[1])
        where = f"row {row}" if column is None else f"row {row}, column {column}"
        error |= {"row": row, "detail": f"{where}: {detail}"} | ({} if column is None else {"column": column})
    return refuse_fields("invalid-request", [error])


def tensor_error(location: Sequence[str | int], detail: str, near: str | None = None) -> dict[str, Any]:
    """A field error without `row`: the number in its place is that of an input."""
    error = field_error(location, detail, near)
    error.pop("row", None)
    return error


def _refused(at: int, key: str, why: str, near: str | None = None) -> Problem:
    return refuse_fields("wrong-tensors", [tensor_error(["inputs", at, key], why, near)])
