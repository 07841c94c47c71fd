"""The client: what it says when the service is down, slow, empty or refuses. Its answers: tests/serving."""

import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import polars as pl
import pytest

from resources.inference import Inference, InferenceError, ServiceDown


@pytest.fixture
def nowhere() -> str:
    """An address where nothing listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


class Peer(BaseHTTPRequestHandler):
    """Answers every request with what the test prepared, and keeps the last body sent."""

    status, kind, answer, sent = 200, "application/json", b"{}", b""

    def do_GET(self) -> None:
        type(self).sent = self.rfile.read(int(self.headers.get("content-length", 0)))
        self.send_response(self.status)
        self.send_header("content-type", self.kind)
        self.send_header("content-length", str(len(self.answer)))
        self.end_headers()
        self.wfile.write(self.answer)

    do_POST = do_GET

    def log_message(self, *_: object) -> None:
        """Keep the test's output quiet."""


@pytest.fixture
def peer() -> Iterator[tuple[str, type[Peer]]]:
    handler = type("Handler", (Peer,), {})
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", handler
        server.shutdown()
        thread.join()


def test_a_service_that_is_down_is_named_with_the_command_that_starts_it(nowhere: str) -> None:
    with Inference(nowhere) as inference, pytest.raises(ServiceDown, match="tenor serve") as caught:
        inference.health()
    assert nowhere in str(caught.value)


def test_waiting_for_a_service_that_is_down_ends_with_the_same_message(nowhere: str) -> None:
    with Inference(nowhere) as inference:
        with pytest.raises(ServiceDown, match="tenor serve"):
            inference.wait_ready(0.2)
        with pytest.raises(ServiceDown, match="tenor serve"):
            inference.wait_alive(0.2)


def test_a_refusal_carries_the_problem_document(peer: tuple[str, type[Peer]]) -> None:
    url, handler = peer
    handler.status, handler.kind = 409, "application/problem+json"
    handler.answer = json.dumps({"status": 409, "detail": "bundle abc is refused"}).encode()
    with Inference(url) as inference, pytest.raises(InferenceError, match="bundle abc is refused") as caught:
        inference.load("5m")
    assert caught.value.problem["status"] == 409


def test_something_else_at_the_address_is_suspected(peer: tuple[str, type[Peer]]) -> None:
    url, handler = peer
    handler.status, handler.kind, handler.answer = 404, "text/html", b"<h1>printer</h1>"
    with Inference(url) as inference, pytest.raises(InferenceError, match="is it Tenor"):
        inference.models()


def test_a_service_without_a_bundle_says_which_horizon_lacks_one(peer: tuple[str, type[Peer]]) -> None:
    url, handler = peer
    handler.status = 200
    handler.answer = json.dumps({"horizons": {"1h": {"problem": None, "status": "empty"}}}).encode()
    with Inference(url) as inference:
        inference._ready = lambda: False  # type: ignore[method-assign]
        with pytest.raises(InferenceError, match="1h: empty"):
            inference.wait_ready(0.1)


def test_float32_travels_without_rounding_and_nan_as_null(peer: tuple[str, type[Peer]]) -> None:
    url, handler = peer
    handler.answer = json.dumps({"bundle": "b", "number": 1, "predictions": []}).encode()
    frame = pl.DataFrame(
        {
            "symbol": ["A"],
            "timestamp": ["2024-01-02T14:30:00Z"],
            "x": [0.1],
            "y": [float("nan")],
            "z": [None],
        },
        schema_overrides={"x": pl.Float32, "y": pl.Float32, "z": pl.Float32},
    ).with_columns(pl.col("timestamp").str.to_datetime(time_unit="us", time_zone="UTC"))
    with Inference(url) as inference:
        answer = inference.predict_rows("5m", frame)
    [row] = json.loads(handler.sent)["rows"]
    assert row["factors"] == {"x": 0.10000000149011612, "y": None, "z": None}
    assert row["timestamp"] == "2024-01-02T14:30:00.000000Z"
    assert answer.frame.is_empty()
