"""A load of requests at a steady rate over many connections, in a process of its own: `python bench/_load.py PLAN OUT`.

PLAN is JSON: port, rate (requests a second), connections, seconds, path, bodies (texts, sent in turn), expected (bundle
-> a value per body, null: not checked). OUT gets an npz: `at` (seconds of the monotonic clock at which a request was
due), `seconds` (from then to its answer), texts of answers that were not 200 (`failed`) or not the expected (`wrong`).

A connection asks on its schedule whatever became of its last request; what falls due before that is answered waits
in line, and its waiting counts.
"""

import asyncio
import json
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import uvloop

clock = time.perf_counter


def request(path: str, body: bytes) -> bytes:
    """The bytes of a POST on a connection that stays open."""
    head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
    return head.encode() + b"\r\n\r\n" + body


def answer(data: bytes) -> tuple[bytes, bytes] | None:
    """Status line and body of a whole answer, None while a part is missing."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    head = data[:end].lower()
    place = head.index(b"content-length:") + 15
    line_end = head.find(b"\r\n", place)
    size = int(head[place : line_end if line_end >= 0 else end])
    if len(data) < end + 4 + size:
        return None
    return data[: data.index(b"\r\n")], data[end + 4 : end + 4 + size]


class Result:
    """What all connections found."""

    def __init__(self, expected: dict[str, list[float]] | None) -> None:
        self.expected = expected
        self.at: list[float] = []
        self.seconds: list[float] = []
        self.failed: list[str] = []
        self.wrong: list[str] = []

    def note(self, due: float, body_number: int, status: bytes, body: bytes) -> None:
        self.at.append(due)
        self.seconds.append(clock() - due)
        if not status.endswith(b" 200 OK"):
            self.failed.append((status + body).decode())
        elif self.expected is not None:
            told = json.loads(body)
            if told["outputs"][0]["data"] != [self.expected[told["parameters"]["bundle"]][body_number]]:
                self.wrong.append(body.decode())


class Connection(asyncio.Protocol):
    """One connection and its schedule."""

    def __init__(self, requests: list[bytes], first: int, result: Result) -> None:
        self._requests = requests
        self._next = first
        self._result = result
        self._due: deque[tuple[float, int]] = deque()
        self._data = b""
        self._transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def ask(self) -> None:
        self._next = (self._next + 1) % len(self._requests)
        self._due.append((clock(), self._next))
        if len(self._due) == 1:
            self._transport.write(self._requests[self._next])

    def data_received(self, data: bytes) -> None:
        self._data += data
        found = answer(self._data)
        if found is None:
            return
        self._data = b""
        due, number = self._due.popleft()
        self._result.note(due, number, *found)
        if self._due:
            self._transport.write(self._requests[self._due[0][1]])

    def connection_lost(self, error: Exception | None) -> None:
        self._result.failed += [f"the connection was lost: {error}"] * len(self._due)
        self._due.clear()

    @property
    def waiting(self) -> bool:
        return bool(self._due)

    def close(self) -> None:
        self._transport.close()


async def run(plan: dict[str, Any]) -> Result:
    loop = asyncio.get_running_loop()
    result = Result(plan["expected"])
    requests = [request(plan["path"], body.encode()) for body in plan["bodies"]]
    made = [
        (await loop.create_connection(lambda at=at: Connection(requests, at, result), "127.0.0.1", plan["port"]))[1]
        for at in range(plan["connections"])
    ]
    each, until = plan["connections"] / plan["rate"], clock() + plan["seconds"]

    async def keep_asking(connection: Connection, first: float) -> None:
        due = clock() + first
        while due < until:
            await asyncio.sleep(max(0.0, due - clock()))
            connection.ask()
            due += each

    await asyncio.gather(*(keep_asking(one, each * at / len(made)) for at, one in enumerate(made)))
    for _ in range(500):
        if not any(connection.waiting for connection in made):
            break
        await asyncio.sleep(0.01)
    result.failed += ["no answer within five seconds" for connection in made if connection.waiting]
    for connection in made:
        connection.close()
    return result


def main() -> None:
    plan, out = json.loads(Path(sys.argv[1]).read_text()), sys.argv[2]
    result = uvloop.run(run(plan))
    np.savez(out, at=result.at, seconds=result.seconds, failed=result.failed[:20], wrong=result.wrong[:20],
             counts=[len(result.failed), len(result.wrong)])  # fmt: skip


if __name__ == "__main__":
    main()
