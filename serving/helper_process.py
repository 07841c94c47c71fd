"""The helper's own side: `python -m serving.helper_process`, started by `serving.helper` alone.

It lives as long as the service does: where that is gone, killed too, it writes what it holds and ends.
"""

import argparse
import os
import signal
import threading
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

import msgspec

from quant.bundle import Bundle
from resources.lake import Lake
from resources.registry import Registry
from serving.helper import CLOSE, FLUSH, NICE, READY
from serving.log_writer import Writer
from serving.logs import configure, log
from serving.proofs import Proof, fingerprint, prove


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


def write(service: Connection, writer: Writer) -> None:
    """Take what the service sends and append it when told to, until it says that this was all or is gone."""
    decode = msgspec.msgpack.Decoder(list[bytes]).decode
    ending = False
    while not ending:
        try:
            told = service.recv_bytes()
        except (EOFError, OSError):  # the service is gone
            told = CLOSE
        ending = told == CLOSE
        if told not in (CLOSE, FLUSH):
            writer.take(decode(told))
            continue
        writer.flush()
        try:
            service.send_bytes(msgspec.msgpack.encode(writer.told()))
        except OSError:  # nobody is there to hear it
            return


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
    lines, proofs = (Connection(number) for number in told.sockets)
    registry = Registry(Path(told.store))
    threading.Thread(target=answer, args=(proofs, registry), name="proofs", daemon=True).start()
    writer = Writer(Lake(f"{told.store}/lake"), Challengers(registry).get, inputs=told.inputs)
    write(lines, writer)


if __name__ == "__main__":
    main()
