"""Messages of the Open Inference Protocol v2. What the fast path reads and writes is msgspec, the rest pydantic."""

from typing import Annotated, Any, Literal

import msgspec
from pydantic import BaseModel

Value = float | None  # JSON has no NaN: null is a missing value


class Strict(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """A part of a request: what it says and we do not know is refused by its name."""


class TensorParameters(Strict, frozen=True):
    """content_type: what MLServer's clients say of numbers and of columns; it is how they are read anyway."""

    binary_data_size: Annotated[int, msgspec.Meta(ge=0)] | None = None
    content_type: Literal["np", "pd"] | None = None


class WantedParameters(Strict, frozen=True):
    """How an output is wanted: as bytes, or in the JSON; None: as the request says."""

    binary_data: bool | None = None
    content_type: Literal["np", "pd"] | None = None


class InferParameters(Strict, frozen=True):
    """How the outputs are wanted that say nothing themselves."""

    binary_data_output: bool = False
    content_type: Literal["np", "pd"] | None = None


class Tensor(Strict, frozen=True):
    """One input: all factors `[N, F]` in the model's order, named `factors`, or one factor `[N]` or `[N, 1]` by name.

    Its values are in `data`, flat or by row, null where missing, or behind the JSON: then `parameters.binary_data_size`
    says how many bytes.
    """

    name: str
    shape: list[Annotated[int, msgspec.Meta(ge=0)]]
    datatype: str
    parameters: TensorParameters = TensorParameters()
    data: list[Value | list[Value]] | None = None


class Wanted(Strict, frozen=True):
    """One output: `predictions`, or `abstained` of a model that may abstain.

    parameters: `binary_data: true` for bytes instead of JSON, which is then the form of all.
    """

    name: str
    parameters: WantedParameters = WantedParameters()


class InferRequest(Strict, frozen=True):
    """Rows to predict. parameters: `binary_data_output: true` for bytes instead of JSON."""

    inputs: list[Tensor]
    id: str | None = None
    parameters: InferParameters = InferParameters()
    outputs: list[Wanted] = []

    @property
    def binary(self) -> bool:
        """Whether the answer is wanted as bytes."""
        told = self.outputs[0].parameters.binary_data if self.outputs else None
        return self.parameters.binary_data_output if told is None else told


class NoParameters(Strict, frozen=True):
    """There are none."""


class LoadRequest(Strict, frozen=True):
    """A bundle is loaded as it was trained: a config or files of the client's are refused."""

    parameters: NoParameters = NoParameters()


class UnloadParameters(Strict, frozen=True):
    """unload_dependents: no model has any."""

    unload_dependents: bool = False


class UnloadRequest(Strict, frozen=True):
    """What clients send to unload."""

    parameters: UnloadParameters = UnloadParameters()


class IndexRequest(Strict, frozen=True):
    """Which models to list."""

    ready: bool = False


class OutputTensor(msgspec.Struct, omit_defaults=True):
    """Predictions float64 `[N]`, in the rows' order, null where the model cannot say; or whether it abstained, bool."""

    name: str
    shape: list[int]
    datatype: str
    parameters: dict[str, int] = {}
    data: list[Value | bool] | None = None


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


class ConfigTensor(BaseModel):
    """One input or output as Triton configures it; dims without the number of rows."""

    name: str
    data_type: str
    dims: list[int]


class ModelConfig(BaseModel):
    """What Triton's clients read of a model before they ask it."""

    name: str
    platform: str
    max_batch_size: int
    input: list[ConfigTensor]
    output: list[ConfigTensor]


class ModelReady(BaseModel):
    """Whether requests to the model are answered."""

    name: str
    ready: bool


class IndexEntry(BaseModel):
    """One model of the repository. reason: why it is not ready."""

    name: str
    version: str
    state: Literal["READY", "LOADING", "UNAVAILABLE"]
    reason: str
