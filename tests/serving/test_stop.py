"""SIGTERM to a real process under load: what it has begun it finishes, writes down, and then it ends well."""

import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import polars as pl
import pytest

from resources.inference import Inference
from resources.lake import Lake
from resources.registry import Registry
from serving.audit_log import AuditLog

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parents[2]


def test_a_service_told_to_stop_answers_what_it_has_begun_and_loses_no_logged_answer(
    registry: Registry, tmp_path: Path
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = [sys.executable, "-m", "serving", "--store", str(tmp_path), "--port", str(port)]
    log = (tmp_path / "service.log").open("wb")
    service = subprocess.Popen(words, cwd=REPOSITORY, stderr=log)
    url, answered = f"http://127.0.0.1:{port}", list[str]()
    try:
        with Inference(url) as inference:
            inference.wait_ready(60)
        body = httpx.get(f"{url}/models/5m/example?section=true").json()

        for _ in range(20):
            answered += signals(httpx.post(f"{url}/predict", json=body).content)
        data = json.dumps(body).encode()
        head = "POST /predict HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
        begun = [socket.create_connection(("127.0.0.1", port), timeout=30) for _ in range(3)]
        for connection in begun:
            connection.sendall(f"{head}content-length: {len(data)}\r\n\r\n".encode() + data[: len(data) // 2])
        service.send_signal(signal.SIGTERM)
        until = time.monotonic() + 10
        while listens(port):
            assert time.monotonic() < until
            time.sleep(0.01)
        for connection in begun:
            connection.sendall(data[len(data) // 2 :])
        for connection in begun:
            reply = b"".join(iter(lambda one=connection: one.recv(65536), b""))  # type: ignore[misc]  # to the close
            assert reply.startswith(b"HTTP/1.1 200"), reply[:500]
            answered += signals(reply.partition(b"\r\n\r\n")[2])
        assert service.wait(30) == -signal.SIGTERM  # uvicorn raises it again, once all is done
    finally:
        service.kill()
        service.wait()
        log.close()
    logged = Lake(f"{tmp_path}/lake").scan("predictions/5m").filter(pl.col("role") == "champion").collect()
    assert sorted(answered) == sorted(logged["signal"])
    lines = [json.loads(line) for line in (tmp_path / "service.log").read_text().splitlines()]
    assert not [line for line in lines if line["level"] in ("error", "critical")]
    assert [line["what"] for line in AuditLog(tmp_path, registry._clock).lines()] == ["serve"]


def signals(answer: bytes) -> list[str]:
    return [one["signal"] for one in json.loads(answer)["predictions"]]


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
