"""The channels of alerts: one function sends one message, or says why it cannot, with no secret in what it says."""

import json
import os
import smtplib
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from email.message import EmailMessage
from email.utils import format_datetime
from pathlib import Path
from typing import Any, Final

from conf.alerting import Alerts, Email, Webhook
from resources.alert_rules import Message, Trial

SECONDS: Final = 5.0  # that a channel may take for one message
Sent = Message | Trial
Channel = Callable[[Sent], None]


class ChannelError(RuntimeError):
    """A message that was not sent; the message says through what, and why, and holds no secret."""


def channels(alerts: Alerts, root: Path) -> dict[str, Channel]:
    """What sends, by channel: those that the config has. `root`: the store's folder."""
    found: dict[str, Channel] = {}
    if alerts.log:
        found["log"] = lambda message: append(root, message)
    if (webhook := alerts.webhook) is not None:
        found["webhook"] = lambda message: _within(lambda: post(webhook, message), "webhook")
    if (email := alerts.email) is not None:
        found["email"] = lambda message: _within(lambda: mail(email, message), "email")
    return found


def append(root: Path, message: Sent) -> None:
    """Add the message to alerts/log.jsonl of the store."""
    file = root / "alerts" / "log.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(message.to_json()) + "\n")


def post(webhook: Webhook, message: Sent) -> None:
    """POST the message as JSON; any answer but 2xx is an error."""
    # urllib, as it writes no URL to any log: the URL of a webhook is a secret itself.
    url = _secret(webhook.url_from)
    if not url.startswith(("http://", "https://")):
        raise ChannelError(f"webhook: the environment variable {webhook.url_from} holds no http:// or https:// URL")
    headers = {"content-type": "application/json", "user-agent": "tenor"}
    if webhook.header and webhook.header_from:
        headers[webhook.header] = _secret(webhook.header_from)
    try:
        request = urllib.request.Request(url, json.dumps(message.to_json()).encode(), headers)
        with _opener().open(request, timeout=SECONDS):
            return
    except urllib.error.HTTPError as error:
        raise ChannelError(f"webhook: the address in {webhook.url_from} answered {error.code}") from None
    except urllib.error.URLError as error:
        reason = type(error.reason).__name__ if isinstance(error.reason, Exception) else "no connection"
        raise ChannelError(f"webhook: no answer from the address in {webhook.url_from}: {reason}") from None
    except (OSError, ValueError) as error:  # ValueError: a URL or a header that cannot be sent, and it would be quoted
        raise ChannelError(f"webhook: the address in {webhook.url_from} failed: {type(error).__name__}") from None


def mail(email: Email, message: Sent) -> None:
    """Send the message over SMTP; a login only after TLS where `security` asks for it."""
    letter = EmailMessage()
    letter["From"], letter["To"], letter["Subject"] = email.from_, ", ".join(email.to), message.subject
    letter["Date"] = format_datetime(message.at)
    letter["Message-ID"] = f"<{message.id}@tenor>"
    letter.set_content(message.text)
    password = _secret(email.password_from) if email.password_from else None
    context = ssl.create_default_context()
    try:
        connect: Callable[[], smtplib.SMTP] = (
            (lambda: smtplib.SMTP_SSL(email.host, email.port, timeout=SECONDS, context=context))
            if email.security == "tls"
            else (lambda: smtplib.SMTP(email.host, email.port, timeout=SECONDS))
        )
        with connect() as server:
            if email.security == "starttls":
                server.starttls(context=context)
            if email.user is not None and password is not None:
                server.login(email.user, password)
            server.send_message(letter)
    except smtplib.SMTPResponseException as error:
        # The server's own words are left out: it may quote the login.
        raise ChannelError(f"email: {email.host}:{email.port} answered {error.smtp_code}") from None
    except (OSError, smtplib.SMTPException, ValueError) as error:
        raise ChannelError(f"email: {email.host}:{email.port} failed: {type(error).__name__}") from None


def _within(send: Callable[[], None], name: str) -> None:
    """Send, and give up after SECONDS even where the other side keeps the connection busy."""
    outcome: list[BaseException | None] = []

    def run() -> None:
        try:
            send()
        except BaseException as error:
            outcome.append(error)
        else:
            outcome.append(None)

    thread = threading.Thread(target=run, name=f"alert-{name}", daemon=True)
    thread.start()
    thread.join(SECONDS)
    if not outcome:
        raise ChannelError(f"{name}: not sent within {SECONDS:g} s")
    if outcome[0] is not None:
        raise outcome[0]


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A webhook that moved is an error: following it would drop the message's body and hand its header to others."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _opener() -> urllib.request.OpenerDirector:
    return urllib.request.build_opener(_NoRedirect)


def _secret(variable: str, environment: Mapping[str, str] = os.environ) -> str:
    found = environment.get(variable, "").strip()
    if not found:
        raise ChannelError(
            f"the environment variable {variable} is not set: start Tenor with it, or change conf/alerts"
        )
    return found
