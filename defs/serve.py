"""`tenor serve`: the service alone, in this process. It imports little: a service that was killed must be back soon."""

import os
import socket
from collections.abc import Sequence

from conf.compose import compose
from conf.errors import ConfigError
from conf.files import REPOSITORY
from defs.look import root_of, with_all_horizons
from defs.service import command


def serve(overrides: Sequence[str]) -> int:
    """Run the service alone, in this process."""
    horizons = compose(with_all_horizons(overrides))
    first = next(iter(horizons.values()))
    check_ports(first.serving.port)
    os.chdir(REPOSITORY)
    words = command(root_of(first), first.serving)
    os.execv(words[0], words)


def check_ports(*ports: int) -> None:
    """ConfigError for the first port that something listens on already."""
    for port in ports:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                fix = "Stop what listens there (another `tenor up`?), or choose serving.port and serving.dagster_port"
                raise ConfigError("command line", f"port {port} is in use", fix=fix)
