"""Whether a request takes the fast lane or the usual way, nobody can tell from the answer."""

import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import polars as pl
import pytest

from quant.bundle import Bundle
from resources.inference import Inference
from resources.registry import Registry
from serving.keys import KeyRing, new
from serving.v2_infer import Infer
from tests.serving.test_prediction_log import OPTIONS, logged

PATH = "/v2/models/5m/infer"

Serve = Callable[..., AbstractContextManager[str]]


@contextmanager
def connected(url: str) -> Iterator[socket.socket]:
    with socket.create_connection((urlsplit(url).hostname, urlsplit(url).port), timeout=20) as made:
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield made


def request(body: bytes, path: str = PATH, version: str = "1.1", **headers: str) -> bytes:
    told = {"host": "127.0.0.1", "content-length": str(len(body))}
    told |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = "".join(f"{name}: {value}\r\n" for name, value in told.items())
    return f"POST {path} HTTP/{version}\r\n{lines}\r\n".encode() + body


def read(connection: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of one answer; exactly its bytes are taken."""
    file = connection.makefile("rb", buffering=0)
    status = int(file.readline().split()[1])
    headers: dict[str, str] = {}
    while line := file.readline().strip():
        name, _, value = line.decode().partition(": ")
        headers[name.lower()] = value
    body = b""
    while len(body) < int(headers["content-length"]):
        body += file.read(int(headers["content-length"]) - len(body)) or b""
    return status, headers, body


def ask(url: str, *parts: bytes) -> tuple[int, dict[str, str], bytes]:
    """The answer to a request that arrives in parts."""
    with connected(url) as connection:
        for part in parts:
            connection.sendall(part)
            time.sleep(0.05 if len(parts) > 1 else 0)
        return read(connection)


def tensor(X: np.ndarray, **changed: Any) -> dict[str, Any]:
    made = {"name": "factors", "shape": list(X.shape), "datatype": "FP32", "data": X.astype(float).tolist()}
    return {key: value for key, value in {**made, **changed}.items() if value is not None}


def asked(X: np.ndarray, **changed: Any) -> bytes:
    return json.dumps({"inputs": [tensor(X, **changed)]}).encode()


def rows(bundle: Bundle, count: int = 3) -> np.ndarray:
    return np.ascontiguousarray(np.resize(bundle.golden.select(bundle.factors).to_numpy(), (count, 3)), np.float32)


def cases(bundle: Bundle) -> dict[str, bytes]:
    X = rows(bundle)
    holes = X.copy()
    holes[0] = np.nan
    plain = asked(X)
    binary = json.dumps({"inputs": [tensor(X, data=None, parameters={"binary_data_size": X.nbytes})]}).encode()
    wanted = json.dumps({"id": "a", "inputs": [tensor(X)], "outputs": [
        {"name": "predictions", "parameters": {"binary_data": True}}]}).encode()  # fmt: skip
    return {
        "rows": request(plain),
        "one row": request(asked(X[:1])),
        "missing values": request(asked(holes)),
        "an id": request(json.dumps({"id": "mine", "inputs": [tensor(X)]}).encode()),
        "binary in": request(binary + X.tobytes(), inference_header_content_length=str(len(binary))),
        "binary out": request(wanted),
        "a correlation id": request(plain, x_correlation_id="mine"),
        "a correlation id that forges": request(plain, x_correlation_id="a b"),
        "a kept connection": request(plain, connection="keep-alive"),
        "a closed connection": request(plain, connection="close"),
        "HTTP 1.0": request(plain, version="1.0"),
        "many rows": request(asked(rows(bundle, 400))),
        "no JSON": request(b"{"),
        "another type": request(b'{"inputs": 3}'),
        "another width": request(asked(X[:, :2])),
        "a foreign host": request(plain, host="evil.example"),
        "a foreign origin": request(plain, origin="http://evil.example"),
        "an unknown model": request(plain, "/v2/models/6m/infer"),
        "a version": request(plain, "/v2/models/5m/versions/1/infer"),
        "another version": request(plain, "/v2/models/5m/versions/2/infer"),
        "a compressed body": request(plain, content_encoding="gzip"),
    }


def test_every_request_has_the_same_answer_on_both_ways(url: str, bundles: list[Bundle]) -> None:
    found = {}
    for name, sent in cases(bundles[0]).items():
        fast, usual = ask(url, sent), ask(url, sent[:-1], sent[-1:])
        told = []
        for status, headers, body in (fast, usual):
            told.append((status, sorted({*headers} - {"date"}), _without_request(body)))
            if name == "a correlation id":
                assert headers["x-correlation-id"] == "mine"
        assert told[0] == told[1], name
        found[name] = fast[0]
    assert {name for name, status in found.items() if status == 200} == {
        "rows", "one row", "missing values", "an id", "binary in", "binary out", "a correlation id", "many rows",
        "a correlation id that forges", "a kept connection", "a closed connection", "HTTP 1.0", "a version",
    }  # fmt: skip


def _without_request(body: bytes) -> bytes:
    """An answer without the ids that every request has of its own."""
    told = json.loads(body[: body.rindex(b"}") + 1])
    for part in (told, told.get("parameters", {})):
        part.pop("request", None)
        part.pop("correlation_id", None)
    return json.dumps(told).encode() + body[body.rindex(b"}") + 1 :]


def test_a_small_request_takes_the_lane_and_its_answers_are_the_bundles(
    url: str, bundles: list[Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def closed(*_: Any) -> None:
        raise AssertionError("it went the usual way")

    monkeypatch.setattr(Infer, "_infer", closed)
    X = rows(bundles[0])
    status, _, body = ask(url, request(asked(X)))
    assert (status, json.loads(body)["outputs"][0]["data"]) == (200, bundles[0].predict_rows(X).tolist())
    assert ask(url, request(b"{"))[0] == 500  # what it refuses went there
    assert ask(url, *_halves(request(asked(X))))[0] == 500


def _halves(sent: bytes) -> tuple[bytes, bytes]:
    return sent[:100], sent[100:]


def test_requests_that_come_together_are_answered_in_their_order(url: str, bundles: list[Bundle]) -> None:
    X = rows(bundles[0], 200)
    sizes = [1, 100, 2, 3, 120, 4]  # those of more than 64 rows go to the compute thread
    with connected(url) as connection:
        connection.sendall(b"".join(request(asked(X[:size])) for size in sizes))
        answers = [json.loads(read(connection)[2]) for _ in sizes]
    expected = bundles[0].predict_rows(X).tolist()
    assert [one["outputs"][0]["data"] for one in answers] == [expected[:size] for size in sizes]


def test_both_ways_are_counted_noted_and_logged_alike(
    registry: Registry, bundles: list[Bundle], tmp_path: Path, serve: Serve
) -> None:
    sent = request(asked(rows(bundles[0])))
    with serve(tmp_path, log=OPTIONS) as url, Inference(url) as inference:
        inference.wait_ready(30)
        ids = []
        for parts in ((sent,), _halves(sent)):
            before = httpx.get(f"{url}/metrics").text
            _, headers, body = ask(url, *parts)
            after = httpx.get(f"{url}/metrics").text
            ids.append(json.loads(body)["parameters"]["request"])
            assert headers["x-correlation-id"] == ids[-1]
            route = '{route="/v2/models/{model}/infer"}'
            for series, more in {
                'tenor_requests_total{method="POST",route="/v2/models/{model}/infer",status="200"}': 1,
                f"tenor_request_seconds_count{route}": 1,
                'tenor_predictions_total{horizon="5m",route="/v2/models/{model}/infer"}': 3,
                'tenor_score_seconds_count{horizon="5m"}': 1,
                'tenor_batch_rows_sum{where="event loop"}': 3,
            }.items():
                assert _value(after, series) == _value(before, series) + more, series
    kept = logged(tmp_path).filter(role="champion").group_by("request").agg(pl.all().exclude("at", "signal", "seconds"))
    assert sorted(kept["request"]) == sorted(ids)
    alike = kept.select("route", "bundle", "number", "prediction", "inputs_hash", "inputs")
    assert alike.row(0) == alike.row(1)


def _value(text: str, series: str) -> float:
    return next((float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(f"{series} ")), 0.0)


def test_a_key_is_asked_for_and_its_rate_is_spent_once(
    registry: Registry, bundles: list[Bundle], tmp_path: Path, serve: Serve
) -> None:
    secret, key = new("desk", frozenset({"read"}), 1)  # one request a second
    told = {"authorization": f"Bearer {secret}"}
    with serve(tmp_path, keys=KeyRing([key])) as url:
        until = time.monotonic() + 30
        while httpx.get(f"{url}/ready").status_code != 200:
            assert time.monotonic() < until
            time.sleep(0.05)
        sent = asked(rows(bundles[0]))
        assert ask(url, request(sent))[0] == 401
        assert ask(url, request(b"{", **told))[0] == 400  # the lane let it in and passed it on
        assert ask(url, request(sent, **told))[0] == 429
        time.sleep(1.1)
        assert ask(url, request(sent, **told))[0] == 200
