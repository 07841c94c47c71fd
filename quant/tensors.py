"""Named arrays as one safetensors file in memory: a length, a JSON header, the bytes. Nothing is pickled.

The format is https://huggingface.co/docs/safetensors; any reader of it (mlx included) opens these files.
"""

import json
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

_NAMES = {"F32": np.float32, "F64": np.float64, "I32": np.int32, "I64": np.int64, "U8": np.uint8}
_CODES = {np.dtype(dtype): code for code, dtype in _NAMES.items()}


class TensorsError(ValueError):
    """Bytes that are not a whole safetensors file."""


def dumps(arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> bytes:
    """Arrays (little-endian) and JSON-serialisable metadata as the bytes of a safetensors file."""
    header: dict[str, Any] = {"__metadata__": {key: json.dumps(value) for key, value in meta.items()}}
    end = 0
    for name, array in arrays.items():
        start, end = end, end + array.nbytes
        header[name] = {
            "dtype": _CODES[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # readers map the data: it starts on eight bytes
    return b"".join([struct.pack("<Q", len(text)), text, *(array.tobytes() for array in arrays.values())])


def loads(data: bytes) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read what `dumps` wrote: (arrays, metadata). TensorsError where the bytes are cut off or garbled."""
    try:
        (length,) = struct.unpack_from("<Q", data)
        header = json.loads(data[8 : 8 + length])
        meta = {key: json.loads(value) for key, value in header.pop("__metadata__", {}).items()}
        arrays = {}
        for name, entry in header.items():
            start, end = entry["data_offsets"]
            block = data[8 + length + start : 8 + length + end]
            arrays[name] = np.frombuffer(block, _NAMES[entry["dtype"]]).reshape(entry["shape"])
    except (struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise TensorsError(f"not a whole safetensors file: {error}") from error
    return arrays, meta
