"""The OpenAPI says all there is to say, and schemathesis asks whatever it can think of: no 5xx, all as declared."""

import copy
import json
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import jsonschema_rs
import polars as pl
import pytest
import schemathesis
from hypothesis import HealthCheck, given, seed, settings, strategies
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from conf.compose import compose
from quant.bundle import Bundle
from quant.grid import Grid
from quant.recipe import calendar_of
from resources.inference import Inference
from resources.lake import Lake
from resources.registry import Registry
from resources.sources import open_source
from serving import data, predict, routes, v2
from serving.access import PROBES
from serving.app import create_app
from serving.keys import ROLES

Serve = Callable[..., AbstractContextManager[str]]

CHECKS = [not_a_server_error, content_type_conformance, response_schema_conformance, status_code_conformance]
MODES = [GenerationMode.POSITIVE, GenerationMode.NEGATIVE]
JSON_TYPE = {"content-type": "application/json"}
LAYOUT = {"interval": "5m", "bars": "source", "calendar": compose(["horizon=5m"])["5m"].calendar.spec()}
KNOWN = {"horizon": "5m", "model": "5m", "symbol": "AAA", "version": "2"}


@pytest.fixture(scope="module")
def url(
    tmp_path_factory: pytest.TempPathFactory, bundles: list[Bundle], bars: pl.DataFrame, serve: Serve
) -> Iterator[str]:
    """A service of its own: what schemathesis sends may load, unload and roll back."""
    root = tmp_path_factory.mktemp("openapi")
    registry = Registry(root)
    for bundle in bundles:
        registry.write(bundle, {})
        registry.promote("5m", bundle.id, "so that there is something to roll back to")
    days = bars["timestamp"].dt.strftime("%Y-%m-%d").alias("partition")
    rows = bars.with_columns(days)
    Lake(f"{root}/lake").write("bars/5m", [rows], rows["partition"].unique().to_list(), LAYOUT)
    with serve(root) as address, Inference(address) as inference:
        inference.wait_ready(30)
        yield address


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return create_app(tmp_path_factory.mktemp("document")).openapi()


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def test_every_route_says_what_it_does_who_may_call_it_and_refuses_with_problem_documents(
    document: dict[str, Any],
) -> None:
    told = {name for name, _ in operations(document)}
    assert {"GET /health", "GET /api/health", "POST /v2/models/{model}/infer", "GET /v2/models/{model}/config"} <= told
    for name, operation in operations(document):
        assert operation["summary"], name
        assert operation["description"], name
        assert operation["tags"], name
        if name.partition(" ")[2] in PROBES:
            assert "security" not in operation
            continue
        assert operation["x-role"] in ROLES, name
        assert {"401", "403", "429"} <= operation["responses"].keys(), name
        for status, told in operation["responses"].items():
            if status.startswith(("4", "5")) and not (name.endswith("/ready") and status == "503"):
                assert "application/problem+json" in told["content"], f"{name} {status}"


def test_every_body_is_typed_and_its_examples_are_what_its_schema_takes(document: dict[str, Any]) -> None:
    bodies = 0
    for name, operation in operations(document):
        if "requestBody" not in operation:
            continue
        [content] = operation["requestBody"]["content"].values()
        validator = jsonschema_rs.Draft202012Validator({**content["schema"], "components": document["components"]})
        found = list(examples(content, document))
        assert found or "repository" in name, f"{name} has no example"
        for example in found:
            validator.validate(example)
        bodies += 1
    assert bodies >= 5


def test_what_the_service_answers_to_it_also_documents(document: dict[str, Any]) -> None:
    pages = {"/", "/docs", "/v2/"}  # for people, and another spelling
    paths = {route.path for part in (routes, predict, v2, data) for route in part.router.routes}  # type: ignore[attr-defined]
    assert {"/health", "/v2", "/predict", "/api/data/{symbol}"} <= paths
    assert paths - pages <= document["paths"].keys()


def examples(content: dict[str, Any], document: dict[str, Any]) -> Iterator[Any]:
    """Examples of a body, and of each kind of body that it may be."""
    if "example" in content:
        yield content["example"]
    for schema in (content["schema"], *content["schema"].get("anyOf", ()), *content["schema"].get("oneOf", ())):
        found = schema
        if "$ref" in schema:
            found = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
        yield from found.get("examples", ())


def test_the_bar_of_the_examples_is_the_next_one_of_the_market_that_a_first_run_makes(document: dict[str, Any]) -> None:
    config = compose(["horizon=5m"])["5m"]
    grid = Grid(calendar_of(config.calendar.spec()), config.interval)
    source = open_source(config.source, grid, datetime.now(UTC))
    _, last = source.span()
    [pushed] = document["components"]["schemas"]["PushBars"]["examples"][0]["bars"]
    [asked] = document["components"]["schemas"]["PredictBars"]["examples"][0]["bars"]
    assert asked == pushed
    stamp = datetime.fromisoformat(pushed["timestamp"])
    assert stamp.replace(tzinfo=None) == grid.slots(last, stamp.date())[len(grid.slots(last, last))].item()
    bars = pl.concat(list(source.bars(stamp - timedelta(days=1), stamp, [pushed["symbol"]])))
    assert pushed["close"] == pytest.approx(bars["close"][-1], rel=0.05)
    written = (Path(__file__).parents[2] / "docs" / "service.md").read_text()
    assert [json.loads(bar) for bar in re.findall(r'\{"symbol": .*?\}', written)] == [pushed]
    assert f"/api/data/{pushed['symbol']}?" in written


