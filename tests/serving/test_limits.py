"""More than the service can do: the surplus is refused at once, what is taken is answered, then all is well again."""

import gzip
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from conf.options import Batching
from quant.bundle import Bundle
from resources.inference import Inference
from resources.registry import Registry
from serving import live_tables, predict, service
from serving.options import read
from tests.serving.conftest import Serve

Limited = Callable[..., AbstractContextManager[httpx.Client]]


@pytest.fixture
def limited(tmp_path: Path, registry: Registry, serve: Serve) -> Limited:
    """A service with limits of its own, of which every request goes to the compute thread."""

    @contextmanager
    def made(**changed: Any) -> Iterator[httpx.Client]:
        limits = read().limits.model_copy(update=changed)
        with serve(tmp_path, limits=limits, batching=Batching(inline_rows=1, max_rows=8)) as url:
            with Inference(url) as inference:
                inference.wait_ready(30)
            pool = httpx.Limits(max_connections=200)
            with httpx.Client(base_url=url, timeout=30, limits=pool, trust_env=False) as client:
                yield client

    return made


def body(rows: int) -> dict[str, Any]:
    return {"inputs": [{"name": "factors", "shape": [rows, 3], "datatype": "FP32", "data": [[0.1, None, 0.3]] * rows}]}


def slow(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    predict = Bundle.predict_rows

    def slowly(self: Bundle, X: np.ndarray, *given: Any) -> np.ndarray:
        time.sleep(seconds)
        return predict(self, X, *given)

    monkeypatch.setattr(Bundle, "predict_rows", slowly)


def test_overload_is_shed_with_retry_after_and_the_service_recovers(
    limited: Limited, bundles: list[Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = bundles[0].predict_rows(np.array([[0.1, np.nan, 0.3]] * 2, np.float32)).tolist()
    with limited(waiting=6) as client:
        slow(monkeypatch, 0.1)
        with ThreadPoolExecutor(60) as pool:
            answers = list(pool.map(lambda _: client.post("/v2/models/5m/infer", json=body(2)), range(60)))
        taken = [answer for answer in answers if answer.status_code == 200]
        shed = [answer for answer in answers if answer.status_code == 503]
        assert len(taken) >= 6
        assert len(shed) >= 20
        assert len(taken) + len(shed) == 60
        assert all(answer.json()["outputs"][0]["data"] == expected for answer in taken)
        assert all(answer.json()["type"] == "urn:tenor:problem:overloaded" for answer in shed)
        assert all(int(answer.headers["retry-after"]) > 0 for answer in shed)
        assert client.get("/v2/health/live").status_code == 200
        monkeypatch.undo()
        for _ in range(20):
            assert client.post("/v2/models/5m/infer", json=body(2)).json()["outputs"][0]["data"] == expected
        metrics = client.get("/metrics").text
        assert f'tenor_shed_total{{why="full"}} {float(len(shed))}' in metrics
        assert "tenor_waiting_requests 0.0" in metrics
        assert "tenor_waiting_rows 0.0" in metrics


def test_a_request_as_large_as_the_queue_is_served_when_it_is_alone(limited: Limited) -> None:
    with limited(waiting_rows=10) as client:
        assert client.post("/v2/models/5m/infer", json=body(50)).status_code == 200


def test_a_request_that_waits_too_long_is_told_so(limited: Limited, monkeypatch: pytest.MonkeyPatch) -> None:
    never = threading.Event()
    predict = Bundle.predict_rows

    def waiting(self: Bundle, X: np.ndarray, *given: Any) -> np.ndarray:
        assert never.wait(60)
        return predict(self, X, *given)

    with limited(seconds=0.2) as client:
        monkeypatch.setattr(Bundle, "predict_rows", waiting)
        answer = client.post("/v2/models/5m/infer", json=body(2))
        never.set()
        assert (answer.status_code, answer.json()["type"]) == (503, "urn:tenor:problem:took-too-long")
        assert int(answer.headers["retry-after"]) > 0
        assert 'tenor_shed_total{why="time"} 1.0' in client.get("/metrics").text


def test_a_body_that_does_not_arrive_is_not_waited_for(limited: Limited) -> None:
    with limited(seconds=0.2) as client:
        port = client.base_url.port
        assert port is not None
        with socket.create_connection(("127.0.0.1", port), timeout=5) as caller:
            caller.sendall(b"POST /v2/models/5m/infer HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 90\r\n\r\n{")
            head = caller.recv(4096).split(b"\r\n")
        assert head[0] == b"HTTP/1.1 408 Request Timeout"
        assert b"connection: close" in head


@pytest.mark.parametrize(
    ("path", "sent", "field"),
    [
        ("/v2/models/5m/infer", body(11), "inputs[0].shape"),
        ("/predict", {"horizon": "5m", "rows": [{"factors": {}}] * 11}, "rows"),
        ("/predict", {"horizon": "5m", "last": 4, "bars": None}, "last"),
        ("/predict", {"horizon": "5m", "bars": None, "at": {"1h": None}}, "at.1h"),
    ],
)
def test_more_rows_bars_or_slots_than_one_request_may_have_are_refused(
    limited: Limited, path: str, sent: dict[str, Any], field: str
) -> None:
    bar = {"symbol": "AAA", "timestamp": "2023-11-30T14:30:00Z", "open": 1, "high": 1, "low": 1, "close": 1}
    if "bars" in sent:
        sent = sent | {"bars": [bar], "at": {name: [bar] * 6 for name in sent.get("at", {})}}
    with limited(rows=10, bars=5, last=3) as client:
        answer = client.post(path, json=sent)
    assert answer.status_code == 422
    assert [error["field"] for error in answer.json()["errors"]] == [field]


def test_a_batch_of_rows_beyond_one_pass_is_still_answered_in_order(limited: Limited, bundles: list[Bundle]) -> None:
    X = np.random.default_rng(0).normal(size=(100, 3)).astype(np.float32)
    sent = [{"name": "factors", "shape": [100, 3], "datatype": "FP32", "data": X.astype(float).ravel().tolist()}]
    with limited() as client:
        found = client.post("/v2/models/5m/infer", json={"inputs": sent}).json()["outputs"][0]["data"]
    assert found == bundles[0].predict_rows(X).tolist()


def test_a_compressed_body_is_refused_by_its_name_where_it_is_not_read(client: httpx.Client) -> None:
    body = gzip.compress(b'{"horizon": "5m", "rows": []}')
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    answer = client.post("/predict", content=body, headers=headers)
    assert answer.status_code == 415
    assert "content-encoding 'gzip'" in answer.json()["detail"]


def rows_body(count: int) -> dict[str, Any]:
    factors = {"momentum": 0.1, "trend_rank": None, "volume_ratio": 0.3}
    return {"horizon": "5m", "rows": [{"symbol": "AAA" * 100, "factors": factors}] * count}


def test_json_bodies_beyond_what_can_be_parsed_soon_are_refused_while_the_probes_answer(
    limited: Limited, bundles: list[Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    read_body = predict.read

    def slowly(body: bytes, *told: Any) -> Any:
        time.sleep(0.1)
        return read_body(body, *told)

    sent = rows_body(60)
    [expected] = bundles[0].predict_rows(np.array([[0.1, np.nan, 0.3]], np.float32)).tolist()
    with limited(waiting=6) as client:
        monkeypatch.setattr(predict, "read", slowly)
        with ThreadPoolExecutor(60) as pool:
            asked = [pool.submit(client.post, "/predict", json=sent) for _ in range(60)]
            slowest = 0.0
            while not all(one.done() for one in asked):
                began = time.perf_counter()
                assert client.get("/ready").status_code == client.get("/metrics").status_code == 200
                slowest = max(slowest, time.perf_counter() - began)
        answers = [one.result() for one in asked]
        taken = [answer for answer in answers if answer.status_code == 200]
        shed = [answer for answer in answers if answer.status_code == 503]
        assert len(taken) >= 6
        assert len(shed) >= 20
        assert len(taken) + len(shed) == 60
        assert slowest < 2  # one by one all would take six seconds
        assert all({row["prediction"] for row in answer.json()["predictions"]} == {expected} for answer in taken)
        assert all(int(answer.headers["retry-after"]) > 0 for answer in shed)
        monkeypatch.undo()
        assert client.post("/predict", json=sent).status_code == 200
        metrics = client.get("/metrics").text
        assert "tenor_waiting_bodies 0.0" in metrics
        assert "tenor_waiting_body_bytes 0.0" in metrics


def test_questions_to_the_tables_beyond_those_that_can_wait_are_refused(
    registry: Registry, tmp_path: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "READERS", 2)
    of_table = live_tables.bars_of_table

    def slowly(*told: Any) -> Any:
        time.sleep(0.3)
        return of_table(*told)

    monkeypatch.setattr(live_tables, "bars_of_table", slowly)
    with serve(tmp_path) as url, httpx.Client(base_url=url, timeout=30) as client:
        while client.get("/signals/5m").status_code != 200:
            time.sleep(0.02)
        with ThreadPoolExecutor(8) as pool:
            asked = [f"/api/data/AAA?horizon=5m&end=2023-11-{day}T00:00:00Z" for day in range(10, 18)]
            answers = list(pool.map(client.get, asked))
        assert [answer.status_code for answer in answers].count(200) == 2
        refused = [answer for answer in answers if answer.status_code == 503]
        assert len(refused) == 6
        assert all(answer.json()["type"] == "urn:tenor:problem:overloaded" for answer in refused)
        assert all(int(answer.headers["retry-after"]) > 0 for answer in refused)
        assert client.get(asked[0]).status_code == 200
        assert "tenor_waiting_reads 0.0" in client.get("/metrics").text


def test_a_long_body_is_parsed_beside_the_event_loop(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    read_body = predict.read

    def slowly(body: bytes, *told: Any) -> Any:
        time.sleep(2)
        return read_body(body, *told)

    monkeypatch.setattr(predict, "read", slowly)
    with ThreadPoolExecutor(1) as pool, httpx.Client(base_url=client.base_url) as other:
        asked = pool.submit(client.post, "/predict", json=rows_body(200))
        answered = 0
        while not asked.done():
            assert other.get("/ready").status_code == 200
            answered += 1
    assert answered > 20
    assert len(asked.result().json()["predictions"]) == 200
