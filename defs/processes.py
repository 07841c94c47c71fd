"""Child processes that start together and stop together."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

GRACE_SECONDS = 20.0


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

    def stop(self) -> None:
        for child in self._children.values():
            _signal(child, signal.SIGINT)
        deadline = time.monotonic() + GRACE_SECONDS
        for name, child in self._children.items():
            try:
                child.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                print(f"tenor: {name} did not stop within {GRACE_SECONDS:.0f} s and is killed", file=sys.stderr)
                _signal(child, signal.SIGKILL)
                child.wait()
        self._children.clear()

    def __enter__(self) -> "Processes":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _signal(child: subprocess.Popen[bytes], number: int) -> None:
    """Signal the child's whole session; a child that is gone needs none."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, number)
