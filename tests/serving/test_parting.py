"""A connection ends so that its client reads every answer: never reset, whatever of a request lies unread."""

import json
import socket
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from resources.inference import Inference
from resources.registry import Registry
from serving import parting

Serve = Callable[..., AbstractContextManager[str]]


def connect(address: str) -> socket.socket:
    return socket.create_connection(("127.0.0.1", urlsplit(address).port or 0), timeout=20)


def head(path: str, size: int, *more: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "host: 127.0.0.1", "content-type: application/json", f"content-length: {size}"]
    return "\r\n".join([*lines, *more, "", ""]).encode()


def to_the_end(connection: socket.socket) -> bytes:
    return b"".join(iter(lambda: connection.recv(65536), b""))


def send_until_cut_off(connection: socket.socket, data: bytes) -> None:
    until = time.monotonic() + 20
    with pytest.raises((ConnectionError, TimeoutError)) as cut:  # noqa: PT012
        while time.monotonic() < until:
            connection.sendall(data)
            time.sleep(0.001)
    assert not isinstance(cut.value, TimeoutError)


def test_a_refusal_arrives_although_the_body_was_not_read(registry: Registry, tmp_path: Path, serve: Serve) -> None:
    body = b"1" * 1_000_000
    with serve(tmp_path) as address, connect(address) as connection:
        connection.sendall(head("/nowhere", len(body), "connection: close") + body[:300_000])
        time.sleep(0.3)  # refused meanwhile
        connection.sendall(body[300_000:])
        time.sleep(0.3)
        answer = to_the_end(connection)
    assert answer.startswith(b"HTTP/1.1 404 "), answer[:200]
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["status"] == 404


def test_a_client_that_sends_too_much_after_its_refusal_is_cut_off(
    registry: Registry, tmp_path: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parting, "SECONDS", 60.0)
    with serve(tmp_path) as address, connect(address) as connection:
        connection.sendall(head("/nowhere", 10**9, "connection: close"))
        began = time.monotonic()
        send_until_cut_off(connection, b"1" * 2**20)
        assert time.monotonic() < began + 20


def test_a_client_that_never_closes_is_left_after_a_while(
    registry: Registry, tmp_path: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parting, "SECONDS", 0.2)
    with serve(tmp_path) as address, connect(address) as connection:
        connection.sendall(head("/nowhere", 1000, "connection: close"))
        to_the_end(connection)
        time.sleep(0.6)
        send_until_cut_off(connection, b"1")


class Client(threading.Thread):
    """Sends a request as soon as the one before is answered, until the service ends the connection."""

    def __init__(self, address: str, request: bytes) -> None:
        super().__init__()
        self.connection, self.request = connect(address), request
        self.answers, self.last, self.trouble = 0, b"", ""

    def run(self) -> None:
        try:
            with self.connection as connection:
                while b"\r\nconnection: close\r\n" not in self.last:
                    connection.sendall(self.request)
                    self.last = b""
                    while b"\r\n\r\n" not in self.last:
                        if not (got := connection.recv(65536)):
                            self.trouble = f"an end after {self.last!r}"
                            return
                        self.last += got
                    size = int(self.last.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                    while len(self.last.partition(b"\r\n\r\n")[2]) < size:
                        self.last += connection.recv(65536)
                    self.answers += 1
                self.trouble = "" if connection.recv(1) == b"" else "more came"
        except OSError as error:
            self.trouble = repr(error)


def test_a_service_that_stops_answers_what_was_sent_and_says_that_it_was_the_last(
    registry: Registry, tmp_path: Path, serve: Serve
) -> None:
    with serve(tmp_path) as address:
        with Inference(address) as inference:
            inference.wait_ready(60)
        names = httpx.get(f"{address}/v2/models/5m").json()["inputs"][0]["parameters"]["factors"]
        tensor = {"name": "factors", "shape": [1, len(names)], "datatype": "FP32", "data": [0.5] * len(names)}
        body = json.dumps({"inputs": [tensor]}).encode()
        clients = [Client(address, head("/v2/models/5m/infer", len(body)) + body) for _ in range(8)]
        idle, begun = connect(address), connect(address)
        begun.sendall(head("/v2/models/5m/infer", len(body)) + body[:20])
        for client in clients:
            client.start()
        time.sleep(0.5)
        finish = threading.Timer(0.5, lambda: begun.sendall(body[20:]))
        finish.start()
    for client in clients:
        client.join(20)
        assert client.last.startswith(b"HTTP/1.1 200 "), client.last[:200]
        assert client.trouble == ""
        assert client.answers > 1
    assert to_the_end(idle) == b""
    assert to_the_end(begun).startswith(b"HTTP/1.1 200 ")
    idle.close()
    begun.close()
