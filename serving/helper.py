"""The process beside the service: what would keep the interpreter from the event loop is done there.

It writes the prediction log and proves new bundles. It is started when first needed, gives way to the service
(`nice`), and ends with it. What it was told travels over two sockets, one for each of its threads.

Lines travel in files without a name, of which it is sent the descriptors: the service never waits until it reads, and
what was handed over outlives the service.
"""

import os
import socket
import struct
import subprocess
import sys
import tempfile
from multiprocessing.connection import Connection
from pathlib import Path

import psutil  # type: ignore[import-untyped]

# One thread each: the helper has time, the service has requests.
THREADS = {name: "1" for name in ("POLARS_MAX_THREADS", "OMP_NUM_THREADS", "RAYON_NUM_THREADS", "TOKIO_WORKER_THREADS")}
NICE = 10
PATIENCE = 60  # seconds that it may take to answer: one that gives way on a busy machine needs many
READY = b"ready"  # its first word about proofs
# Words to the writer, one byte each. With LINES comes a file: a msgpack list of encoded lines.
LINES, FLUSH, CLOSE = b"l", b"f", b"c"


class Helper:
    """A running helper. log: tallies from it; proofs: (horizon, bundle) to it, what is wrong from it."""

    def __init__(self, store: Path, *, inputs: bool) -> None:
        ours, theirs = zip(*(socket.socketpair() for _ in range(2)), strict=True)
        words = [sys.executable, "-m", "serving.helper_process", "--store", str(store)]
        words += ["--sockets", *(str(end.fileno()) for end in theirs), *(["--inputs"] if inputs else [])]
        self._process = subprocess.Popen(
            words,
            cwd=Path(__file__).parents[1],  # the packages are found from there
            env={**os.environ, **THREADS},
            stdin=subprocess.DEVNULL,
            pass_fds=[end.fileno() for end in theirs],
        )
        for end in theirs:
            end.close()
        # What writes to a helper that hangs is told so, in the end.
        ours[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", PATIENCE, 0))
        self._words = ours[0].dup()
        self.log, self.proofs = (Connection(end.detach()) for end in ours)
        self._ready = False

    @property
    def pid(self) -> int:
        return self._process.pid

    def give(self, lines: bytes) -> None:
        """Hand lines over: from here on they are safe from the service's end. OSError: the helper is gone or hangs."""
        with tempfile.TemporaryFile(buffering=0) as file:
            data = memoryview(lines)
            while data:
                data = data[file.write(data) :]
            socket.send_fds(self._words, [LINES], [file.fileno()])

    def tell(self, word: bytes) -> None:
        """Say FLUSH or CLOSE; a tally answers. OSError: the helper is gone or hangs."""
        self._words.sendall(word)

    def ready(self) -> bool:
        """Whether it has warmed up and proves at once; asked on the loader's thread. OSError, EOFError: it is gone."""
        if not self._ready and self.proofs.poll():
            self._ready = self.proofs.recv_bytes() == READY
        return self._ready

    def memory(self) -> int:
        """Bytes it has resident, 0 once it has ended."""
        try:
            return int(psutil.Process(self.pid).memory_info().rss)
        except psutil.NoSuchProcess:
            return 0

    def wait(self, seconds: float) -> int:
        """Its exit status, once it was told to close; killed where it takes longer."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()
        finally:
            self.leave()  # `proofs` has come to its end too: who waits there may be on another thread

    def leave(self) -> None:
        """Say nothing more: it writes what it was given, and ends."""
        self._words.close()
        self.log.close()
