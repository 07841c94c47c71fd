"""Run the service: `python -m serving --store .tenor --port 8321`; loopback only unless told otherwise."""

import argparse
import gc
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import uvicorn

from serving.access import local
from serving.app import create_app
from serving.evaluators import EvaluatorError
from serving.keys import KeyRing, KeysError
from serving.lane import with_lane
from serving.logs import configure
from serving.options import OptionsError, read
from serving.sockets import Sockets
from serving.tracing import TracingError

# Loading a bundle and writing the prediction log are Python too, on threads of their own. With the interpreter's 5 ms a
# request that meets them waits for as long, several times over.
SWITCH_SECONDS = 0.0001


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until SIGINT or SIGTERM, then finish the requests in flight."""
    told = _parser().parse_args(arguments)
    try:
        options = read(told.options)
        keys = KeyRing.from_environment()
    except (OptionsError, KeysError) as error:
        raise _refused(str(error)) from error
    if keys is None and not local(f"//{told.host}"):
        raise _refused(
            f"other machines reach {told.host} and this service has no API keys: anybody there could read models and "
            "load bundles. Use 127.0.0.1, or make keys with `tenor keys new name=… role=…` and set TENOR_API_KEYS"
        )
    configure(told.log_level)
    sys.setswitchinterval(SWITCH_SECONDS)
    horizons = [name.strip() for name in told.horizons.split(",") if name.strip()]
    try:
        app = create_app(Path(told.store), horizons, options=options, keys=keys)
    except (EvaluatorError, TracingError) as error:
        raise _refused(str(error)) from error
    gc.freeze()  # a full collection need not walk all that was imported
    uvicorn.run(
        app,
        host=told.host,
        port=told.port,
        log_config=None,  # our JSON lines
        access_log=False,  # `Observe` writes one line per request, with its correlation id
        timeout_graceful_shutdown=options.drain_seconds,
        loop="uvloop",
        http=with_lane(app),
        ws=Sockets,
        ws_per_message_deflate=False,  # a section for a hundred readers would be compressed a hundred times
        server_header=False,
    )


def _refused(why: str) -> SystemExit:
    """Say why the service does not start. Not as argparse does, with a usage: the arguments were well written."""
    print(f"the service does not start: {why}", file=sys.stderr)
    return SystemExit(2)


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
    add("--options", help="JSON of everything else (conf/serving/local.yaml)")
    add("--log-level", default="info", choices=["debug", "info", "warning", "error"])
    return parser


if __name__ == "__main__":
    main()
