"""The Open Inference Protocol, spoken by the client that people have: NVIDIA's tritonclient, unchanged."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import lightgbm as lgb
import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from quant.bundle import Bundle
from resources.inference import Inference
from resources.registry import Registry
from serving.options import read
from tests.serving.conftest import Serve


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory, bundles: list[Bundle], serve: Serve) -> Iterator[str]:
    """A service of the first bundle that no test of this file changes."""
    root = tmp_path_factory.mktemp("v2")
    registry = Registry(root)
    registry.write(bundles[0], {})
    registry.promote("5m", bundles[0].id, "first")
    with serve(root) as url:
        with Inference(url) as inference:
            inference.wait_ready(30)
        yield url


@pytest.fixture
def client(address: str) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(address.removeprefix("http://")) as made:
        yield made


@pytest.fixture
def web(address: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=address, trust_env=False) as made:
        yield made


def rows(bundle: Bundle) -> np.ndarray:
    """The golden factors, a missing value among them."""
    X = np.ascontiguousarray(bundle.golden.select(bundle.factors).to_numpy()).astype(np.float32)
    X[3, 1] = np.nan
    return X


def tensor(X: np.ndarray, binary: bool, name: str = "factors", datatype: str = "FP32") -> triton.InferInput:
    made = triton.InferInput(name, list(X.shape), datatype)
    made.set_data_from_numpy(X, binary_data=binary)
    return made


@pytest.mark.parametrize("sent", [True, False], ids=["binary in", "JSON in"])
@pytest.mark.parametrize("answered", [True, False, None], ids=["binary out", "JSON out", "outputs not named"])
def test_tritonclient_gets_the_predictions_of_lightgbm_with_every_bit(
    client: triton.InferenceServerClient, bundles: list[Bundle], sent: bool, answered: bool | None
) -> None:
    X = rows(bundles[0])
    outputs = None if answered is None else [triton.InferRequestedOutput("predictions", binary_data=answered)]
    result = client.infer("5m", [tensor(X, sent)], outputs=outputs, request_id="mine")
    found = result.as_numpy("predictions")
    assert found.tobytes() == bundles[0].predict_rows(X).tobytes()
    expected = lgb.Booster(model_str=bundles[0].text).predict(X.astype(np.float64))
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
    answer = result.get_response()
    assert (answer["model_name"], answer["model_version"], answer["id"]) == ("5m", "1", "mine")
    assert answer["parameters"]["bundle"] == bundles[0].id


@pytest.mark.parametrize("compression", ["gzip", "deflate"])
def test_compressed_requests_are_read(
    client: triton.InferenceServerClient, bundles: list[Bundle], compression: str
) -> None:
    X = rows(bundles[0])
    result = client.infer("5m", [tensor(X, True)], request_compression_algorithm=compression)
    assert result.as_numpy("predictions").tobytes() == bundles[0].predict_rows(X).tobytes()


def test_one_tensor_per_factor_may_come_in_any_order_and_type(
    client: triton.InferenceServerClient, bundles: list[Bundle]
) -> None:
    X = rows(bundles[0])
    inputs = [
        tensor(X[:, at].astype(np.float64), at % 2 == 0, name, "FP64") for at, name in enumerate(bundles[0].factors)
    ]
    result = client.infer("5m", inputs[::-1])
    assert result.as_numpy("predictions").tobytes() == bundles[0].predict_rows(X).tobytes()


def test_tritonclient_finds_the_server_and_its_model_well(
    client: triton.InferenceServerClient, bundles: list[Bundle]
) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("5m")
    assert client.is_model_ready("5m", "1")
    assert not client.is_model_ready("5m", "2")
    assert not client.is_model_ready("5min")
    assert client.get_server_metadata()["name"] == "tenor"
    metadata = client.get_model_metadata("5m", "1")
    assert metadata["versions"] == ["1"]
    assert metadata["inputs"][0]["shape"] == [-1, len(bundles[0].factors)]
    assert metadata["inputs"][0]["parameters"]["factors"] == list(bundles[0].factors)
    assert metadata["outputs"] == [{"name": "predictions", "datatype": "FP64", "shape": [-1], "parameters": {}}]


def test_the_version_asked_for_must_be_the_one_that_serves(
    client: triton.InferenceServerClient, bundles: list[Bundle]
) -> None:
    X = rows(bundles[0])
    assert client.infer("5m", [tensor(X, True)], model_version="1").get_response()["model_version"] == "1"
    with pytest.raises(InferenceServerException, match="version 1 does") as caught:
        client.infer("5m", [tensor(X, True)], model_version="7")
    assert caught.value.status() == "404"


def test_a_refusal_says_the_same_to_clients_of_the_protocol_and_of_problem_documents(
    client: triton.InferenceServerClient, web: httpx.Client, bundles: list[Bundle]
) -> None:
    narrow = rows(bundles[0])[:, :2].copy()
    with pytest.raises(InferenceServerException, match=r"inputs\[0\]\.shape") as caught:
        client.infer("5m", [tensor(narrow, True)])
    assert caught.value.status() == "422"
    with pytest.raises(InferenceServerException, match="did you mean '5m'"):
        client.infer("5min", [tensor(narrow, True)])
    body = {"inputs": [{"name": "factors", "shape": [1, 3], "datatype": "FP32", "data": [1.0, "x", 2.0]}]}
    response = web.post("/v2/models/5m/infer", json=body)
    document = response.json()
    assert response.headers["content-type"] == "application/problem+json"
    assert document["status"] == response.status_code == 422
    assert document["errors"][0]["field"] == "inputs[0].data[1]"
    assert (document["errors"][0]["row"], document["errors"][0]["column"]) == (0, 1)
    assert document["error"] == document["detail"]
    assert document["correlation_id"] == response.headers["x-correlation-id"]


def test_bodies_that_are_no_requests_are_refused(web: httpx.Client) -> None:
    def status(content: bytes, **headers: str) -> int:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        response = web.post("/v2/models/5m/infer", content=content, headers=named)
        assert response.json()["error"]
        return response.status_code

    sent = {"name": "factors", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}
    good = json.dumps({"inputs": [sent]}).encode()
    assert web.post("/v2/models/5m/infer", content=good).status_code == 200
    assert status(b"") == 400
    assert status(b"{") == 400
    assert status(b"\xff" + good) == 400
    assert status(b'{"x":' + b"[" * 1_000_000) == 400
    assert status(b"[]") == 422
    assert status(b"{}") == 422
    assert status(good, inference_header_content_length="many") == 400
    assert status(good, inference_header_content_length=str(len(good) + 1)) == 400
    behind = {"content": good + b"xx", "headers": {"inference-header-content-length": str(len(good))}}
    refused = web.post("/v2/models/5m/infer", **behind)  # type: ignore[arg-type]
    assert refused.status_code == 422
    [error] = refused.json()["errors"]
    assert (error["field"], error["pointer"]) == ("inputs", "#/inputs")
    assert error["detail"].startswith("2 bytes behind the JSON belong to no input")
    assert status(good, content_encoding="br") == 415
    assert status(good, content_encoding="gzip") == 400
    assert status(gzip.compress(good)[:-9], content_encoding="gzip") == 400
    bomb = gzip.compress(b" " * (33 * 2**20))
    assert len(bomb) < 2**20
    assert status(bomb, content_encoding="gzip") == 413


SENT = {"name": "factors", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}


@pytest.mark.parametrize(
    ("body", "field", "near"),
    [
        ({"inputs": [SENT], "foo": 1}, "foo", None),
        ({"inputs": [SENT], "output": []}, "output", "outputs"),
        ({"inputs": [{**SENT, "foo": 1}]}, "inputs[0].foo", None),
        ({"inputs": [{**SENT, "parameters": {"shared_memory_region": "x"}}]},
         "inputs[0].parameters.shared_memory_region", None),
        ({"inputs": [{**SENT, "parameters": {"binary_data_sizes": 4}}]},
         "inputs[0].parameters.binary_data_sizes", "binary_data_size"),
        ({"inputs": [{**SENT, "parameters": {"content_type": "datetime"}}]},
         "inputs[0].parameters.content_type", None),
        ({"inputs": [SENT], "outputs": [{"name": "predictions", "parameters": {"classification": 2}}]},
         "outputs[0].parameters.classification", None),
        ({"inputs": [SENT], "outputs": [{"name": "predictions", "x - at `$.y": 2}]}, "outputs[0].x - at `$.y", None),
        ({"inputs": [SENT], "parameters": {"priority": 2}}, "parameters.priority", None),
        ({"inputs": [SENT], "parameters": {"binary_data_output": "false"}}, "parameters.binary_data_output", None),
    ],
)  # fmt: skip
def test_what_a_request_says_and_we_do_not_honour_is_refused_by_its_name(
    web: httpx.Client, body: dict[str, Any], field: str, near: str | None
) -> None:
    with_nan = json.dumps(body).replace("[1, 2, 3]", "[1, NaN, 3]")  # the other of the two ways JSON is read
    for content in (json.dumps(body), with_nan):
        refused = web.post("/v2/models/5m/infer", content=content)
        assert refused.status_code == 422
        [error] = refused.json()["errors"]
        assert (error["field"], error.get("nearest")) == (field, near)
        assert "row" not in error


def test_requests_as_the_clients_of_mlserver_write_them_are_read(web: httpx.Client) -> None:
    plain = web.post("/v2/models/5m/infer", json={"inputs": [SENT]}).json()["outputs"]
    numpy = {"parameters": {"content_type": "np"}}
    for body in ({"inputs": [{**SENT, **numpy}]}, {"inputs": [SENT], **numpy, "id": "mine", "outputs": []}):
        assert web.post("/v2/models/5m/infer", json=body).json()["outputs"] == plain


def test_tritonclient_is_told_what_it_asked_in_vain(
    client: triton.InferenceServerClient, bundles: list[Bundle]
) -> None:
    sent = [tensor(rows(bundles[0]), True)]
    for asked, told in (
        ({"timeout": 5}, "parameters.timeout: no key 'timeout' here"),
        ({"priority": 1}, "parameters.priority"),
        ({"sequence_id": 7}, "parameters.sequence_"),
        ({"parameters": {"mine": 1}}, "parameters.mine"),
    ):
        with pytest.raises(InferenceServerException, match=told) as caught:
            client.infer("5m", sent, **asked)
        assert caught.value.status() == "422"
    for more, told in (
        ({"config": "{}"}, "parameters.config: no key 'config' here, which would change nothing; it takes none"),
        ({"config": "{}", "files": {"file:1/model.txt": b"x"}}, "parameters"),
    ):
        with pytest.raises(InferenceServerException, match=told):
            client.load_model("5m", **more)
    assert client.get_model_repository_index() == [{"name": "5m", "version": "1", "state": "READY", "reason": ""}]


def test_the_repository_refuses_bodies_that_it_does_not_honour(web: httpx.Client) -> None:
    for path, body, field in (
        ("index", b'{"ready": "yes"}', "ready"),
        ("index", b'{"redy": true}', "redy"),
        ("models/5m/load", b'{"parameter": {}}', "parameter"),
        ("models/5m/unload", b'{"parameters": {"force": true}}', "parameters.force"),
    ):
        refused = web.post(f"/v2/repository/{path}", content=body)
        assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, field)
    assert web.post("/v2/repository/models/5m/unload", content=b"{").status_code == 400
    assert web.get("/models/5m").json()["status"] == "serving"
    assert web.post("/v2/repository/index", json={"ready": True}).json()[0]["name"] == "5m"


def test_the_configuration_of_a_model_agrees_with_its_metadata(
    client: triton.InferenceServerClient, bundles: list[Bundle]
) -> None:
    metadata = client.get_model_metadata("5m")
    for version in ("", "1"):
        config = client.get_model_config("5m", version)
        assert (config["name"], config["platform"]) == (metadata["name"], metadata["platform"])
        assert config["max_batch_size"] == read().limits.rows
        for part, tensors in (("input", metadata["inputs"]), ("output", metadata["outputs"])):
            told = [(one["name"], one["data_type"], [-1, *one["dims"]]) for one in config[part]]
            assert told == [(one["name"], f"TYPE_{one['datatype']}", one["shape"]) for one in tensors]
    assert "model_configuration" in client.get_server_metadata()["extensions"]
    with pytest.raises(InferenceServerException, match="version 1 does"):
        client.get_model_config("5m", "2")


def test_the_repository_is_listed_unloaded_and_loaded(
    tmp_path: Path, registry: Registry, bundles: list[Bundle], serve: Serve
) -> None:
    with serve(tmp_path, horizons=("1h",), follow_seconds=0.05) as url:
        with Inference(url) as inference:
            inference.wait_ready(30)
        with triton.InferenceServerClient(url.removeprefix("http://")) as client:
            states = {entry["name"]: entry["state"] for entry in client.get_model_repository_index()}
            assert states == {"1h": "UNAVAILABLE", "5m": "READY"}
            X = rows(bundles[0])
            client.unload_model("5m")
            client.unload_model("5m", unload_dependents=True)
            assert not client.is_server_ready()
            with pytest.raises(InferenceServerException, match="was unloaded") as caught:
                client.infer("5m", [tensor(X, True)])
            assert caught.value.status() == "503"
            registry.promote("5m", bundles[1].id, "better")
            assert httpx.get(f"{url}/models/5m").json()["status"] == "unloaded"
            client.load_model("5m")
            assert client.infer("5m", [tensor(X, True)]).get_response()["parameters"]["bundle"] == bundles[1].id
            with pytest.raises(InferenceServerException, match="tenor run horizon=1h"):
                client.load_model("1h")


def test_the_documentation_has_the_fast_path_with_its_types(web: httpx.Client) -> None:
    schema = web.get("/openapi.json").raise_for_status().json()
    asked = schema["paths"]["/v2/models/{model}/infer"]["post"]["requestBody"]["content"]["application/json"]
    assert asked["schema"] == {"$ref": "#/components/schemas/InferRequest"}
    assert schema["components"]["schemas"]["InferRequest"]["required"] == ["inputs"]
    assert web.post("/v2/models/5m/versions/1/infer", json=asked["example"]).status_code == 422  # two of three factors
