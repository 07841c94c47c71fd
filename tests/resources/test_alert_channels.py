"""Alerts through real servers on this machine: what they get, what is said of those that fail, and no secret in it."""

import http.server
import json
import logging
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email import message_from_string
from email.policy import default
from pathlib import Path
from typing import Any

import pytest

from conf.alerting import KINDS, After, Alerts, Email, Webhook
from resources import alert_channels
from resources.alert_channels import ChannelError, channels
from resources.alert_rules import Held, Message, Trial
from resources.alerts import AlertsError, AlertState, Memory, deliver, queued
from tests.resources.mail_server import Inbox, MailServer

NOW = datetime(2024, 3, 4, 15, 0, tzinfo=UTC)
ITEM = Held(
    "run_failed", "5m", "bars", NOW - timedelta(minutes=3), None, "no source: «Börse»", "http://127.0.0.1/runs/1"
)
MESSAGE = Message("run_failed", "raised", NOW, (ITEM,))
TOKEN, PASSWORD = "Bearer 9f3c-token", "swordfish"


@dataclass
class Hook:
    """A webhook's address and what arrived. answers: the status of each request, the last one for all further."""

    url: str = ""
    answers: list[int] = field(default_factory=lambda: [204])
    wait: threading.Event | None = None  # answers once it is set
    got: list[tuple[dict[str, str], Any]] = field(default_factory=list)


@contextmanager
def listening(hook: Hook) -> Iterator[Hook]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            hook.got.append((dict(self.headers), body))
            if hook.wait:
                hook.wait.wait(60)
            status = hook.answers.pop(0) if len(hook.answers) > 1 else hook.answers[0]
            self.send_response(status)
            self.send_header("location", f"{hook.url}elsewhere")
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hook.url = f"http://127.0.0.1:{server.server_address[1]}/services/s3cr3t-path"
    threading.Thread(target=lambda: server.serve_forever(0.01), daemon=True).start()
    try:
        yield hook
    finally:
        server.shutdown()
        server.server_close()


def alerts(webhook: Webhook | None = None, email: Email | None = None, log: bool = False) -> Alerts:
    after = After(**dict.fromkeys(KINDS, 0.0))
    return Alerts(
        after=after, severity="WARN", gather_seconds=0.0, remind_hours=24.0, log=log, webhook=webhook, email=email
    )


def by_webhook(header: bool = True) -> Alerts:
    named = {"header": "Authorization", "header_from": "T_TOKEN"} if header else {}
    return alerts(webhook=Webhook(url_from="T_URL", **named))


def by_mail(port: int, security: Any = "none", login: bool = True) -> Alerts:
    account = {"user": "tenor", "password_from": "T_PASSWORD"} if login else {}
    told = {
        "host": "127.0.0.1",
        "port": port,
        "security": security,
        "from": "tenor@here",
        "to": ["desk@here", "b@here"],
    }
    return alerts(email=Email.model_validate({**told, **account}))


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for proxy in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(proxy, raising=False)
    monkeypatch.setenv("T_TOKEN", TOKEN)
    monkeypatch.setenv("T_PASSWORD", PASSWORD)
    monkeypatch.setattr(alert_channels, "SECONDS", 1.0)


@pytest.fixture
def send(tmp_path: Path) -> Callable[[Alerts, str], None]:
    def through(config: Alerts, channel: str) -> None:
        channels(config, tmp_path)[channel](MESSAGE)

    return through


