"""The service under load, on this machine, the load generator included. Prints a line per claim:

    single      single-row v2 inference on one connection, beside MLServer's LightGBM runtime: same model, same rows
    sustained   1,000 requests a second over 100 connections, beside a null FastAPI route under the same load
    swaps       the same load while bundles are swapped, one in five of them broken: failed and wrong answers, p99

    python bench/serve.py [single] [sustained] [swaps] [--quick]

Peers take turns, so that they meet the same noise; rates and quantiles are medians over the turns. Answers are compared
with LightGBM's before anything is timed, and every answer during swaps with that of the bundle it names.
"""

import argparse
import json
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
import lightgbm as lgb
import numpy as np
from _bundles import LEAVES, TREES, bundles
from _load import answer, request
from _servers import mlserver, null, tenor
from _swaps import swap, write_broken

from quant.bundle import Bundle
from resources.registry import Registry

INFER = "/v2/models/5m/infer"
RATE, CONNECTIONS = 1_000, 100
ROWS = 64  # different ones, sent in turn


def sample(bundle: Bundle) -> np.ndarray:
    """float32 [ROWS, F] of the golden factors."""
    X = bundle.golden.select(bundle.factors).to_numpy()
    return np.ascontiguousarray(np.resize(X, (ROWS, X.shape[1])), np.float32)


def bodies(X: np.ndarray) -> list[str]:
    """Each row as a single-row inference request in JSON."""
    shape = [1, X.shape[1]]
    return [
        json.dumps({"inputs": [{"name": "factors", "shape": shape, "datatype": "FP32", "data": row.tolist()}]})
        for row in X.astype(np.float64)
    ]


class Single:
    """One connection that asks again as soon as it is answered; a new one each turn, idle ones are closed on us."""

    def __init__(self, port: int, sent: list[str]) -> None:
        self._port = port
        self._requests = [request(INFER, body.encode()) for body in sent]

    def _connect(self) -> socket.socket:
        made = socket.create_connection(("127.0.0.1", self._port), timeout=30)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return made

    def _ask(self, connection: socket.socket, number: int) -> bytes:
        connection.sendall(self._requests[number % len(self._requests)])
        data = b""
        while (found := answer(data)) is None:
            more = connection.recv(65536)
            assert more, "the server closed the connection"
            data += more
        status, body = found
        assert status == b"HTTP/1.1 200 OK", (status, body)
        return body

    def values(self) -> np.ndarray:
        """The prediction of every row."""
        with self._connect() as connection:
            told = [json.loads(self._ask(connection, number)) for number in range(len(self._requests))]
        return np.array([one["outputs"][0]["data"][0] for one in told])

    def turn(self, seconds: float) -> tuple[float, float, float]:
        """Requests a second, p50 and p99 in milliseconds."""
        taken: list[float] = []
        with self._connect() as connection:
            began = now = time.perf_counter()
            while now - began < seconds:
                self._ask(connection, len(taken))
                taken.append(-(now - (now := time.perf_counter())))
        return len(taken) / (now - began), *(1e3 * float(np.quantile(taken, q)) for q in (0.5, 0.99))


def single(store: Path, folder: Path, bundle: Bundle, quick: bool) -> None:
    X = sample(bundle)
    expected = lgb.Booster(model_str=bundle.text).predict(X.astype(np.float64), num_threads=1)
    with (
        tenor(store) as ours,
        tenor(store, predictions=False) as unlogged,
        mlserver(folder / "mlserver", bundle.text) as theirs,
    ):
        # MLServer keeps no record of what it answered, so Tenor is timed without its prediction log too.
        ports = {"Tenor": ours, "Tenor, no log": unlogged, "MLServer": theirs}
        peers = {name: Single(port, bodies(X)) for name, port in ports.items()}
        for name, peer in peers.items():
            worst = np.abs(peer.values() - expected).max() / np.abs(expected).max()
            assert worst <= 1e-9, f"{name} differs from LightGBM by {worst:.1e}"
            peer.turn(0.5)
        turns: dict[str, list[tuple[float, float, float]]] = {name: [] for name in peers}
        for _ in range(3 if quick else 9):
            for name, peer in peers.items():
                turns[name].append(peer.turn(1.0 if quick else 3.0))
    middle = {name: [statistics.median(one) for one in zip(*found, strict=True)] for name, found in turns.items()}
    base, _, least = middle["MLServer"]
    for name, (rate, p50, p99) in middle.items():
        print(
            f"single, one connection, {TREES} x {LEAVES}   {name:<13} {rate:6,.0f}/s ({rate / base:.2f}x)   "
            f"p50 {p50:.3f}   p99 {p99:.3f} ms ({p99 / least:.2f}x)"
        )


def load(folder: Path, port: int, path: str, sent: list[str], seconds: float,
         expected: dict[str, list[float]] | None) -> "subprocess.Popen[bytes]":  # fmt: skip
    """Start the load generator; `finish` reads what it found."""
    plan = {"port": port, "rate": RATE, "connections": CONNECTIONS, "seconds": seconds, "path": path}
    (folder / "plan.json").write_text(json.dumps(plan | {"bodies": sent, "expected": expected}))
    script = str(Path(__file__).with_name("_load.py"))
    return subprocess.Popen([sys.executable, script, str(folder / "plan.json"), str(folder / "found.npz")])


