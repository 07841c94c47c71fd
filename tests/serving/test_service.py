"""The service as its operators see it: health, models, logs, documentation, and the process itself."""

import json
import os
import signal
import socket
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from quant.bundle import Bundle
from resources.clock import VARIABLE, FileClock
from resources.inference import Inference
from resources.registry import Registry
from serving.app import create_app

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("path", ["/health", "/api/health"])
def test_health_tells_what_serves_and_how_old_it_is(
    client: httpx.Client, bundles: list[Bundle], tmp_path: Path, path: str
) -> None:
    health = client.get(path).raise_for_status().json()
    assert (health["status"], health["store"]) == ("serving", str(tmp_path.resolve()))
    horizon = health["horizons"]["5m"]
    assert (horizon["bundle"], horizon["number"], horizon["status"]) == (bundles[0].id, 1, "serving")
    assert 0 < horizon["model_age_seconds"] < 300
    assert horizon["since"].endswith("Z")


@pytest.mark.parametrize("path", ["/ready", "/v2/health/ready", "/v2/health/live"])
def test_a_service_with_a_bundle_is_ready(client: httpx.Client, path: str) -> None:
    assert client.get(path).status_code == 200


def test_models_tell_what_a_client_must_send(client: httpx.Client, bundles: list[Bundle]) -> None:
    [model] = client.get("/models").raise_for_status().json()
    assert model == client.get("/models/5m").json()
    assert model["factors"] == list(bundles[0].factors)
    assert model["look_back"] == bundles[0].recipe.lookback
    assert model["needs_section"] is True
    assert model["symbols"] == ["AAA", "BBB", "CCC", "DDD"]
    assert model["columns"] == ["close", "volume"]
    assert model["scores"] == {"test": {"ic": 0.1}}
    assert model["label"]["name"] == "forward_return"


def test_a_rolled_back_model_is_as_old_as_its_first_promotion(
    inference: Inference, registry: Registry, bundles: list[Bundle]
) -> None:
    first = registry.ledger("5m")[0].at
    registry.promote("5m", bundles[1].id, "better")
    registry.rollback("5m", "worse after all")
    inference.load("5m")
    [model] = inference.models()
    assert model["promoted_at"] == first.isoformat().replace("+00:00", "Z")


def test_the_documentation_has_an_entry_for_every_route(client: httpx.Client) -> None:
    schema = client.get("/openapi.json").raise_for_status().json()
    assert {"/health", "/ready", "/models", "/models/{horizon}", "/models/{horizon}/load", "/predict"} <= set(
        schema["paths"]
    )
    refusals = schema["paths"]["/predict"]["post"]["responses"]
    assert refusals["422"]["content"].keys() == {"application/problem+json"}
    named = set(schema["components"]["schemas"])
    used = set(part.split('"')[0] for part in json.dumps(schema).split("#/components/schemas/")[1:])
    assert used <= named
    assert client.get("/docs").status_code == 200


def test_the_page_shows_the_serving_bundle(client: httpx.Client, bundles: list[Bundle]) -> None:
    page = client.get("/").raise_for_status()
    assert page.headers["content-type"].startswith("text/html")
    assert bundles[0].id in page.text
    assert page.headers["content-security-policy"].startswith("default-src 'self'")  # nothing comes from elsewhere


def test_the_correlation_id_of_a_request_comes_back_and_a_forged_one_does_not(client: httpx.Client) -> None:
    assert client.get("/models", headers={"x-correlation-id": "run-42"}).headers["x-correlation-id"] == "run-42"
    forged = client.get("/models", headers={"x-correlation-id": 'a", "level": "x'}).headers["x-correlation-id"]
    assert len(forged) == 32


def test_the_process_serves_logs_in_json_and_stops_cleanly(
    registry: Registry, bundles: list[Bundle], tmp_path: Path
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path / "log"
    with log.open("w") as sink:
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "serving",
                "--store",
                str(tmp_path),
                "--port",
                str(port),
                "--horizons",
                "5m",
            ],
            cwd=ROOT,
            stderr=sink,
            env={key: value for key, value in os.environ.items() if not key.startswith("TENOR_")},
        )
    try:
        with Inference(f"http://127.0.0.1:{port}") as inference:
            inference.wait_alive(60)
            inference.wait_ready(60)
            answer = inference.predict_bars("5m", bundles[0].golden_bars)
        assert answer.frame.height > 0
    finally:
        process.send_signal(signal.SIGINT)
        status = process.wait(30)
    assert status in (0, -signal.SIGINT)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    [request] = [line for line in lines if line["event"] == "request" and line["path"] == "/predict"]
    assert request["status"] == 200
    assert request["milliseconds"] > 0
    assert request["correlation_id"]
    assert any(line["event"] == "a bundle serves" and line["bundle"] == bundles[0].id for line in lines)


def test_a_replayed_service_and_its_ledger_have_the_time_of_the_replay(
    registry: Registry, bundles: list[Bundle], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    then = datetime(2024, 1, 2, 15, 30, tzinfo=UTC)
    FileClock(tmp_path / "clock").set(then)
    monkeypatch.setenv(VARIABLE, str(tmp_path / "clock"))
    assert create_app(tmp_path).state.clock.now() == then
    assert Registry(tmp_path).promote("5m", bundles[1].id, "better").at == then