def test_a_webhook_gets_the_message_as_json_with_its_header(
    send: Callable[[Alerts, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    with listening(Hook()) as hook:
        monkeypatch.setenv("T_URL", hook.url)
        send(by_webhook(), "webhook")
    ((headers, body),) = hook.got
    assert headers["Authorization"] == TOKEN
    assert headers["Content-Type"] == "application/json"
    assert body == {
        "id": MESSAGE.id,
        "kind": "run_failed",
        "state": "raised",
        "at": "2024-03-04T15:00:00+00:00",
        "subject": "Tenor: run failed: 5m",
        "text": "Tenor: run failed: 5m\n5m bars: no source: «Börse» (since 2024-03-04 14:57 UTC)  http://127.0.0.1/runs/1",
        "items": [
            {
                "horizon": "5m",
                "what": "bars",
                "since": "2024-03-04T14:57:00+00:00",
                "why": "no source: «Börse»",
                "link": "http://127.0.0.1/runs/1",
            }
        ],
    }


@pytest.mark.parametrize("status", [301, 307, 404, 500])
def test_a_webhook_that_refuses_is_told_by_its_status_and_not_followed(
    send: Callable[[Alerts, str], None], monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    with listening(Hook(answers=[status])) as hook:
        monkeypatch.setenv("T_URL", hook.url)
        with pytest.raises(ChannelError, match=f"the address in T_URL answered {status}"):
            send(by_webhook(header=False), "webhook")
    assert len(hook.got) == 1
    assert "Authorization" not in hook.got[0][0]


def test_a_webhook_that_does_not_answer_is_given_up_in_time(
    send: Callable[[Alerts, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    never = threading.Event()
    with listening(Hook(wait=never)) as hook:
        monkeypatch.setenv("T_URL", hook.url)
        with pytest.raises(ChannelError):
            send(by_webhook(), "webhook")
        never.set()


WRONG = [
    "",
    "ftp://s3cr3t-path/x",
    "http://s3cr3t-path.invalid/x",
    "http://127.0.0.1:1/s3cr3t-path",
    "http://[s3cr3t-path",
]


@pytest.mark.parametrize("url", WRONG)
def test_no_error_of_a_webhook_holds_its_address_or_its_token_and_nothing_is_logged(
    send: Callable[[Alerts, str], None], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, url: str
) -> None:
    monkeypatch.setenv("T_URL", url)
    with caplog.at_level(logging.DEBUG), pytest.raises(ChannelError) as refused:
        send(by_webhook(), "webhook")
    assert "T_URL" in str(refused.value)
    for said in (str(refused.value), repr(refused.value.__cause__), caplog.text):
        assert "s3cr3t" not in said
        assert TOKEN not in said


def test_a_header_that_no_request_can_carry_is_refused_without_being_quoted(
    send: Callable[[Alerts, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("T_TOKEN", "9f3c\r\nx: y")
    with listening(Hook()) as hook:
        monkeypatch.setenv("T_URL", hook.url)
        with pytest.raises(ChannelError) as refused:
            send(by_webhook(), "webhook")
    assert "9f3c" not in str(refused.value)
    assert hook.got == []


def test_a_mail_arrives_whole_after_a_login(send: Callable[[Alerts, str], None]) -> None:
    inbox = Inbox()
    with MailServer(inbox) as server:
        send(by_mail(server.port), "email")
    assert inbox.logged_in == [("tenor", PASSWORD)]
    letter = message_from_string(inbox.letters[0], policy=default)
    assert (letter["subject"], letter["from"], letter["to"]) == (MESSAGE.subject, "tenor@here", "desk@here, b@here")
    assert letter.get_content().strip() == MESSAGE.text
    assert letter["message-id"] == f"<{MESSAGE.id}@tenor>"
    assert [line for line in inbox.commands if line.startswith("rcpt")] == ["rcpt TO:<desk@here>", "rcpt TO:<b@here>"]


def test_a_trial_arrives_as_one_in_mail_and_webhook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inbox, trial = Inbox(), Trial(NOW, ("5m", "1h"))
    with MailServer(inbox) as server, listening(Hook()) as hook:
        monkeypatch.setenv("T_URL", hook.url)
        channels(by_mail(server.port), tmp_path)["email"](trial)
        channels(by_webhook(), tmp_path)["webhook"](trial)
    letter = message_from_string(inbox.letters[0], policy=default)
    assert letter["subject"] == "Tenor: TEST, nothing is wrong: 5m, 1h"
    assert "Nothing is wrong" in letter.get_content()
    ((_, body),) = hook.got
    assert {**body, "text": ""} == {
        "id": trial.id, "kind": "test", "state": "test", "at": "2024-03-04T15:00:00+00:00",
        "subject": letter["subject"], "text": "", "items": [],
    }  # fmt: skip


def test_without_an_account_a_mail_is_sent_without_a_login(send: Callable[[Alerts, str], None]) -> None:
    inbox = Inbox(offers=())
    with MailServer(inbox) as server:
        send(by_mail(server.port, login=False), "email")
    assert len(inbox.letters) == 1
    assert inbox.logged_in == []


@pytest.mark.parametrize(
    ("inbox", "told"),
    [
        (Inbox(password="another"), "answered 535"),
        (Inbox(refuse=550), "failed: SMTPRecipientsRefused"),
        (Inbox(offers=()), "failed: SMTPNotSupportedError"),
    ],
)
def test_a_mail_server_that_refuses_is_told_without_the_password_that_it_quotes(
    send: Callable[[Alerts, str], None], inbox: Inbox, told: str
) -> None:
    with MailServer(inbox) as server, pytest.raises(ChannelError, match=told) as refused:
        send(by_mail(server.port), "email")
    assert PASSWORD not in str(refused.value)
    assert inbox.letters == []


def test_a_password_is_never_sent_where_tls_is_asked_for_and_not_offered(send: Callable[[Alerts, str], None]) -> None:
    inbox = Inbox()
    with MailServer(inbox) as server, pytest.raises(ChannelError):
        send(by_mail(server.port, "starttls"), "email")
    assert inbox.logged_in == []
    assert inbox.letters == []


@pytest.mark.parametrize("trusted", [True, False])
def test_a_mail_goes_over_tls_to_a_server_whose_certificate_holds_and_to_no_other(
    send: Callable[[Alerts, str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trusted: bool
) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
    try:
        subprocess.run(
            [*made, "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate],
            check=True, capture_output=True,
        )  # fmt: skip
    except FileNotFoundError:
        pytest.skip("there is no openssl program to make a certificate with")
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    inbox = Inbox(offers=("STARTTLS", "AUTH PLAIN"), certificate=(certificate, key))
    with MailServer(inbox) as server:
        if trusted:
            send(by_mail(server.port, "starttls"), "email")
        else:
            with pytest.raises(ChannelError, match="SSLCertVerificationError"):
                send(by_mail(server.port, "starttls"), "email")
    assert len(inbox.letters) == int(trusted)
    assert inbox.logged_in == ([("tenor", PASSWORD)] if trusted else [])


def test_the_log_channel_adds_a_line_for_each_message(send: Callable[[Alerts, str], None], tmp_path: Path) -> None:
    for _ in range(2):
        send(alerts(log=True), "log")
    lines = (tmp_path / "alerts" / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["id"] for line in lines] == [MESSAGE.id] * 2


def other(number: int) -> Message:
    return Message("run_failed", "raised", NOW + timedelta(minutes=number), (ITEM,))


def test_a_webhook_that_is_down_is_retried_with_growing_pauses_and_gets_everything_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[timedelta] = []
    state = AlertState(tmp_path)
    with listening(Hook(answers=[503] * 5 + [200])) as hook:
        monkeypatch.setenv("T_URL", hook.url)
        found = {"5m": channels(by_webhook(), tmp_path)}
        state.write(Memory(held=(ITEM,), waiting=queued([other(0), other(1)], ["webhook"], "5m")))
        for seconds in range(0, 1000, 10):
            before = len(hook.got)
            # Read and written anew each time: a restart between any two ticks changes nothing.
            memory, lines = deliver(state.read(), found, NOW + timedelta(seconds=seconds))
            state.write(memory)
            if len(hook.got) > before:
                tried.append(timedelta(seconds=seconds))
            assert all("s3cr3t" not in line for line in lines)
            assert "s3cr3t" not in state.file.read_text()
    assert tried == [timedelta(seconds=30 * (2**k - 1)) for k in range(6)]
    assert [body["at"] for _, body in hook.got[-2:]] == [other(0).at.isoformat(), other(1).at.isoformat()]
    assert len(hook.got) == 7
    assert state.read() == Memory(held=(ITEM,))


def test_a_channel_that_fails_holds_up_no_other_and_rests_an_hour_at_most(tmp_path: Path) -> None:
    sent: list[Message] = []

    def broken(_: Message) -> None:
        raise ChannelError("webhook: down")

    found = {"5m": {"webhook": broken, "log": sent.append}}
    memory = Memory(waiting=queued([other(0), other(1)], ["webhook", "log"], "5m"))
    now = NOW
    for attempt in range(1, 40):
        memory, lines = deliver(memory, found, now)
        assert len(lines) == 1
        ((_, _, trouble),) = memory.trouble
        assert trouble.attempts == attempt
        assert timedelta(seconds=30) <= trouble.again - now <= timedelta(hours=1)
        assert deliver(memory, found, trouble.again - timedelta(seconds=1)) == (memory, [])
        now = trouble.again
    assert sent == [other(0), other(1)]
    assert len(memory.waiting) == 2


def test_messages_of_a_channel_that_is_gone_are_given_up_aloud(tmp_path: Path) -> None:
    memory, lines = deliver(Memory(waiting=queued([MESSAGE], ["email"], "5m")), {"5m": {}}, NOW)
    assert memory == Memory()
    assert lines == ["email is not a channel of 5m any more: not sent: Tenor: run failed: 5m"]


def test_a_damaged_state_is_refused_with_its_file_and_what_to_do(tmp_path: Path) -> None:
    state = AlertState(tmp_path)
    assert state.read() == Memory()
    state.write(Memory(held=(ITEM,)))
    state.file.write_text(state.file.read_text()[:40])
    with pytest.raises(AlertsError, match=r"state\.json is damaged .*: remove it, and what is wrong is told anew"):
        state.read()
