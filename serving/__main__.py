"""Run the service: `python -m serving --store .tenor --port 8321`; loopback only unless told otherwise."""

import argparse
import ipaddress
import logging
import os
from collections.abc import Sequence
from pathlib import Path

import uvicorn

from serving.app import create_app
from serving.logs import configure, event

DRAIN = 15  # seconds that requests in flight get to finish after a stop signal


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until SIGINT or SIGTERM, then finish the requests in flight."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if not _loopback(options.host):
        if not options.allow_remote:
            parser.error(
                f"other machines reach {options.host} and this service has no API keys: anybody there could "
                "read models and load bundles. Use 127.0.0.1, or add --allow-remote if a proxy guards it"
            )
        configure(options.log_level)
        event(logging.WARNING, "serving other machines without API keys", host=options.host)
    configure(options.log_level)
    horizons = [name.strip() for name in options.horizons.split(",") if name.strip()]
    uvicorn.run(
        create_app(Path(options.store), horizons, follow_seconds=options.follow),
        host=options.host,
        port=options.port,
        log_config=None,  # our JSON lines
        access_log=False,  # `Observe` writes one line per request, with its correlation id
        timeout_graceful_shutdown=DRAIN,
    )


def _parser() -> argparse.ArgumentParser:
    env = os.environ.get
    parser = argparse.ArgumentParser(prog="python -m serving", description="Serve the champions of a registry.")
    add = parser.add_argument
    add("--store", default=env("TENOR_HOME", ".tenor"), help="store root (TENOR_HOME; .tenor)")
    add(
        "--horizons",
        default=env("TENOR_HORIZONS", ""),
        help="names, comma-separated, known before their first bundle",
    )
    add("--host", default=env("TENOR_HOST", "127.0.0.1"), help="address to bind (TENOR_HOST; 127.0.0.1)")
    add("--port", type=int, default=int(env("TENOR_PORT", "8321")), help="port (TENOR_PORT; 8321)")
    add("--follow", type=float, default=5.0, help="seconds between looks at the promotion ledger (5)")
    add(
        "--allow-remote",
        action="store_true",
        help="permit an address that other machines reach: there are no API keys",
    )
    add("--log-level", default="info", choices=["debug", "info", "warning", "error"])
    return parser


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


if __name__ == "__main__":
    main()
