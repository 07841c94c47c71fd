"""Messages of the Open Inference Protocol v2. What the fast path reads and writes is msgspec, the rest pydantic."""

from typing import Annotated, Any, Literal

import msgspec
from pydantic import BaseModel

Value = float | None  # JSON has no NaN: null is a missing value


class Tensor(msgspec.Struct):
    """One input: all factors `[N, F]` in the model's order, named `factors`, or one factor `[N]` or `[N, 1]` by name.

    Its values are in `data`, flat or by row, null where missing, or behind the JSON: then `parameters.binary_data_size`
    says how many bytes.
    """

    name: str
    shape: list[Annotated[int, msgspec.Meta(ge=0)]]
    datatype: str
    parameters: dict[str, Any] = {}
    data: list[Value | list[Value]] | None = None


class Wanted(msgspec.Struct):
    """One output, which there is: `predictions`. parameters: `binary_data: true` for bytes instead of JSON."""

    name: str
    parameters: dict[str, Any] = {}


class InferRequest(msgspec.Struct):
    """Rows to predict. parameters: `binary_data_output: true` for bytes instead of JSON."""

    inputs: list[Tensor]
    id: str | None = None
    parameters: dict[str, Any] = {}
    outputs: list[Wanted] = []

    @property
    def binary(self) -> bool:
        """Whether the answer is wanted as bytes."""
        by_default = self.parameters.get("binary_data_output", False)
        return bool(self.outputs[0].parameters.get("binary_data", by_default) if self.outputs else by_default)


class OutputTensor(msgspec.Struct, omit_defaults=True):
    """Predictions float64 `[N]`, in the rows' order; null where the model cannot say."""

    name: str
    shape: list[int]
    datatype: str
    parameters: dict[str, int] = {}
    data: list[Value] | None = None


class InferResponse(msgspec.Struct, omit_defaults=True):
    """Predictions and who made them: parameters name the bundle and the request, whose row n is signal `request.n`."""

    model_name: str
    model_version: str
    outputs: list[OutputTensor]
    parameters: dict[str, str]
    id: str | None = None


class ServerMetadata(BaseModel):
    """The server and the extensions of the protocol that it speaks."""

    name: str
    version: str
    extensions: list[str]


class TensorMetadata(BaseModel):
    """One input or output; -1 is any number of rows."""

    name: str
    datatype: str
    shape: list[int]
    parameters: dict[str, Any] = {}


class ModelMetadata(BaseModel):
    """A model as clients of the protocol look at it: a horizon, its version the ledger entry that serves."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]
    parameters: dict[str, Any] = {}


class ModelReady(BaseModel):
    """Whether requests to the model are answered."""

    name: str
    ready: bool


class IndexRequest(BaseModel):
    """Which models to list."""

    ready: bool = False


class IndexEntry(BaseModel):
    """One model of the repository. reason: why it is not ready."""

    name: str
    version: str
    state: Literal["READY", "LOADING", "UNAVAILABLE"]
    reason: str
