"""One log line per request, for a microsecond each: written together ten times a second, at most so many a second.

A line through `logging` costs more than a prediction. What is over the budget is counted in a line of its own, so that
nothing is dropped silently; the prediction log and the metrics know every request.
"""

import asyncio
import logging
import sys
from collections.abc import Callable
from typing import Any

import msgspec

from resources.clock import Clock
from serving.logs import log

PAUSE = 0.1  # seconds between writes: what a kill -9 can lose


class AccessLines:
    """Lines of requests. per_second: how many that succeeded are written, and as many that failed."""

    def __init__(self, per_second: int, clock: Clock, write: Callable[[str], object] | None = None) -> None:
        self._budget = max(1, round(per_second * PAUSE))
        self._clock = clock
        self._write = write or _to_stderr
        self._lines: dict[bool, list[dict[str, Any]]] = {False: [], True: []}
        self._over = {False: 0, True: 0}
        self._due: asyncio.TimerHandle | None = None

    def add(self, method: str, path: str, status: int, seconds: float, correlation_id: str) -> None:
        """Note one answered request."""
        if not log.isEnabledFor(logging.INFO):
            return
        failed = status >= 400
        lines = self._lines[failed]
        if len(lines) >= self._budget:
            self._over[failed] += 1
        else:
            facts = {"method": method, "path": path, "status": status, "milliseconds": round(seconds * 1e3, 3)}
            lines.append(self._line("request", correlation_id=correlation_id, **facts))
        if self._due is None:
            self._due = asyncio.get_running_loop().call_later(PAUSE, self.flush)

    def flush(self) -> None:
        """Write what is noted; call it once more before the process ends."""
        if self._due is not None:
            self._due.cancel()
            self._due = None
        lines = [*self._lines[False], *self._lines[True]]
        if any(self._over.values()):
            lines.append(self._line("requests without a line", succeeded=self._over[False], failed=self._over[True]))
        self._lines, self._over = {False: [], True: []}, {False: 0, True: 0}
        if lines:
            self._write("".join(msgspec.json.encode(line).decode() + "\n" for line in lines))

    def _line(self, event: str, **facts: Any) -> dict[str, Any]:
        time = self._clock.now().isoformat(timespec="milliseconds")
        return {"time": time, "level": "info", "logger": log.name, "event": event, **facts}


def _to_stderr(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()
