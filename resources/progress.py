"""How a step says how far it is: the command line draws it, a daemon's run logs it."""

import logging
import time
from typing import Protocol


class Progress(Protocol):
    """Receives the rows a step has done so far, or a line that says more than a number can."""

    def rows(self, horizon: str, step: str, done: int) -> None: ...

    def says(self, horizon: str, step: str, text: str) -> None: ...


class LoggedProgress:
    """Logs at most one line per step every ten seconds."""

    def __init__(self, every: float = 10.0) -> None:
        self._every = every
        self._last: dict[tuple[str, str], float] = {}
        self._log = logging.getLogger("tenor.progress")

    def rows(self, horizon: str, step: str, done: int) -> None:
        self.says(horizon, step, f"{done:,} rows")

    def says(self, horizon: str, step: str, text: str) -> None:
        now = time.monotonic()
        if now - self._last.get((horizon, step), now - self._every) >= self._every:
            self._last[(horizon, step)] = now
            self._log.info("%s %s: %s", horizon, step, text)
