"""Who may call what: keys known by their hash, roles by route, rates per key; and what a browser is refused."""

import base64
import io
import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from defs.cli import main
from quant.bundle import Bundle
from resources.inference import Inference, InferenceError
from resources.registry import Registry
from serving.__main__ import main as serve_main
from serving.access import Access, role_of
from serving.audit_log import AuditLog
from serving.keys import Key, KeyRing, digest_of, new, parse
from serving.logs import configure
from serving.problems import Problem

Serve = Callable[..., AbstractContextManager[str]]


def bearer(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


@pytest.fixture(scope="module")
def secrets() -> dict[str, tuple[str, Key]]:
    return {role: new(f"the-{role}", frozenset({role})) for role in ("read", "push", "admin")}  # type: ignore[arg-type]


@pytest.fixture
def ring(secrets: dict[str, tuple[str, Key]]) -> KeyRing:
    return KeyRing([key for _, key in secrets.values()])


# -- which role a route needs ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "role"),
    [
        ("GET", "/models", "read"),
        ("GET", "/metrics", "read"),
        ("WEBSOCKET", "/stream", "read"),
        ("POST", "/predict", "read"),
        ("POST", "/v2/models/5m/infer", "read"),
        ("POST", "/v2/models/5m/versions/3/infer", "read"),
        ("POST", "/bars", "push"),
        ("POST", "/models/5m/load", "admin"),
        ("POST", "/models/5m/rollback", "admin"),
        ("POST", "/v2/repository/models/5m/unload", "admin"),
        ("POST", "/v2/repository/models/infer/load", "admin"),
        ("POST", "/whatever/comes/next", "admin"),
        ("DELETE", "/predict", "admin"),
        ("PUT", "/bars", "admin"),
        ("GET", "/ready", None),
        ("GET", "/v2/health/live", None),
    ],
)
def test_each_route_needs_one_role_and_an_unknown_change_needs_admin(method: str, path: str, role: str | None) -> None:
    assert role_of(method, path) == role


# -- the service with keys -----------------------------------------------------------------------------------------


