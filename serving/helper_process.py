"""The helper's own side: `python -m serving.helper_process`, started by `serving.helper` alone.

It lives as long as the service does: where that is gone, killed too, it writes all that was handed over and ends.
What that may be is bounded by the service, which hands over no more than `log.rows` rows that are not written.
"""

import argparse
import os
import signal
import socket
import threading
import time
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

import msgspec

from quant.bundle import Bundle
from resources.lake import Lake
from resources.registry import Registry
from serving.helper import CLOSE, LINES, NICE, READY
from serving.log_novelty import Measures
from serving.log_writer import Writer
from serving.logs import configure, log
from serving.proofs import Proof, fingerprint, prove

PAUSES = (0.0, 1.0, 5.0)  # seconds before each attempt to write what a service left that is gone


class Challengers:
    """Bundles that score in shadow: the newest of each horizon, as the service proved it."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._found: dict[str, Bundle] = {}

    def get(self, horizon: str, id: str) -> Bundle:
        found = self._found.get(horizon)
        if found is None or found.id != id:
            found = self._found[horizon] = self._registry.load(horizon, id)
        return found


def write(service: socket.socket, writer: Writer) -> None:
    """Take what the service hands over and append it when told to, until it says that this was all or is gone."""
    decode = msgspec.msgpack.Decoder(list[bytes]).decode
    tallies = Connection(service.dup().detach())
    while True:
        try:
            word, files, *_ = socket.recv_fds(service, 1, 1)
        except ConnectionResetError:  # as below, and it had not read all that it was told
            word, files = b"", []
        if word == LINES:
            with os.fdopen(files[0], "rb") as file:
                file.seek(0)
                writer.take(decode(file.read()))
            continue
        if not word:  # the service is gone
            _finish(writer)
            return
        writer.flush()
        with suppress(OSError):  # it is gone: the next word is that
            tallies.send_bytes(msgspec.msgpack.encode(writer.told()))
        if word == CLOSE:
            return


def _finish(writer: Writer) -> None:
    """Write all that is held, though nobody hears of it: what a table refuses is tried again, and then told."""
    for pause in PAUSES:
        time.sleep(pause)
        writer.flush()
        if not writer.holding:
            return
    log.error(f"{writer.holding} answers of a service that is gone are not in the prediction log")


def answer(service: Connection, registry: Registry) -> None:
    """Prove each bundle that the service names, until it is gone."""
    _warm(registry)
    with suppress(EOFError, OSError):
        service.send_bytes(READY)
        while True:
            horizon, id = msgspec.msgpack.decode(service.recv_bytes(), type=tuple[str, str])
            service.send_bytes(msgspec.msgpack.encode(_proof(registry, horizon, id)))


def _warm(registry: Registry) -> None:
    """Prove what serves: a new bundle then need not wait for imports, calendars and compiled code."""
    for horizon in registry.horizons():
        try:
            if entry := registry.champion(horizon):
                prove(registry, horizon, entry.id)
        except Exception:  # the service found and told it when it loaded the bundle
            log.warning("the helper could not prove what serves", exc_info=True, extra={"fields": {"horizon": horizon}})


def _proof(registry: Registry, horizon: str, id: str) -> Proof:
    try:
        return Proof(fingerprint(prove(registry, horizon, id)))
    except Exception as error:  # whatever is wrong with a bundle, the service must hear of it
        return Proof(problem=str(error) or type(error).__name__)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m serving.helper_process", description="Started by the service.")
    parser.add_argument("--store", required=True)
    parser.add_argument("--inputs", action="store_true")
    parser.add_argument("--sockets", type=int, nargs=2, required=True)
    told = parser.parse_args()
    # A signal to the whole group is for the service, which then tells us when all is sent.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    os.nice(NICE)
    configure("info")
    lines, proofs = socket.socket(fileno=told.sockets[0]), Connection(told.sockets[1])
    registry = Registry(Path(told.store))
    threading.Thread(target=answer, args=(proofs, registry), name="proofs", daemon=True).start()
    lake = Lake(f"{told.store}/lake")
    writer = Writer(lake, Challengers(registry).get, Measures(registry).get, inputs=told.inputs)
    write(lines, writer)


if __name__ == "__main__":
    main()
