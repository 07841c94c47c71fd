"""The Open Inference Protocol v2 but for `infer`: health, metadata, and the repository, which is the registry."""

from typing import Any

from fastapi import APIRouter, Request, Response

from serving.bodies import whole
from serving.depends import Serving
from serving.messages import Live, Ready
from serving.predictor import Predictor
from serving.predictors import Predictors
from serving.problems import documented
from serving.v2_codec import ABSTAINED, OUTPUT, parse
from serving.v2_infer import wrong_version
from serving.v2_messages import (
    ConfigTensor,
    IndexEntry,
    IndexRequest,
    LoadRequest,
    ModelConfig,
    ModelMetadata,
    ModelReady,
    ServerMetadata,
    Strict,
    TensorMetadata,
    UnloadRequest,
)
from serving.v2_tensors import ALL

EXTENSIONS = ["binary_tensor_data", "model_configuration", "model_repository"]
PLATFORM = "tenor_lightgbm"


def _taking(kind: type[Strict]) -> dict[str, Any]:
    """`openapi_extra` of a route that reads its body itself: clients send it without a content type, or not at all."""
    schema = {"$ref": f"#/components/schemas/{kind.__name__}"}
    return {"requestBody": {"required": False, "content": {"application/json": {"schema": schema}}}}


router = APIRouter(prefix="/v2", tags=["open inference protocol"])


@router.get("/health/live")
async def live() -> Live:
    """200 while the process lives."""
    return Live(live=True)


@router.get("/health/ready", responses={503: {"model": Ready}})
async def ready(predictors: Serving, response: Response) -> Ready:
    """200 once the loads of the start are through and at least one bundle serves, else 503."""
    if not predictors.ready():
        response.status_code = 503
    return Ready(ready=predictors.ready())


@router.get("")
@router.get("/", include_in_schema=False)
async def server(request: Request) -> ServerMetadata:
    """The server and the extensions that it speaks."""
    return ServerMetadata(name="tenor", version=request.app.version, extensions=EXTENSIONS)


@router.get("/models/{model}", responses=documented(404, 503))
@router.get("/models/{model}/versions/{version}", responses=documented(404, 503))
async def metadata(model: str, predictors: Serving, version: str | None = None) -> ModelMetadata:
    """Inputs and outputs of what serves a horizon."""
    predictor = _of(predictors.serving(model), model, version)
    factors, abstains = list(predictor.bundle.factors), predictor.bundle.abstains_above is not None
    told = {"factors": factors, "or": "one tensor [rows] for each factor, named after it"}
    return ModelMetadata(
        name=model,
        versions=[str(predictor.entry.number)],
        platform=PLATFORM,
        inputs=[TensorMetadata(name=ALL, datatype="FP32", shape=[-1, len(factors)], parameters=told)],
        outputs=[
            TensorMetadata(name=OUTPUT, datatype="FP64", shape=[-1]),
            *([TensorMetadata(name=ABSTAINED, datatype="BOOL", shape=[-1])] if abstains else []),
        ],
        parameters={"bundle": predictor.bundle.id},
    )


@router.get("/models/{model}/config", responses=documented(404, 503))
@router.get("/models/{model}/versions/{version}/config", responses=documented(404, 503))
async def config(model: str, request: Request, predictors: Serving, version: str | None = None) -> ModelConfig:
    """What Triton's clients read of a model before they ask it: its tensors, and how many rows one request may have."""
    predictor = _of(predictors.serving(model), model, version)
    return ModelConfig(
        name=model,
        platform=PLATFORM,
        max_batch_size=request.app.state.options.limits.rows,
        input=[ConfigTensor(name=ALL, data_type="TYPE_FP32", dims=[len(predictor.bundle.factors)])],
        output=[ConfigTensor(name=OUTPUT, data_type="TYPE_FP64", dims=[])],
    )


@router.get("/models/{model}/ready", responses={503: {"model": ModelReady}, **documented(404)})
@router.get("/models/{model}/versions/{version}/ready", responses={503: {"model": ModelReady}, **documented(404)})
async def model_ready(model: str, predictors: Serving, response: Response, version: str | None = None) -> ModelReady:
    """200 where a bundle serves the horizon, else 503; 404 for a version that does not serve."""
    predictor = predictors.get(model)
    if predictor is None:
        response.status_code = 503
    else:
        _of(predictor, model, version)
    return ModelReady(name=model, ready=predictor is not None)


@router.post("/repository/index", responses=documented(400, 422), openapi_extra=_taking(IndexRequest))
async def index(request: Request, predictors: Serving) -> list[IndexEntry]:
    """Every horizon, with what serves it."""
    asked = parse(await whole(request) or b"{}", IndexRequest)
    entries = [_entry(predictors, horizon) for horizon in predictors.horizons()]
    return [entry for entry in entries if entry.state == "READY" or not asked.ready]


@router.post(
    "/repository/models/{model}/load", responses=documented(400, 404, 409, 422), openapi_extra=_taking(LoadRequest)
)
async def load(model: str, request: Request, predictors: Serving) -> ModelReady:
    """Serve what the promotion ledger says, and follow it; idempotent. What serves keeps serving if that fails.

    A bundle is loaded as it was trained: a config or files of the client's are refused.
    """
    parse(await whole(request) or b"{}", LoadRequest)
    await predictors.load(model, by=request.state.caller)
    return ModelReady(name=model, ready=True)


@router.post(
    "/repository/models/{model}/unload", responses=documented(400, 404, 422), openapi_extra=_taking(UnloadRequest)
)
async def unload(model: str, request: Request, predictors: Serving) -> ModelReady:
    """Stop serving a horizon in this process until it is loaded again; requests in flight are answered."""
    parse(await whole(request) or b"{}", UnloadRequest)
    await predictors.unload(model, by=request.state.caller)
    return ModelReady(name=model, ready=False)


def _of(predictor: Predictor, model: str, version: str | None) -> Predictor:
    """The predictor, where the version is its own."""
    serves = str(predictor.entry.number)
    if version is not None and version != serves:
        raise wrong_version(model, version, serves)
    return predictor


def _entry(predictors: Predictors, horizon: str) -> IndexEntry:
    predictor, status = predictors.get(horizon), predictors.status(horizon)
    if predictor is not None:
        return IndexEntry(name=horizon, version=str(predictor.entry.number), state="READY", reason="")
    refusal = predictors.refusals.get(horizon)
    state = "LOADING" if status == "loading" else "UNAVAILABLE"
    return IndexEntry(name=horizon, version="", state=state, reason=refusal.why if refusal else status)  # type: ignore[arg-type]