def test_the_service_with_keys_lets_each_role_do_its_part(
    registry: Registry, bundles: list[Bundle], tmp_path: Path, serve: Serve, ring: KeyRing, secrets: dict,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.delenv("TENOR_API_KEY", raising=False)
    with serve(tmp_path, keys=ring) as url, httpx.Client(base_url=url, timeout=30) as client:
        until_ready(client)

        def status(method: str, path: str, role: str, **more: object) -> int:
            return client.request(method, path, headers=bearer(secrets[role][0]), **more).status_code  # type: ignore[arg-type]

        bare = client.get("/models")
        assert bare.status_code == 401
        assert bare.headers["content-type"] == "application/problem+json"
        assert bare.headers["www-authenticate"].startswith("Bearer")
        assert bare.json()["type"] == "urn:tenor:problem:key-needed"
        assert bare.json()["correlation_id"] == bare.headers["x-correlation-id"]
        assert client.get("/models", headers=bearer("tenor_wrong")).json()["type"] == "urn:tenor:problem:unknown-key"
        body = client.get("/models/5m/example", headers=bearer(secrets["read"][0])).json()
        assert status("POST", "/predict", "read", json=body) == 200
        assert status("POST", "/models/5m/load", "read") == 403
        assert status("POST", "/models/5m/load", "push") == 403
        assert status("GET", "/models", "push") == 403
        assert status("GET", "/models", "admin") == 200
        assert status("POST", "/models/5m/load", "admin") == 200
        told = client.post("/models/5m/load", headers=bearer(secrets["read"][0])).json()["detail"]
        assert told == "POST /models/5m/load needs the role admin, the key 'the-read' has read"

        # Tenor's own client takes its key from the environment.
        with Inference(url) as inference, pytest.raises(InferenceError, match="TENOR_API_KEY"):
            inference.models()
        monkeypatch.setenv("TENOR_API_KEY", secrets["admin"][0])
        registry.promote("5m", bundles[1].id, "better", by="ada")
        with Inference(url) as inference:
            assert inference.load("5m")["bundle"] == bundles[1].id
    newest = list(AuditLog(tmp_path, registry._clock).lines())[-1]
    assert (newest["who"], newest["what"], newest["ledger_by"]) == ("the-admin", "serve", "ada")


def test_a_browser_signs_in_with_basic_credentials_but_another_site_cannot_use_them(
    ring: KeyRing, secrets: dict
) -> None:
    access = Access(ring)
    word = base64.b64encode(f"me:{secrets['admin'][0]}".encode())
    headers = [(b"host", b"tenor.example"), (b"authorization", b"Basic " + word)]
    assert access.allow(headers, "GET", "/") == "the-admin"
    assert access.allow([*headers, (b"origin", b"https://tenor.example")], "POST", "/models/5m/rollback") == "the-admin"
    for method, path in (("POST", "/models/5m/rollback"), ("WEBSOCKET", "/stream")):
        with pytest.raises(Problem, match=r"a page of https://evil\.example may not"):
            access.allow([*headers, (b"origin", b"https://evil.example")], method, path)
    for broken in (b"Basic %%%", b"Basic " + base64.b64encode(b"\xff\xfe"), b"Basic", b"Digest x", b"Bearer"):
        with pytest.raises(Problem) as caught:
            access.allow([(b"host", b"h"), (b"authorization", broken)], "GET", "/")
        assert caught.value.status_code == 401


def test_a_websocket_of_a_browser_brings_its_key_as_a_subprotocol(ring: KeyRing, secrets: dict) -> None:
    offered = f"tenor, key.{secrets['read'][0]}".encode()
    assert Access(ring).allow([(b"sec-websocket-protocol", offered)], "WEBSOCKET", "/stream") == "the-read"
    with pytest.raises(Problem):
        Access(ring).allow([(b"sec-websocket-protocol", offered)], "GET", "/stream")


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """What the service's log would be at level debug, less what the test's own clients log."""
    root, found = logging.getLogger(), io.StringIO()
    handlers, level = root.handlers[:], root.level
    root.handlers = []  # pytest's own: `configure` would close them
    monkeypatch.setattr("sys.stderr", found)
    monkeypatch.setattr(logging.getLogger("websockets.client"), "disabled", True)
    configure("debug")
    yield found
    root.handlers = handlers
    root.setLevel(level)
    for name in ("httpx", "uvicorn.error"):
        logging.getLogger(name).setLevel(logging.NOTSET)


def test_the_stream_wants_a_key_too_and_the_log_never_has_it(
    registry: Registry, tmp_path: Path, serve: Serve, ring: KeyRing, secrets: dict, written: io.StringIO
) -> None:
    secret = secrets["read"][0]
    with serve(tmp_path, keys=ring) as url:
        stream = f"{url.replace('http', 'ws')}/stream"
        for refused, status in (({}, 401), ({"subprotocols": ["tenor", "key.wrong"]}, 401)):
            with pytest.raises(InvalidStatus) as caught, connect(stream, **refused):
                pass
            assert caught.value.response.status_code == status
            assert json.loads(caught.value.response.body)["detail"].startswith("this ")
        with connect(stream, subprotocols=["tenor", f"key.{secret}"]) as socket:  # type: ignore[list-item]
            assert socket.subprotocol == "tenor"
            assert json.loads(socket.recv(timeout=10))["type"] == "hello"
        with connect(stream, additional_headers=bearer(secret)) as socket:
            assert socket.subprotocol is None
            assert json.loads(socket.recv(timeout=10))["type"] == "hello"
    assert '"logger": "uvicorn.error"' in written.getvalue()
    assert '"level": "error"' not in written.getvalue()  # a refused client is no fault of ours
    assert secret not in written.getvalue()


def test_the_last_key_of_the_file_ends_too_and_the_service_says_why_nobody_is_let_in(
    registry: Registry, tmp_path: Path, serve: Serve, secrets: dict
) -> None:
    file, (secret, key) = tmp_path / "keys", secrets["read"]
    file.write_text(key.line())
    with (
        serve(tmp_path, keys=KeyRing.from_environment({"TENOR_API_KEYS_FILE": str(file)})) as url,
        httpx.Client(base_url=url, headers=bearer(secret)) as client,
        connect(f"{url.replace('http', 'ws')}/stream", additional_headers=bearer(secret)) as socket,
    ):
        until_ready(client)
        assert client.get("/health").json()["keys_problem"] is None
        file.write_text("")
        waited = until(lambda: client.get("/models").status_code == 401)
        assert waited < 5
        for headers in ({}, bearer(secret)):
            told = client.get("/health", headers=headers)
            assert (told.status_code, told.json()["type"]) == (401, "urn:tenor:problem:no-keys")
            assert told.json()["detail"].startswith("no API key is valid here now")
            assert str(tmp_path) not in told.text
        assert client.post("/v2/models/5m/infer", json={"inputs": []}).status_code == 401
        assert client.get("/ready").status_code == 200
        with pytest.raises(ConnectionClosed) as ended:
            recv_all(socket)
        assert ended.value.rcvd is not None
        assert ended.value.rcvd.code == 1008
        file.write_text(key.line() + "\nmore:read:oops")
        until(lambda: client.get("/models").status_code == 200)
        assert "line 2 (more)" in client.get("/health").json()["keys_problem"]


def recv_all(socket: ClientConnection) -> None:
    """Until the socket is closed; at most ten messages."""
    for _ in range(10):
        socket.recv(timeout=5)


def until(done: Callable[[], bool]) -> float:
    """Seconds until it is so."""
    began = time.monotonic()
    while not done():
        assert time.monotonic() - began < 30
        time.sleep(0.05)
    return time.monotonic() - began


# -- without keys --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1:8321", "localhost:8321", "[::1]:8321", "127.8.8.8"])
def test_without_keys_this_machine_may_do_everything(host: str) -> None:
    headers = [(b"host", host.encode())]
    assert Access(None).allow(headers, "POST", "/models/5m/rollback") == "local"
    local_page = [*headers, (b"origin", b"http://localhost:3000")]
    assert Access(None).allow(local_page, "WEBSOCKET", "/stream") == "local"


@pytest.mark.parametrize(
    ("host", "origin", "method"),
    [
        ("evil.example:8321", None, "GET"),  # DNS rebinding: a name of theirs that points here
        ("127.0.0.1.evil.example", None, "POST"),
        ("127.0.0.1:8321", "https://evil.example", "POST"),  # a form on another site
        ("127.0.0.1:8321", "null", "POST"),
        ("127.0.0.1:8321", "http://[", "POST"),
        ("127.0.0.1:8321", "https://evil.example", "WEBSOCKET"),
    ],
)
def test_without_keys_a_page_of_another_site_may_do_nothing(host: str, origin: str | None, method: str) -> None:
    headers = [(b"host", host.encode()), *([(b"origin", origin.encode())] if origin else [])]
    with pytest.raises(Problem) as caught:
        Access(None).allow(headers, method, "/models/5m/rollback")
    assert caught.value.status_code == 403


@pytest.mark.parametrize(
    ("keys", "host", "told"),
    [
        (None, "0.0.0.0", "this service has no API keys"),
        (None, "::", "this service has no API keys"),
        (None, "tenor.example", "this service has no API keys"),
        ("x:y", "127.0.0.1", "TENOR_API_KEYS: line 1"),
    ],
)
def test_the_service_does_not_start_for_other_machines_without_keys_or_with_wrong_ones(
    keys: str | None, host: str, told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("TENOR_API_KEYS", "TENOR_API_KEYS_FILE"):
        monkeypatch.delenv(name, raising=False)
    if keys is not None:
        monkeypatch.setenv("TENOR_API_KEYS", keys)
    with pytest.raises(SystemExit) as caught:
        serve_main(["--host", host])
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert told in said
    assert said.startswith("the service does not start: ")  # and no usage: the arguments were well written
    assert said.count("\n") == 1


# -- rates ---------------------------------------------------------------------------------------------------------


@given(
    pauses=st.lists(st.floats(0, 0.8), min_size=1, max_size=60),
    rate=st.sampled_from([0.5, 1.0, 3.0, 20.0]),
)
def test_no_window_holds_more_requests_than_its_rate_and_one_burst(pauses: list[float], rate: float) -> None:
    now = 0.0
    ring = KeyRing([Key("k", frozenset({"read"}), digest_of("s"), rate)])
    access = Access(ring, timer=lambda: now)
    allowed: list[float] = []
    refused: Problem | None = None

    def ask() -> None:
        access.allow([(b"authorization", b"Bearer s")], "GET", "/models")

    for pause in pauses:
        now += pause
        try:
            ask()
            allowed.append(now)
            refused = None
        except Problem as problem:
            refused = problem
    for first in range(len(allowed)):
        for last in range(first, len(allowed)):
            assert last - first + 1 <= max(rate, 1) + rate * (allowed[last] - allowed[first]) + 1e-6
    if refused is not None:  # waiting as long as the refusal said is enough
        assert refused.status_code == 429
        now += int(dict(refused.headers or {})["retry-after"])
        ask()


def test_a_rate_is_each_keys_own() -> None:
    ring = KeyRing(
        [Key("slow", frozenset({"read"}), digest_of("a"), 1.0), Key("free", frozenset({"read"}), digest_of("b"))]
    )
    access = Access(ring, rate=5.0, timer=lambda: 0.0)

    def ask(secret: str) -> str:
        return access.allow([(b"authorization", f"bearer {secret}".encode())], "GET", "/models")

    assert ask("a") == "slow"
    with pytest.raises(Problem, match="'slow' may ask 1 times a second"):
        ask("a")
    assert [ask("b") for _ in range(5)] == ["free"] * 5
    with pytest.raises(Problem, match="'free' may ask 5 times"):
        ask("b")


# -- tenor keys ----------------------------------------------------------------------------------------------------


def test_tenor_keys_prints_a_key_that_its_line_lets_in(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", "new", "name=feed", "role=push+read", "rate=50"]) == 0
    out = capsys.readouterr().out
    secret = next(line.strip() for line in out.splitlines() if line.strip().startswith("tenor_"))
    line = next(line.strip() for line in out.splitlines() if line.strip().startswith("feed:"))
    ring = KeyRing(parse(line))
    found = ring.find(secret)
    assert found is not None
    assert (found.name, found.roles, found.rate) == ("feed", {"push", "read"}, 50.0)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "keys makes new keys only"),
        (["list"], "keys makes new keys only"),
        (["new", "name=x"], "role must be given"),
        (["new", "name=x", "role=raed"], "did you mean read?"),
        (["new", "nmae=x", "role=read"], "did you mean name?"),
        (["new", "name=a b", "role=read"], "no such key can be made"),
        (["new", "name=x", "role=read", "rate=fast"], "no such key can be made"),
    ],
)
def test_tenor_keys_tells_a_wrong_word(words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", *words]) == 2
    assert told in capsys.readouterr().err


def until_ready(client: httpx.Client) -> None:
    until(lambda: client.get("/ready").status_code == 200)
