"""A real Chromium over the DevTools protocol: opens a page, asks it, and remembers what it fetched and logged."""

import itertools
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.sync.client import ClientConnection, connect

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
PATIENCE = 30.0  # seconds


class Page:
    """One tab."""

    def __init__(self, socket: ClientConnection) -> None:
        self.fetched: list[str] = []  # addresses
        self.troubles: list[str] = []  # errors that the page or the browser logged
        self._socket = socket
        self._numbers = itertools.count(1)
        for domain in ("Network", "Log", "Runtime", "Page"):
            self._call(f"{domain}.enable")

    def open(self, url: str) -> None:
        self._call("Page.navigate", url=url)

    def value(self, script: str) -> Any:
        """What a script of the page comes to; a promise is awaited."""
        told = self._call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    def until(self, script: str, seconds: float = PATIENCE) -> Any:
        """Wait until a script of the page gives something."""
        until = time.monotonic() + seconds
        while not (found := self.value(script)):
            assert time.monotonic() < until, (
                f"{script}: {found!r}; {self.troubles}; {self.value('document.body.innerText')}"
            )
            time.sleep(0.05)
        return found

    def shows(self, text: str, seconds: float = PATIENCE) -> None:
        """Wait until the page shows a text."""
        self.until(f"document.body?.innerText.includes({json.dumps(text)})", seconds)

    def follow(self, address: str, seconds: float = PATIENCE) -> str:
        """Wait for a link whose address contains this, click it, and wait for what opens; its address.

        A link that opens a tab of its own opens in this one.
        """
        found = f"[...document.querySelectorAll('a')].find(link => link.href.includes({json.dumps(address)}))"
        href = self.until(f"{found}?.href", seconds)
        self.value(f"(link => {{ link.removeAttribute('target'); setTimeout(() => link.click()) }})({found}), null")
        self.until(f"location.href.startsWith({json.dumps(href)}) && document.readyState === 'complete'", seconds)
        return str(href)

    def _call(self, method: str, **params: Any) -> Any:
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while (message := json.loads(self._socket.recv(PATIENCE))).get("id") != number:
            self._remember(message)
        assert "error" not in message, message
        return message["result"]

    def _remember(self, message: dict[str, Any]) -> None:
        params = message.get("params", {})
        match message["method"]:
            case "Network.requestWillBeSent":
                self.fetched.append(params["request"]["url"])
            case "Network.webSocketCreated":
                self.fetched.append(params["url"])
            case "Log.entryAdded" if params["entry"]["level"] == "error":
                self.troubles.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
            case "Runtime.exceptionThrown":
                self.troubles.append(str(params["exceptionDetails"]))


@contextmanager
def chromium(folder: Path) -> Iterator[Page]:
    """A headless browser with an empty profile in `folder`; the test skips, saying so, where there is none."""
    binary = next(filter(None, map(shutil.which, NAMES)), None)
    if binary is None:
        pytest.skip(f"no browser is installed: none of {', '.join(NAMES)} is there")
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
    with (folder / "browser.log").open("wb") as log:
        # In a group of its own: the script that starts it on Debian and its children end with it.
        process = subprocess.Popen(
            [binary, *flags, "--remote-debugging-port=0", f"--user-data-dir={folder}/profile", "about:blank"],
            stdout=log,
            stderr=log,
            env={"HOME": str(folder), "PATH": "/usr/bin:/bin"},
        )
        try:
            port = _port(folder / "profile" / "DevToolsActivePort", process)
            tabs = httpx.get(f"http://127.0.0.1:{port}/json/list", trust_env=False).json()
            address = next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page")
            with connect(address, max_size=None, compression=None, proxy=None) as socket:
                yield Page(socket)
        finally:
            process.terminate()
            process.wait(PATIENCE)


def _port(file: Path, process: subprocess.Popen[bytes]) -> int:
    until = time.monotonic() + PATIENCE
    while not (file.is_file() and file.read_text().count("\n")):
        assert process.poll() is None, "the browser ended while it started"
        assert time.monotonic() < until, "the browser does not listen"
        time.sleep(0.05)
    return int(file.read_text().split()[0])
