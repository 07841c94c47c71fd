"""What changed the state of the service: who, what, before, after; lines that are only ever added.

    audit/2026-11-21.jsonl      one JSON object a line, of every instance over this store

A line is one write to a file opened for appending, through to the disk before the caller goes on.
"""

import json
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from resources.clock import Clock
from serving.logs import correlation

FOLDER = "audit"
FOLLOWER = "ledger"  # who changes what serves when nobody asks: the follower of the promotion ledger


class AuditLog:
    """The audit log of a store; `record` may be called from any thread."""

    def __init__(self, root: Path, clock: Clock) -> None:
        self._folder = Path(root) / FOLDER
        self._clock = clock
        self._instance = f"{socket.gethostname()}:{os.getpid()}"
        self._lock = threading.Lock()

    def record(self, who: str, what: str, *, before: Any, after: Any, **facts: Any) -> None:
        """Add a line. facts: what else there is to say, such as the horizon and why. OSError where it cannot."""
        now = self._clock.now()
        line = {"at": now.isoformat(), "who": who, "what": what, "before": before, "after": after, **facts}
        line |= {"instance": self._instance, "correlation_id": correlation.get()}
        data = json.dumps(line, default=str, allow_nan=False).encode() + b"\n"
        with self._lock:
            self._folder.mkdir(parents=True, exist_ok=True)
            handle = os.open(self._folder / f"{now:%Y-%m-%d}.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
            try:
                if (written := os.write(handle, data)) != len(data):
                    raise OSError(
                        f"only {written} of {len(data)} bytes of an audit line were written: the disk is full"
                    )
                os.fsync(handle)
            finally:
                os.close(handle)

    def lines(self) -> Iterator[dict[str, Any]]:
        """Every line, oldest first."""
        for file in sorted(self._folder.glob("*.jsonl")):
            for line in file.read_text().splitlines():
                yield json.loads(line)
