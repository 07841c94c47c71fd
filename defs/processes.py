"""Child processes that start together and stop together, each with all that it started itself."""

import contextlib
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import psutil  # type: ignore[import-untyped]

GRACE_SECONDS = 20.0
PAUSE = 0.05  # seconds between looks at what is to end


@dataclass
class Processes:
    """A context that stops every child it started, politely first, when it ends for whatever reason."""

    _children: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(
        self, name: str, command: Sequence[str], env: Mapping[str, str], *, cwd: Path, log: Path | None = None
    ) -> None:
        """Start a child in `cwd` with `env` added to ours; its output goes to the file `log`, or to ours."""
        # A session of its own: the terminal's Ctrl-C reaches this process alone, which then stops the children.
        with contextlib.ExitStack() as files:
            output = files.enter_context(log.open("ab")) if log else None
            self._children[name] = subprocess.Popen(
                command,
                env={**os.environ, **env},
                cwd=cwd,
                start_new_session=True,
                stdout=output,
                stderr=subprocess.STDOUT if output else None,
            )

    def ended(self) -> tuple[str, int] | None:
        """The first child that ended by itself and its exit status, or None while all run."""
        for name, child in self._children.items():
            status = child.poll()
            if status is not None:
                return name, status
        return None

    def bury(self, name: str) -> None:
        """Forget a child that ended, once nothing of what it had started runs any more: it may be started again.

        What is left ends by itself (the service's helper, when it has written what it was handed) or is killed (the
        parts of `dagster dev`, which do not notice, and of which no two may run).
        """
        child = self._children[name]
        if not _gone(child, time.monotonic() + GRACE_SECONDS):
            _signal(child, signal.SIGKILL)
            _gone(child, math.inf)
        del self._children[name]

    def stop(self) -> None:
        """Stop all, killing what takes longer than GRACE_SECONDS, or what is left at a second Ctrl-C."""
        for child in self._children.values():
            _signal(child, signal.SIGINT)
        try:
            self._end(time.monotonic() + GRACE_SECONDS)
        except KeyboardInterrupt:
            self._end(time.monotonic())
        self._children.clear()

    def _end(self, deadline: float) -> None:
        for name, child in self._children.items():
            if not _gone(child, deadline):
                print(f"tenor: {name} has not stopped and is killed", file=sys.stderr)
                _signal(child, signal.SIGKILL)
                # Until they are: the last process that uses the store's database stops it, which may be this one.
                _gone(child, math.inf)

    def __enter__(self) -> "Processes":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _gone(child: subprocess.Popen[bytes], deadline: float) -> bool:
    """Wait until the child and all of its group have ended; False where `deadline` (of time.monotonic) comes first."""
    while child.poll() is None or _group(child.pid):
        if time.monotonic() >= deadline:
            return False
        time.sleep(PAUSE)
    return True


def _group(leader: int) -> list[int]:
    """Living processes of a child's group. A zombie has ended, though nobody may ever have asked how."""
    found = []
    for pid in psutil.pids():
        # It ended meanwhile; or it is somebody else's, of which not every system tells the group.
        with contextlib.suppress(ProcessLookupError, PermissionError, psutil.NoSuchProcess):
            if os.getpgid(pid) == leader and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                found.append(pid)
    return found


def _signal(child: subprocess.Popen[bytes], number: int) -> None:
    """Signal the child's whole group; one that is gone needs none (macOS refuses one of zombies)."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, number)