def finish(folder: Path, process: "subprocess.Popen[bytes]") -> dict[str, Any]:
    if process.wait():
        raise SystemExit("the load generator broke")
    with np.load(folder / "found.npz") as file:
        return dict(file)


def quantiles(seconds: np.ndarray) -> tuple[float, float, float]:
    """p50, p99 and the worst, in milliseconds."""
    p50, p99, worst = (1e3 * float(np.quantile(seconds, q)) for q in (0.5, 0.99, 1.0))
    return p50, p99, worst


def sustained(store: Path, folder: Path, bundle: Bundle, quick: bool) -> None:
    X = sample(bundle)
    sent, expected = bodies(X), {bundle.id: bundle.predict_rows(X).tolist()}
    with tenor(store) as ours, null(folder) as theirs:
        peers: dict[str, tuple[int, str, dict[str, list[float]] | None]] = {
            "tenor": (ours, INFER, expected), "null route": (theirs, "/null", None),
        }  # fmt: skip
        for port, path, _ in peers.values():
            finish(folder, load(folder, port, path, sent, 1.0, None))
        turns: dict[str, list[dict[str, Any]]] = {name: [] for name in peers}
        for _ in range(2 if quick else 6):
            for name, (port, path, values) in peers.items():
                turns[name].append(finish(folder, load(folder, port, path, sent, 5.0 if quick else 10.0, values)))
    for name, found in turns.items():
        p50, p99, _ = (
            statistics.median(part) for part in zip(*(quantiles(one["seconds"]) for one in found), strict=True)
        )
        worst = max(quantiles(one["seconds"])[2] for one in found)
        failed, wrong = sum(one["counts"] for one in found)
        count = sum(len(one["seconds"]) for one in found)
        print(f"sustained, {RATE:,}/s, {CONNECTIONS} connections   {name:<11} p50 {p50:.2f} ms   p99 {p99:.2f} ms   "
              f"worst {worst:.1f} ms   {count:,} answers, {failed} failed, {wrong} wrong")  # fmt: skip


def swaps(store: Path, folder: Path, made: list[Bundle], quick: bool) -> None:
    X = sample(made[0])
    expected = {bundle.id: bundle.predict_rows(X).tolist() for bundle in made}
    assert len({tuple(values) for values in expected.values()}) == len(made)
    count = 10 if quick else 50
    registry = Registry(store)
    with tenor(store) as port, httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=60) as client:
        # Enough for the service to start its helper, whose own start is no part of a quiet service.
        finish(folder, load(folder, port, INFER, bodies(X), 6.0, None))
        time.sleep(6.0)
        quiet_for, pause = (5.0, 0.2) if quick else (20.0, 0.2)
        process = load(folder, port, INFER, bodies(X), quiet_for + count * 1.5 + 2, expected)
        time.sleep(quiet_for)
        windows = []
        for number in range(count):
            # What a broken one takes to be written is no part of its swap.
            broken = write_broken(registry, made[number % 2], number) if number % 5 == 4 else None
            began = time.perf_counter()
            swap(client, registry, made, number, broken)
            windows.append((began, time.perf_counter()))
            time.sleep(pause)
        found = finish(folder, process)
    at, seconds = found["at"], found["seconds"]
    swapping = np.zeros(len(at), bool)
    for began, ended in windows:
        swapping |= (at >= began - 0.005) & (at <= ended)
    quiet = at < windows[0][0] - 0.01
    calm, busy = quantiles(seconds[quiet]), quantiles(seconds[swapping])
    failed, wrong = found["counts"]
    took = statistics.median(ended - began for began, ended in windows)
    print(f"swaps, {count} ({count // 5} broken) under {RATE:,}/s   quiet p50 {calm[0]:.2f} p99 {calm[1]:.2f} ms   "
          f"while swapping p50 {busy[0]:.2f} p99 {busy[1]:.2f} ms ({busy[1] / calm[1]:.2f}x)   {len(at):,} answers, "
          f"{failed} failed, {wrong} wrong   a swap takes {took * 1e3:.0f} ms")  # fmt: skip
    for text in [*found["failed"][:3], *found["wrong"][:3]]:
        print("  ", text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("claims", nargs="*", help="single, sustained, swaps (all)")
    parser.add_argument("--quick", action="store_true", help="a minute instead of ten")
    told = parser.parse_args()
    claims = told.claims or ["single", "sustained", "swaps"]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # so that the servers end with us
    made = bundles(2)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        store = folder / "store"
        registry = Registry(store)
        for bundle in made:
            registry.write(bundle, {})
        registry.promote("5m", made[0].id, "bench")
        if "single" in claims:
            single(store, folder, made[0], told.quick)
        if "sustained" in claims:
            sustained(store, folder, made[0], told.quick)
        if "swaps" in claims:
            swaps(store, folder, made, told.quick)


if __name__ == "__main__":
    main()
