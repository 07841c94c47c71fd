"""More at once than two cores can do: how many are answered and how soon, and whether the probes still are.

    python bench/overload.py [--quick]

800 connections each send one request at the same moment, three times; `/ready` is asked all the while by a process of
its own. Every answer is compared with the bundle's, and after each flood one more request must be answered.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from _bundles import bundles
from _load import request
from _servers import tenor

from quant.bundle import Bundle
from resources.registry import Registry

CONNECTIONS, ROWS, ROUNDS = 800, (1, 60), 3
PROBE = """
import http.client, json, sys, time
connection, waits = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1])), []
until = time.time() + float(sys.argv[2])
while time.time() < until:
    began = time.perf_counter()
    connection.request("GET", "/ready")
    reply = connection.getresponse()
    assert json.loads(reply.read()) == {"ready": True}
    waits.append(time.perf_counter() - began)
    time.sleep(0.002)
print(json.dumps(waits))
"""
SECONDS = 5.0  # of the probe, which begins before the flood and ends after it


@dataclass(frozen=True)
class Route:
    """One kind of request, and where its answer has the predictions. last: each is the last of its connection."""

    path: str
    body: bytes
    expected: list[float]
    last: bool = False

    @property
    def sent(self) -> bytes:
        sent = request(self.path, self.body)
        return sent.replace(b"\r\n", b"\r\nconnection: close\r\n", 1) if self.last else sent

    @property
    def name(self) -> str:
        return f"{self.path}, {len(self.expected)} rows{', connection: close' if self.last else ''}"

    def values(self, text: bytes) -> list[float]:
        told = json.loads(text)
        return told["outputs"][0]["data"] if "outputs" in told else [row["prediction"] for row in told["predictions"]]


def routes(bundle: Bundle, X: np.ndarray) -> list[Route]:
    """The same rows in the JSON of `POST /predict`, twice, and in that of v2."""
    expected = bundle.predict_rows(X).tolist()
    plain = json.dumps({"horizon": "5m", "rows": _rows(bundle, X)}).encode()
    tensor = {
        "name": "factors",
        "shape": list(X.shape),
        "datatype": "FP32",
        "data": X.astype(np.float64).ravel().tolist(),
    }
    return [
        Route("/predict", plain, expected),
        Route("/predict", plain, expected, last=True),
        Route("/v2/models/5m/infer", json.dumps({"inputs": [tensor]}).encode(), expected),
    ]


def _rows(bundle: Bundle, X: np.ndarray) -> list[dict[str, dict[str, float]]]:
    return [{"factors": dict(zip(bundle.factors, row, strict=True))} for row in X.astype(np.float64).tolist()]


class Connection:
    """One client, which asks and waits."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def ask(self, sent: bytes) -> tuple[int, float, bytes]:
        """Status, seconds and body of the answer."""
        began = time.perf_counter()
        self._writer.write(sent)
        head = (await self._reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
        size = next(int(line.partition(b":")[2]) for line in head if line.lower().startswith(b"content-length"))
        body = await self._reader.readexactly(size)
        return int(head[0].split()[1]), time.perf_counter() - began, body

    def close(self) -> None:
        self._writer.close()


async def flood(port: int, route: Route, rounds: int) -> None:
    """Print what became of each flood's requests; SystemExit for a wrong answer or one that is no refusal."""
    sent, expected = route.sent, route.expected
    for number in range(1, rounds + 1):
        # New ones each time: the service closes those that are idle while the probe goes on.
        made = [Connection(*await asyncio.open_connection("127.0.0.1", port)) for _ in range(CONNECTIONS)]
        words = [sys.executable, "-c", PROBE, str(port), str(SECONDS)]
        probe = await asyncio.create_subprocess_exec(*words, stdout=subprocess.PIPE)
        await asyncio.sleep(0.5)
        told = await asyncio.gather(*(one.ask(sent) for one in made))
        good = [seconds for status, seconds, body in told if status == 200 and route.values(body) == expected]
        shed = [seconds for status, seconds, body in told if status == 503 and b"overloaded" in body]
        if len(good) + len(shed) != CONNECTIONS or not good:
            raise SystemExit(f"{route.path}: {CONNECTIONS - len(good) - len(shed)} answers are wrong or no refusal")
        made.append(Connection(*await asyncio.open_connection("127.0.0.1", port)))
        status, seconds, body = await made[-1].ask(sent)
        for one in made:
            one.close()
        waits = np.array(json.loads((await probe.communicate())[0])) * 1e3
        if status != 200 or route.values(body) != expected:
            raise SystemExit(f"{route.path}: after the flood the answer is {status}")
        refused = f"{len(shed)} refused within {max(shed) * 1e3:.0f} ms" if shed else "none refused"
        print(
            f"{route.name} {number}: {len(good)} answered, half within {np.median(good) * 1e3:.0f} ms, all within "
            f"{max(good) * 1e3:.0f} ms; {refused}; /ready p50 {np.median(waits):.1f} ms, longest {waits.max():.0f} ms; "
            f"afterwards answered in {seconds * 1e3:.1f} ms",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one flood a route")
    rounds = 1 if parser.parse_args().quick else ROUNDS
    [bundle] = bundles(1)
    golden = bundle.golden.select(bundle.factors).to_numpy()
    floods = [np.ascontiguousarray(np.resize(golden, (rows, golden.shape[1])), np.float32) for rows in ROWS]
    with tempfile.TemporaryDirectory() as folder:
        registry = Registry(Path(folder))
        registry.write(bundle, {})
        registry.promote("5m", bundle.id, "bench")
        with tenor(Path(folder)) as port:
            for route in [route for X in floods for route in routes(bundle, X)]:
                print(f"{route.name}: {golden.shape[1]} factors, {len(route.body) / 1e3:.0f} kB", flush=True)
                asyncio.run(flood(port, route, rounds))


if __name__ == "__main__":
    main()
