"""`tenor up`: the long-running parts, started and stopped together."""

import contextlib
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import httpx

from conf.compose import check_structural, compose
from conf.files import REPOSITORY
from conf.options import Serving
from defs.code_server import CodeServer
from defs.kept import GivenUp, Kept
from defs.look import root_of, with_all_horizons
from defs.processes import Processes
from defs.serve import check_ports
from defs.service import command, ui_of, url_of
from resources.database import Database
from resources.settings import OVERRIDES_VARIABLE

STARTING_SECONDS = 120.0
PAUSE = 0.5  # seconds between looks at what runs


def up(overrides: Sequence[str]) -> int:
    """Run the Dagster UI, its daemon and the service until Ctrl-C; 1 when one of them cannot be kept running."""
    horizons = compose(with_all_horizons(overrides))
    check_structural(overrides)
    first = next(iter(horizons.values()))
    root, serving = root_of(first), first.serving
    check_ports(serving.dagster_port, serving.port)
    # Started here, before its users race for it, and held for as long as they run.
    database = Database(root)
    database.ensure()
    environment = {
        OVERRIDES_VARIABLE: shlex.join(overrides),
        "TENOR_HOME": str(root),
        "DAGSTER_HOME": str(REPOSITORY),
    }
    with Processes() as processes:
        kept = Kept(processes)
        try:
            for name, words in (
                ("dagster", dagster(serving)),
                ("service", command(root, serving)),
            ):
                kept.start(name, words, environment, cwd=REPOSITORY, log=root / f"{name}.log")
            print("starting …", flush=True)
            silent = _wait(kept, serving)
            state = f"still starting: no answer from {', '.join(silent)} yet" if silent else "Tenor is up"
            print(
                f"{state}; Ctrl-C stops it.\n"
                f"  UI       {ui_of(serving)}   log: {root}/dagster.log\n"
                f"  service  {url_of(serving)}   log: {root}/service.log",
                flush=True,
            )
            code = CodeServer(ui_of(serving), root / "dagster.log")
            while True:
                kept.look()
                code.look()
                time.sleep(PAUSE)
        except GivenUp as error:
            print(f"tenor: {error}; stopping", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print("stopping …", flush=True)
            return 0


def dagster(serving: Serving) -> list[str]:
    """`dagster dev`: the UI and the daemon over one code server."""
    program = str(Path(sys.executable).with_name("dagster"))
    port = str(serving.dagster_port)
    return [program, "dev", "-w", "workspace.yaml", "-h", "127.0.0.1", "-p", port, "--log-level", "warning"]


def _wait(kept: Kept, serving: Serving) -> list[str]:
    """Until the UI and the service answer, or starting takes too long: what did not answer by then."""
    until = time.monotonic() + STARTING_SECONDS
    waiting = [f"{ui_of(serving)}/server_info", f"{url_of(serving)}/health"]
    while waiting and time.monotonic() < until:
        kept.look()
        with contextlib.suppress(httpx.HTTPError):
            httpx.get(waiting[0], trust_env=False).raise_for_status()
            del waiting[0]
        time.sleep(0.2)
    return waiting
