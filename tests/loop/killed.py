"""A run in a process of its own that is killed in the middle of its first write: files are there, no commit names them.

Started by the tests as `python -m tests.loop.killed <store> <run id>`.
"""

import os
import signal
import sys
from pathlib import Path

from dagster._core.launcher.base import LaunchRunContext

from resources.staging import Staged
from tests.loop.daemon import instance


def main(root: Path, run_id: str) -> None:
    flush = Staged.flush

    def killed(staged: Staged) -> None:
        flush(staged)
        if staged.files:
            os.kill(os.getpid(), signal.SIGKILL)

    Staged.flush = killed  # type: ignore[method-assign]
    with instance(root) as stored:
        run = stored.get_run_by_id(run_id)
        assert run is not None
        stored.run_launcher.launch_run(LaunchRunContext(run, None))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
