"""What a query or a tensor says and the service does not know is refused by its name, never ignored."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from quant.bundle import Bundle
from resources.inference import Inference
from resources.registry import Registry
from serving.app import create_app
from tests.serving.conftest import Serve


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory, bundles: list[Bundle], serve: Serve) -> Iterator[httpx.Client]:
    """A service of the first bundle that no test of this file changes."""
    root = tmp_path_factory.mktemp("query")
    registry = Registry(root)
    registry.write(bundles[0], {})
    registry.promote("5m", bundles[0].id, "first")
    with serve(root) as url, httpx.Client(base_url=url, timeout=30) as made:
        with Inference(url) as inference:
            inference.wait_ready(30)
        for _ in range(300):  # the live state, which comes a little later
            if made.get("/signals/5m").status_code == 200:
                break
        yield made


def routes() -> list[tuple[str, str]]:
    app = create_app(Path("/nowhere"))
    return [(method, path) for path, found in app.openapi()["paths"].items() for method in found]


def errors(answer: httpx.Response) -> list[dict[str, Any]]:
    assert answer.status_code == 422, answer.text
    return answer.json()["errors"]


@pytest.mark.parametrize(("method", "path"), routes())
def test_every_route_refuses_a_parameter_that_it_does_not_know(client: httpx.Client, method: str, path: str) -> None:
    path = path.format(horizon="5m", model="5m", version="1", symbol="AAA")
    needed = {"horizon": "5m"} if path.startswith(("/api/data", "/api/features")) else {}
    found = errors(client.request(method, path, params={**needed, "whatever": "1"}))
    assert [error["field"] for error in found] == ["query.whatever"]
    assert re.fullmatch(r"this route has no parameter 'whatever'; it takes [a-z_, ]+", found[0]["detail"])


@pytest.mark.parametrize(
    ("path", "given", "meant"),
    [
        ("/signals/5m", "symbl", "symbol"),
        ("/api/data/AAA?horizon=5m", "limt", "limit"),
        ("/api/features/AAA?horizon=5m", "column", "columns"),
        ("/models/5m/example", "sektion", "section"),
    ],
)
def test_the_nearest_parameter_is_named(client: httpx.Client, path: str, given: str, meant: str) -> None:
    [error] = errors(client.get(f"{path}{'&' if '?' in path else '?'}{given}=1"))
    assert (error["field"], error["nearest"]) == (f"query.{given}", meant)


def test_the_stream_refuses_them_too(client: httpx.Client) -> None:
    url = str(client.base_url).replace("http", "ws")
    with pytest.raises(InvalidStatus) as caught, connect(f"{url}/stream?symbl=AAA"):
        pass
    assert caught.value.response.status_code == 422
    assert json.loads(caught.value.response.body)["errors"][0]["nearest"] == "symbol"


def test_a_limit_and_columns_that_are_wrong_are_named(client: httpx.Client) -> None:
    [error] = errors(client.get("/api/data/AAA?horizon=5m&limit=1000000"))
    assert error["field"] == "query.limit"
    assert "5,000" in error["detail"]
    wrong = errors(client.get("/api/data/AAA?horizon=5m&columns=close&columns=clos&columns=opn"))
    assert [(error["field"], error["nearest"]) for error in wrong] == [
        ("query.columns", "close"),
        ("query.columns", "open"),
    ]


def tensor(data: Any, shape: list[int], name: str = "factors") -> dict[str, Any]:
    return {"inputs": [{"name": name, "shape": shape, "datatype": "FP32", "data": data}]}


@pytest.mark.parametrize(
    ("data", "field", "row", "column"),
    [
        ([1.0, 2.0, 3.0, 4.0, "x", 6.0], "inputs[0].data[4]", 1, 1),
        ([[1.0, 2.0, 3.0], [4.0, 5.0, True]], "inputs[0].data[1][2]", 1, 2),
        ([[1.0, 2.0, 3.0], "x"], "inputs[0].data[1]", 1, None),
        ([[1.0, 2.0, 3.0], [4.0, 5.0]], "inputs[0].data[1]", 1, None),
        ([1.0, [2.0], 3.0], "inputs[0].data[1]", 1, None),
    ],
)
def test_a_value_that_is_no_number_is_named_by_row_and_column(
    client: httpx.Client, data: list[Any], field: str, row: int, column: int | None
) -> None:
    [error] = errors(client.post("/v2/models/5m/infer", json=tensor(data, [2, 3])))
    assert (error["field"], error["row"], error.get("column")) == (field, row, column)


def test_factors_without_a_tensor_are_named(client: httpx.Client, bundles: list[Bundle]) -> None:
    first, second, third = bundles[0].factors
    sent = {"shape": [1], "datatype": "FP32", "data": [1.0]}
    for given, told in (([first, second], f"{third} is missing"), ([first], f"{second}, {third} are missing")):
        body = {"inputs": [{"name": name, **sent} for name in given]}
        [error] = errors(client.post("/v2/models/5m/infer", json=body))
        assert error["field"] == "inputs"
        assert error["detail"].endswith(told)


def test_a_tensor_of_all_factors_has_the_name_that_the_metadata_gives(client: httpx.Client) -> None:
    [told] = client.get("/v2/models/5m").json()["inputs"]
    good = client.post("/v2/models/5m/infer", json=tensor([1.0, 2.0, 3.0], [1, 3], told["name"]))
    assert good.status_code == 200
    [error] = errors(client.post("/v2/models/5m/infer", json=tensor([1.0, 2.0, 3.0], [1, 3], "factor")))
    assert (error["field"], error["nearest"]) == ("inputs[0].name", "factors")


def test_a_body_that_ends_behind_its_first_wrong_value_is_no_json(client: httpx.Client) -> None:
    assert client.post("/v2/models/5m/infer", content=b'{"inputs": [{"name": 1, ').status_code == 400