def aimed(case: Any) -> Any:
    """The case with names that exist here: made up, they never get past 404."""
    for place in (case.path_parameters, case.query, case.body):
        for name in place if isinstance(place, dict) else ():
            if name in KNOWN:
                place[name] = KNOWN[name]
    return case


def asked(operation: Any, url: str, examples: int) -> None:
    """Send one operation what schemathesis makes of its schema, right and wrong; raises what does not conform."""
    cases = strategies.one_of([operation.as_strategy(generation_mode=mode) for mode in MODES])

    @given(case=strategies.one_of(cases, cases.map(aimed), cases.map(aimed)))
    @settings(max_examples=examples, suppress_health_check=list(HealthCheck), database=None)
    @seed(20261121)
    def ask(case: Any) -> None:
        case.call_and_validate(base_url=url, checks=CHECKS)

    ask()


@pytest.mark.slow
def test_no_request_whatever_breaks_the_service_and_every_answer_is_as_declared(url: str) -> None:
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    operations = [result.ok() for result in schema.get_all_operations()]
    assert {("POST", "/predict"), ("POST", "/models/{horizon}/rollback"), ("GET", "/health")} <= {
        (operation.method.upper(), operation.path) for operation in operations
    }
    failures: dict[str, str] = {}
    for operation in operations:
        try:
            httpx.post(f"{url}/models/5m/load", timeout=30)  # some of them unload it
            asked(operation, url, examples=60)
        except Exception as error:  # all of them are told, not the first alone
            failures[operation.label] = f"{type(error).__name__}: {error}"
    assert not failures, "\n\n".join(f"{label}\n{told}" for label, told in failures.items())


def places(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The path of every value in a JSON document."""
    if path:
        yield path
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(inner, (*path, key))


def changed(body: Any, path: tuple[str | int, ...], value: Any) -> Any:
    """A copy of the document with another value at the path, or without it where the value is `ABSENT`."""
    copied = copy.deepcopy(body)
    inner = copied
    for key in path[:-1]:
        inner = inner[key]
    if value is ABSENT:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return copied


ABSENT = object()
JSON = strategies.recursive(
    strategies.none()
    | strategies.booleans()
    | strategies.integers()
    | strategies.floats(allow_nan=False, allow_infinity=False)
    | strategies.text()
    | strategies.sampled_from(["5m", "AAA", "2023-11-30T20:55:00Z", "0001-01-01T00:00:00+14:00", 1e308, -1, 10**30]),
    lambda inner: strategies.lists(inner, max_size=3) | strategies.dictionaries(strategies.text(), inner, max_size=3),
    max_leaves=5,
)


@pytest.mark.slow
@pytest.mark.parametrize("route", ["/predict", "/predict from bars", "/bars", "/v2/models/5m/infer"])
def test_a_good_request_with_one_thing_changed_is_answered_or_refused_by_a_problem_document(
    url: str, route: str, bundles: list[Bundle]
) -> None:
    with httpx.Client(base_url=url, timeout=30) as client:
        client.post("/models/5m/load")
        good = body_of(route, client, bundles[0])
        path = route.partition(" ")[0]
        assert client.post(path, json=good).status_code == 200, client.post(path, json=good).text
        found = sorted(places(good), key=str)
        seen: set[int] = set()

        @given(place=strategies.sampled_from(found), value=JSON | strategies.just(ABSENT))
        @settings(max_examples=250, suppress_health_check=list(HealthCheck), database=None)
        @seed(20261121)
        def ask(place: tuple[str | int, ...], value: Any) -> None:
            reply = client.post(path, content=json.dumps(changed(good, place, value)), headers=JSON_TYPE)
            seen.add(reply.status_code)
            assert reply.status_code < 500, f"{place} = {value!r}: {reply.text}"
            if reply.status_code >= 400:
                assert reply.headers["content-type"] == "application/problem+json"
                assert reply.json()["detail"]

        ask()
        assert {200, 422} <= seen
        assert client.post(path, json=good).status_code == 200


def body_of(route: str, client: httpx.Client, bundle: Bundle) -> dict[str, Any]:
    """A body that the route accepts."""
    rows = client.get("/models/5m/example", params={"section": "true"}).json()
    if route == "/predict":
        return rows
    if route == "/v2/models/5m/infer":
        values = [value for row in rows["rows"] for value in row["factors"].values()]
        tensor = {"name": "factors", "shape": [len(rows["rows"]), len(bundle.factors)], "datatype": "FP32"}
        return {"id": "mine", "inputs": [{**tensor, "data": values}]}
    stamps = bundle.golden_bars["timestamp"].unique().sort()[-bundle.recipe.lookback - 1 :]
    golden = bundle.golden_bars.filter(pl.col("timestamp").is_in(stamps.implode())).drop("known_at", "source")
    bars = golden.with_columns(pl.col("timestamp").dt.strftime("%Y-%m-%dT%H:%M:%SZ")).to_dicts()
    if route == "/bars":
        made = {"price_factor", "volume_factor"}  # by the bars step, of what its source says
        return {"horizon": "5m", "bars": [{key: bar[key] for key in bar if key not in made} for bar in bars[-4:]]}
    return {"horizon": "5m", "bars": bars}
