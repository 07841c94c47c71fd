"""The embedded server: real processes, real kills."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil
import psycopg2
import pytest

from resources.database import NAMES, Database
from resources.postgres import _programs

USER = """
import sys, psycopg2
from resources.database import Database
database = Database(sys.argv[1])
connection = psycopg2.connect(database.url("vectors"))
cursor = connection.cursor()
cursor.execute("SELECT pg_postmaster_start_time()::text")
print(cursor.fetchone()[0], flush=True)
connection.close()
sys.stdin.readline()
"""


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.delenv("TENOR_DATABASE_URL", raising=False)
    yield tmp_path
    Database(tmp_path).release()
    assert postmaster(tmp_path) is None, "a test left its server behind"


def user(root: Path) -> "subprocess.Popen[str]":
    """Another process that uses the database until its standard input closes."""
    return subprocess.Popen(
        [sys.executable, "-c", USER, str(root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def said(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def postmaster(root: Path) -> psutil.Process | None:
    """The server process as the operating system sees it, not as the code under test does."""
    data = str(root.resolve() / "postgres" / "data")
    for process in psutil.process_iter(["name", "cmdline", "status"]):
        if process.info["cmdline"] and data in process.info["cmdline"] and process.info["name"] == "postgres":
            return process
    return None


def query(url: str, text: str) -> object:
    with closing(psycopg2.connect(url)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(text)
        return cursor.fetchone()[0] if cursor.description else None


def test_each_name_is_a_database_of_its_own(root: Path) -> None:
    database = Database(root)
    assert [query(database.url(name), "SELECT current_database()") for name in NAMES] == list(NAMES)
    assert query(database.url("vectors"), "SELECT count(*) FROM pg_available_extensions WHERE name = 'vector'") == 1
    with pytest.raises(ValueError, match="choose one of dagster, optuna, vectors"):
        database.url("runs")


def test_the_server_listens_on_no_network_address(root: Path) -> None:
    database = Database(root)
    assert query(database.url("dagster"), "SHOW listen_addresses") == ""
    server = postmaster(root)
    assert server is not None
    assert server.net_connections("inet") == []
    assert (root / "postgres" / "socket").stat().st_mode & 0o077 == 0


def test_the_last_user_out_stops_the_server_and_the_data_stays(root: Path) -> None:
    first, second = user(root), user(root)
    assert said(first) == said(second), "two processes that start at once share one server"
    first.communicate()
    assert postmaster(root) is not None, "the first one out pulled the server from under the second"
    second.communicate()
    assert postmaster(root) is None
    third = user(root)
    assert said(third)
    third.communicate()


def test_four_processes_at_once_on_a_new_store_share_one_server(root: Path) -> None:
    users = [user(root) for _ in range(4)]
    assert len({said(process) for process in users}) == 1
    for process in users:
        process.communicate()
        assert process.returncode == 0


def test_a_killed_server_comes_back_with_its_data_for_every_process(root: Path) -> None:
    database, other = Database(root), user(root)
    assert said(other)
    query(database.url("vectors"), "CREATE TABLE kept AS SELECT 42 AS answer")
    server = postmaster(root)
    assert server is not None
    server.kill()
    psutil.wait_procs([server], timeout=5)
    assert query(database.url("vectors"), "SELECT answer FROM kept") == 42
    other.communicate()
    assert query(database.url("vectors"), "SELECT answer FROM kept") == 42


def test_a_zombie_server_is_seen_for_dead(root: Path) -> None:
    """A killed direct child that nobody waits for, as under a container's PID 1, stays as a zombie."""
    database = Database(root)
    database.url("vectors")
    database.release()
    data, sockets = root / "postgres" / "data", root / "postgres" / "socket"
    owner = data.stat()
    root_account = {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []} if os.geteuid() == 0 else {}
    child = subprocess.Popen(
        [_programs() / "postgres", "-D", data, "-k", sockets, "-c", "listen_addresses="],
        stderr=subprocess.DEVNULL,
        **root_account,
    )
    while not list(sockets.iterdir()):
        time.sleep(0.05)
    database.ensure()
    child.kill()
    while psutil.Process(child.pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.05)
    assert query(database.url("vectors"), "SELECT 1") == 1
    assert psutil.Process(child.pid).status() == psutil.STATUS_ZOMBIE
    child.wait()


def test_a_killed_owner_leaves_a_server_that_the_next_process_uses_and_stops(root: Path) -> None:
    owner = user(root)
    started = said(owner)
    owner.kill()
    owner.communicate()
    assert postmaster(root) is not None
    heir = user(root)
    assert said(heir) == started
    heir.communicate()
    assert postmaster(root) is None


def test_a_hung_server_is_replaced(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resources.postgres.SILENCE_SECONDS", 1.0)
    monkeypatch.setattr("resources.postgres.ANSWER_SECONDS", 2)
    database = Database(root)
    database.ensure()
    server = postmaster(root)
    assert server is not None
    server.send_signal(signal.SIGSTOP)
    database.ensure()
    replacement = postmaster(root)
    assert replacement is not None
    assert replacement.pid != server.pid


def test_a_pid_file_that_names_a_stranger_does_not_keep_the_server_from_starting(root: Path) -> None:
    database = Database(root)
    database.ensure()
    pid_file = root / "postgres" / "data" / "postmaster.pid"
    text = pid_file.read_text()
    database.release()
    pid_file.write_text(text.replace(text.split()[0], str(os.getpid()), 1))
    assert query(database.url("dagster"), "SELECT 1") == 1
    assert psutil.pid_exists(os.getpid())


def test_a_path_too_long_for_a_socket_still_works_and_leaves_nothing_under_tmp(root: Path) -> None:
    before = set(Path("/tmp").glob("tenor-*"))
    deep = root / ("a folder with, odd characters & " + "x" * 80)
    database = Database(deep)
    assert query(database.url("dagster"), "SELECT 1") == 1
    (sockets,) = set(Path("/tmp").glob("tenor-*")) - before
    assert sockets.stat().st_mode & 0o077 == 0
    database.release()
    assert postmaster(deep) is None
    assert not sockets.exists()


def test_a_deleted_store_starts_anew_and_its_old_server_goes(root: Path) -> None:
    database = Database(root)
    query(database.url("vectors"), "CREATE TABLE kept AS SELECT 42 AS answer")
    before = postmaster(root)
    assert before is not None
    (root / "postgres").rename(root / "gone")  # at once: a live server would write into a slow deletion
    assert query(database.url("vectors"), "SELECT to_regclass('kept')") is None
    assert not before.is_running() or before.status() == psutil.STATUS_ZOMBIE


def test_data_of_another_postgres_is_refused_with_what_to_do(root: Path) -> None:
    database = Database(root)
    database.ensure()
    database.release()
    version = root / "postgres" / "data" / "PG_VERSION"
    version.write_text("16\n")
    with pytest.raises(RuntimeError, match="made by PostgreSQL 16, the installed one is 18: move it away"):
        database.ensure()


def test_threads_share_the_server(root: Path) -> None:
    database = Database(root)
    answers: list[object] = []
    threads = [
        threading.Thread(target=lambda: answers.append(query(database.url("optuna"), "SELECT 1"))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [1] * 8
