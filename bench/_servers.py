"""Servers for the benches, each a process of its own on a free port of this machine."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from serving.options import read

ROOT = Path(__file__).parents[1]
MLSERVER = "1.7.1"
NULL = """
from fastapi import FastAPI
import uvicorn
app = FastAPI()
@app.post("/null")
async def null() -> dict[str, bool]:
    return {"ok": True}
uvicorn.run(app, port=%d, loop="uvloop", http="httptools", access_log=False, log_level="warning")
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(words: list[str], ready: str, log: Path, cwd: Path = ROOT) -> Iterator[subprocess.Popen[bytes]]:
    """A server until the block ends; SystemExit with the end of its log where it does not come up."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("TENOR_", "OTEL_"))}
    environment["OMP_NUM_THREADS"] = "1"  # a row is too little work for two threads: they only wait for each other
    with log.open("wb") as sink:
        process = subprocess.Popen(
            words, cwd=cwd, stdout=sink, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )
    try:
        until = time.monotonic() + 180
        while not _answers(ready):
            if process.poll() is not None or time.monotonic() > until:
                raise SystemExit(f"{words[:4]} did not come up:\n{log.read_text()[-3000:]}")
            time.sleep(0.1)
        yield process
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


@contextmanager
def tenor(store: Path, *, predictions: bool = True) -> Iterator[int]:
    """The service over a store, as it is configured but for its prediction log; its port."""
    port = free_port()
    options = read()
    options = options.model_copy(update={"log": options.log.model_copy(update={"predictions": predictions})})
    words = [sys.executable, "-m", "serving", "--store", str(store), "--port", str(port)]
    words += ["--options", options.model_dump_json()]
    with running(words, f"http://127.0.0.1:{port}/ready", store / f"service{port}.log"):
        yield port


@contextmanager
def null(folder: Path) -> Iterator[int]:
    """A FastAPI route that does nothing, served by uvicorn as the service is; its port."""
    port = free_port()
    words = [sys.executable, "-c", NULL % port]
    with running(words, f"http://127.0.0.1:{port}/docs", folder / "null.log"):
        yield port


@contextmanager
def mlserver(folder: Path, model: str) -> Iterator[int]:
    """MLServer with its LightGBM runtime in an environment that uv makes, predicting in its own process; its port.

    In-process (`parallel_workers: 0`) because that is its faster way for one row: no second process to hand it to.
    """
    port = free_port()
    folder.mkdir()
    settings = {"host": "127.0.0.1", "http_port": port, "grpc_port": free_port(), "metrics_port": free_port()}
    (folder / "settings.json").write_text(json.dumps(settings | {"parallel_workers": 0, "debug": False}))
    named = {"name": "5m", "implementation": "mlserver_lightgbm.LightGBMModel", "parameters": {"uri": "./model.bst"}}
    (folder / "model-settings.json").write_text(json.dumps(named))
    (folder / "model.bst").write_text(model)
    uv = [str(Path(sys.executable).with_name("uv")), "run", "--no-project", "--isolated", "--python", "3.11"]
    wanted = ["--with", f"mlserver=={MLSERVER}", "--with", f"mlserver-lightgbm=={MLSERVER}"]
    ready = f"http://127.0.0.1:{port}/v2/models/5m/ready"
    with running([*uv, *wanted, "mlserver", "start", "."], ready, folder / "mlserver.log", cwd=folder):
        yield port


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False, timeout=5).status_code == 200
    except httpx.TransportError:
        return False
