"""Children that are started again when they end: what `tenor up` runs for weeks."""

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from defs.processes import Processes

FIRST, LONGEST = 1.0, 60.0  # seconds of pause before a start: doubled each time
LIVED = 60.0  # seconds that a child must run for its end to be no sign of the next one
MOST = 8  # ends in a row, each sooner than that, after which it is given up: two minutes of pauses
REFUSED = 2  # the exit status of what was told something wrong, and would be told it again


class GivenUp(RuntimeError):
    """A child that does not stay; the message names it, its status and its log."""


@dataclass
class _Child:
    command: Sequence[str]
    env: Mapping[str, str]
    cwd: Path
    log: Path
    began: float = 0.0
    soon: int = 0  # ends in a row, each before it had lived
    due: float | None = None  # when it is started again; None while it runs


class Kept:
    """Children of `processes` that run for as long as they can be kept running."""

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self._children: dict[str, _Child] = {}

    def start(self, name: str, command: Sequence[str], env: Mapping[str, str], *, cwd: Path, log: Path) -> None:
        """Start a child in `cwd` with `env` added to ours; its output goes to the file `log`."""
        self._children[name] = _Child(command, env, cwd, log)
        self._start(name)

    def look(self) -> None:
        """See to those that ended, and start those whose pause is over; GivenUp where one does not stay."""
        while (ended := self._processes.ended()) is not None:
            name, status = ended
            self._pause(name, f"ended by itself with status {status}", hopeless=status == REFUSED)
            # Nothing may run twice, nor hold the port: two of Dagster's daemons on one store would both ask for runs.
            self._processes.bury(name)
        for name, child in self._children.items():
            if child.due is not None and child.due <= time.monotonic():
                try:
                    self._start(name)
                except OSError as error:  # no memory for a process: there may be some later
                    self._pause(name, f"could not be started ({error.strerror})")

    def _start(self, name: str) -> None:
        child = self._children[name]
        child.began = time.monotonic()
        self._processes.start(name, child.command, child.env, cwd=child.cwd, log=child.log)
        child.due = None

    def _pause(self, name: str, how: str, *, hopeless: bool = False) -> None:
        """Tell how a child ended, and when it is started again; GivenUp where it is not."""
        child, now = self._children[name], time.monotonic()
        child.soon = child.soon + 1 if now - child.began < LIVED else 0
        said = f"{name} {how}, see {child.log}"
        if hopeless:
            raise GivenUp(f"{said}: it would again")
        if child.soon >= MOST:
            raise GivenUp(f"{said}: {MOST} times in a row within {LIVED:.0f} s of its start")
        pause = min(FIRST * 2 ** max(child.soon - 1, 0), LONGEST)
        print(f"tenor: {said}; it is started again in {pause:g} s", file=sys.stderr, flush=True)
        child.due = now + pause
