"""Inference requests and answers of the Open Inference Protocol v2, in JSON and with binary tensors behind it."""

import json
import zlib
from typing import Any

import msgspec
import numpy as np

from serving.problems import Problem, refuse_fields
from serving.v2_messages import InferRequest, InferResponse, OutputTensor
from serving.v2_tensors import matrix, misread, tensor_error

OUTPUT = "predictions"
ENCODINGS = {b"gzip": 16 + zlib.MAX_WBITS, b"deflate": zlib.MAX_WBITS}

_decoder = msgspec.json.Decoder(InferRequest)
_encode = msgspec.json.Encoder().encode


def decode(body: bytes, json_size: bytes | None) -> tuple[InferRequest, memoryview]:
    """The request and the bytes behind its JSON. json_size: header inference-header-content-length, None: all is JSON.

    Raises Problem 400 for what is not JSON, 422 for what is not an inference request.
    """
    size = len(body)
    if json_size is not None:
        if not json_size.isdigit() or int(json_size) > size:
            why = f"inference-header-content-length is {json_size.decode('latin-1')!r}, the body has {size} bytes"
            raise Problem(400, "not-json", why)
        size = int(json_size)
    text = body if size == len(body) else body[:size]
    try:
        request = _decoder.decode(text)
    except msgspec.ValidationError as error:
        raise _invalid(error, _loads(text)) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        request = _with_nan(text)
    return request, memoryview(body)[size:]


def rows(request: InferRequest, behind: memoryview, factors: tuple[str, ...], most: int) -> np.ndarray:
    """The factors float32 [N, F] of a request, NaN = missing; 422 where its tensors are not the model's."""
    wrong = [
        tensor_error(["outputs", at, "name"], f"there is no output {output.name!r}, only {OUTPUT!r}")
        for at, output in enumerate(request.outputs)
        if output.name != OUTPUT
    ]
    if wrong:
        raise refuse_fields("wrong-tensors", wrong)
    return matrix(request.inputs, behind, factors, most)


def encode(
    request: InferRequest, values: np.ndarray, model: str, version: str, told: dict[str, str]
) -> tuple[bytes, int | None]:
    """The answer, and the size of its JSON where bytes follow it. values: float64 [N]; told: its parameters."""
    output = OutputTensor(OUTPUT, [len(values)], "FP64")
    answer = InferResponse(model, version, [output], told, request.id)
    if not request.binary:
        output.data = values.tolist()
        return _encode(answer), None
    raw = values.astype("<f8", copy=False).tobytes()
    output.parameters = {"binary_data_size": len(raw)}
    head = _encode(answer)
    return head + raw, len(head)


def decompress(body: bytes, encoding: bytes, limit: int) -> bytes:
    """A gzip or deflate body as it was; Problem 400 where it is damaged, 413 beyond the limit, 415 for others."""
    if encoding not in ENCODINGS:
        raise Problem(415, "unknown-encoding", f"content-encoding {encoding.decode('latin-1')!r}: send gzip or deflate")
    machine = zlib.decompressobj(ENCODINGS[encoding])
    try:
        plain = machine.decompress(body, limit + 1)
    except zlib.error as error:
        raise Problem(400, "not-compressed", f"the body is not {encoding.decode()}: {error}") from error
    if len(plain) > limit:
        raise Problem(413, "body-too-large", f"the body is larger than {limit / 2**20:g} MiB", limit_bytes=limit)
    if not machine.eof:
        raise Problem(400, "not-compressed", f"the {encoding.decode()} body ends too early")
    return plain


def _with_nan(text: bytes) -> InferRequest:
    """Python's and NVIDIA's clients write NaN and Infinity, which JSON does not know: read them as they are meant."""
    sent = _loads(text)
    try:
        return msgspec.convert(sent, InferRequest)
    except msgspec.ValidationError as error:
        raise _invalid(error, sent) from error


def _loads(text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Problem(400, "not-json", f"the body is not JSON: {error}") from error


def _invalid(error: msgspec.ValidationError, sent: Any) -> Problem:
    """msgspec writes "Expected `int`, got `str` - at `$.inputs[0].shape[...]`"."""
    detail, _, where = str(error).partition(" - at `$")
    path = where.rstrip("`").replace("[...]", "").replace("[", ".").replace("]", "")
    location: list[str | int] = [int(part) if part.isdigit() else part for part in path.split(".") if part]
    return misread(location, detail, sent)
