"""Several services of one store, as real local HTTP servers: what each serves, refuses, or cannot say."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from resources.instances import DOWN, UNLOADED, Instances

NOWHERE = "http://127.0.0.1:9"


class Service:
    """A server that tells what it serves and counts what it is asked to load."""

    def __init__(self) -> None:
        self.health: dict[str, Any] = {"5m": told("serving", "b1", 1)}
        self.refuses = False
        self.loads: list[str] = []
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(200, {"status": "ok", "store": "/x", "horizons": service.health})

            def do_POST(self) -> None:
                service.loads.append(self.path)
                if service.refuses:
                    self._answer(409, {"status": 409, "detail": "bundle b2 is refused: golden data differs"})
                else:
                    service.health["5m"] = told("serving", "b2", 2)
                    self._answer(200, {"horizon": "5m", "bundle": "b2", "number": 2})

            def _answer(self, status: int, body: dict[str, Any]) -> None:
                data = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


def told(status: str, bundle: str | None, number: int | None, problem: str | None = None) -> dict[str, Any]:
    since = "2024-03-01T10:00:00Z" if number else None
    return {"status": status, "bundle": bundle, "number": number, "since": since, "problem": problem}


@pytest.fixture
def service() -> Iterator[Service]:
    made = Service()
    yield made
    made.server.shutdown()
    made.server.server_close()


def test_each_is_asked_and_one_that_is_down_is_left_alone(service: Service) -> None:
    up, down = Instances([service.url, NOWHERE]).load("5m")
    assert (up.bundle, up.number, up.problem, up.refused) == ("b2", 2, "", False)
    assert up.since is not None
    assert (down.number, down.problem) == (None, DOWN)
    assert service.loads == ["/models/5m/load"]


def test_a_refusal_is_told_with_what_serves_on(service: Service) -> None:
    service.refuses = True
    [found] = Instances([service.url]).load("5m")
    assert (found.bundle, found.number, found.refused) == ("b1", 1, True)
    assert "golden data differs" in found.problem


def test_what_somebody_unloaded_is_not_loaded(service: Service) -> None:
    service.health["5m"] = told("unloaded", None, None)
    [found] = Instances([service.url]).load("5m")
    assert (found.number, found.problem) == (None, UNLOADED)
    assert service.loads == []


def test_a_horizon_that_a_service_does_not_know_is_none_of_its_business(service: Service) -> None:
    [found] = Instances([service.url]).serving("1h")
    assert (found.number, found.problem) == (None, "it does not know 1h yet")
    assert Instances([service.url, NOWHERE]).look()[1] == {}
