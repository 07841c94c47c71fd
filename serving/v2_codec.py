"""Inference requests and answers of the Open Inference Protocol v2, in JSON and with binary tensors behind it."""

import json
import zlib
from collections.abc import Sequence
from typing import Any, TypeVar, get_args, get_type_hints

import msgspec
import numpy as np

from serving.problems import Problem, nearest, refuse_fields
from serving.v2_messages import (
    IndexRequest,
    InferRequest,
    InferResponse,
    LoadRequest,
    OutputTensor,
    Strict,
    UnloadRequest,
)
from serving.v2_tensors import matrix, misread, tensor_error

OUTPUT = "predictions"
ABSTAINED = "abstained"  # an output of models that may
ENCODINGS = {b"gzip": 16 + zlib.MAX_WBITS, b"deflate": zlib.MAX_WBITS}

UNKNOWN = "Object contains unknown field `"  # as msgspec says it

S = TypeVar("S", bound=Strict)
_decoders: dict[type, Any] = {
    kind: msgspec.json.Decoder(kind) for kind in (InferRequest, LoadRequest, UnloadRequest, IndexRequest)
}
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
    request = parse(body if size == len(body) else body[:size], InferRequest)
    return request, memoryview(body)[size:]


def parse(text: bytes, kind: type[S]) -> S:
    """A message of the protocol. Problem 400 for what is not JSON, 422 for another message, naming the key at fault."""
    try:
        return _decoders[kind].decode(text)
    except msgspec.ValidationError as error:
        raise _invalid(error, _loads(text), kind) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _with_nan(text, kind)


def rows(
    request: InferRequest, behind: memoryview, factors: tuple[str, ...], most: int, *, abstains: bool = False
) -> np.ndarray:
    """The factors float32 [N, F] of a request, NaN = missing; 422 where its tensors are not the model's.

    abstains: whether the model has a second output, which says of which rows it abstained.
    """
    known = (OUTPUT, ABSTAINED) if abstains else (OUTPUT,)
    wrong = [
        tensor_error(
            ["outputs", at, "name"], f"there is no output {output.name!r}, only {' and '.join(map(repr, known))}"
        )
        for at, output in enumerate(request.outputs)
        if output.name not in known
    ]
    if wrong:
        raise refuse_fields("wrong-tensors", wrong)
    return matrix(request.inputs, behind, factors, most)


def encode(
    request: InferRequest,
    values: np.ndarray,
    model: str,
    version: str,
    told: dict[str, str],
    abstained: np.ndarray | None = None,
) -> tuple[bytes, int | None]:
    """The answer, and the size of its JSON where bytes follow it. values: float64 [N]; told: its parameters.

    abstained: bool [N] of a model that may abstain, None for others. A client that wants the predictions alone still
    hears in the parameters of how many rows they are no signal.
    """
    tensors = [(OUTPUT, "FP64", values.astype("<f8", copy=False))]
    if abstained is not None:
        told = {**told, ABSTAINED: str(int(abstained.sum()))}
        tensors.append((ABSTAINED, "BOOL", abstained))
    if request.outputs:
        wanted = [output.name for output in request.outputs]
        tensors = [tensor for tensor in tensors if tensor[0] in wanted]
    outputs = [OutputTensor(name, [len(held)], kind) for name, kind, held in tensors]
    answer = InferResponse(model, version, outputs, told, request.id)
    if not request.binary:
        for output, (_, _, held) in zip(outputs, tensors, strict=True):
            output.data = held.tolist()
        return _encode(answer), None
    raw = [held.tobytes() for _, _, held in tensors]
    for output, part in zip(outputs, raw, strict=True):
        output.parameters = {"binary_data_size": len(part)}
    head = _encode(answer)
    return b"".join([head, *raw]), len(head)


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


def _with_nan(text: bytes, kind: type[S]) -> S:
    """Python's and NVIDIA's clients write NaN and Infinity, which JSON does not know: read them as they are meant."""
    sent = _loads(text)
    try:
        return msgspec.convert(sent, kind)
    except msgspec.ValidationError as error:
        raise _invalid(error, sent, kind) from error


def _loads(text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Problem(400, "not-json", f"the body is not JSON: {error}") from error


def _invalid(error: msgspec.ValidationError, sent: Any, kind: type[Strict]) -> Problem:
    """msgspec writes "Expected `int`, got `str` - at `$.inputs[0].shape[...]`"."""
    detail, found, where = str(error).rpartition(" - at `$")
    if not found:  # at the top
        detail, where = where, ""
    path = where.rstrip("`").replace("[...]", "").replace("[", ".").replace("]", "")
    location: list[str | int] = [int(part) if part.isdigit() else part for part in path.split(".") if part]
    if not detail.startswith(UNKNOWN):
        return misread(location, detail, sent)
    name, known = detail[len(UNKNOWN) :].rstrip("`"), _keys_at(kind, location)
    near = nearest(name, known)
    hint = f"did you mean {near!r}?" if near else f"known are {', '.join(known)}" if known else "it takes none"
    why = f"no key {name!r} here, which would change nothing; {hint}"
    return refuse_fields("invalid-request", [tensor_error([*location, name], why, near)])


def _keys_at(kind: Any, location: Sequence[str | int]) -> tuple[str, ...]:
    """What the message, or the part of it at a location, may say."""
    for part in location:
        kind = get_args(kind)[0] if isinstance(part, int) else get_type_hints(kind)[part]
    return kind.__struct_fields__
