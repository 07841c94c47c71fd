"""`tenor up` and `tenor serve`: the long-running parts, started and stopped together."""

import contextlib
import os
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from conf.compose import check_structural, compose
from conf.schema import Serving
from defs.look import root_of, with_all_horizons
from defs.processes import Processes
from defs.service import command, url_of
from resources.dagster_storage import REPOSITORY
from resources.database import Database
from resources.inference import Inference, ServiceDown
from resources.settings import OVERRIDES_VARIABLE

STARTING_SECONDS = 120.0


def up(overrides: Sequence[str]) -> int:
    """Run the Dagster UI, its daemon and the service until Ctrl-C; 1 when one of them ends by itself."""
    check_structural(overrides)
    horizons = compose(with_all_horizons(overrides))
    first = next(iter(horizons.values()))
    root, serving = root_of(first), first.serving
    # Started here, before its users race for it, and held for as long as they run.
    database = Database(root)
    database.ensure()
    environment = {
        OVERRIDES_VARIABLE: shlex.join(overrides),
        "TENOR_HOME": str(root),
        "DAGSTER_HOME": str(REPOSITORY),
    }
    with Processes() as processes:
        processes.start("the Dagster UI", dagster(serving), environment, cwd=REPOSITORY)
        processes.start("the service", command(root, serving.host, serving.port), environment, cwd=REPOSITORY)
        with Inference(url_of(serving)) as service:
            _wait(processes, service)
        print(
            f"\nTenor is up; Ctrl-C stops it.\n  UI       http://127.0.0.1:{serving.dagster_port}\n"
            f"  service  {url_of(serving)}   documentation: {url_of(serving)}/docs\n",
            flush=True,
        )
        return _until_one_ends(processes)


def serve(overrides: Sequence[str]) -> int:
    """Run the service alone, in this process."""
    horizons = compose(with_all_horizons(overrides))
    first = next(iter(horizons.values()))
    os.chdir(REPOSITORY)
    words = command(root_of(first), first.serving.host, first.serving.port)
    os.execv(words[0], words)


def dagster(serving: Serving) -> list[str]:
    """`dagster dev`: the UI and the daemon over one code server."""
    program = str(Path(sys.executable).with_name("dagster"))
    port = str(serving.dagster_port)
    return [program, "dev", "-w", "workspace.yaml", "-h", "127.0.0.1", "-p", port, "--log-level", "warning"]


def _wait(processes: Processes, service: Inference) -> None:
    """Until the service answers, a child ends, or starting takes too long."""
    until = time.monotonic() + STARTING_SECONDS
    while processes.ended() is None and time.monotonic() < until:
        with contextlib.suppress(ServiceDown):
            service.health()
            return
        time.sleep(0.2)


def _until_one_ends(processes: Processes) -> int:
    while (ended := processes.ended()) is None:
        time.sleep(0.5)
    name, status = ended
    print(f"tenor: {name} ended by itself with status {status}; stopping the rest", file=sys.stderr)
    return 1
