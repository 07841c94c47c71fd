"""Children that are kept running, with real processes: what ends is started again, alone; a stop leaves nothing."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest

from defs import kept, processes
from defs.kept import GivenUp, Kept
from defs.processes import Processes
from tests.defs.test_up import free_port

# Listens, as a server does, and so does what it has started, which does not notice that it is gone.
LISTENS = """
import os, socket, sys, time
held = socket.create_server(("127.0.0.1", int(sys.argv[1])))
other = os.fork()
if other:
    print(os.getpid(), other, flush=True)
time.sleep(300)
"""
# Says whether what an earlier one had handed over is written; its helper writes once it is gone, and takes a moment.
HANDS_OVER = """
import os, signal, sys, time
written = sys.argv[1]
before = os.path.exists(written)
read, write = os.pipe()
if os.fork() == 0:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.close(write)
    os.read(read, 1)
    time.sleep(0.3)
    open(written, "w").close()
    os._exit(0)
print(os.getpid(), before, flush=True)
time.sleep(300)
"""
# Ends when it is told to; what it has started does not.
STUBBORN = """
import os, signal, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
other = os.fork()
if other:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    print(other, flush=True)
time.sleep(300)
"""


@pytest.fixture
def running() -> Iterator[Processes]:
    with Processes() as made:
        yield made


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses of hundredths of a second."""
    monkeypatch.setattr(kept, "FIRST", 0.01)
    monkeypatch.setattr(kept, "LONGEST", 0.04)


def wait(children: Kept, until: Callable[[], object]) -> None:
    """Look, as `tenor up` does, until something is so."""
    end = time.monotonic() + 60
    while not until():
        assert time.monotonic() < end
        children.look()
        time.sleep(0.01)


def lines(log: Path, count: int) -> Callable[[], bool]:
    return lambda: log.exists() and log.read_text().count("\n") >= count


def living(pid: int) -> bool:
    return bool(psutil.pid_exists(pid)) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def test_a_killed_child_is_started_again_on_its_port_once_all_that_it_had_started_is_gone(
    running: Processes,
    at_once: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(processes, "GRACE_SECONDS", 0.2)
    children, log = Kept(running), tmp_path / "server.log"
    children.start("server", [sys.executable, "-c", LISTENS, str(free_port())], {}, cwd=tmp_path, log=log)
    wait(children, lines(log, 1))
    first, orphan = map(int, log.read_text().split())
    os.kill(first, signal.SIGKILL)
    wait(children, lines(log, 2))
    assert not living(orphan)
    second, other = map(int, log.read_text().splitlines()[1].split())  # and no "Address already in use"
    assert living(second)
    assert capsys.readouterr().err == (
        f"tenor: server ended by itself with status -9, see {log}; it is started again in 0.01 s\n"
    )
    running.stop()
    assert not living(second)
    assert not living(other)


def test_what_a_child_left_may_end_by_itself_before_the_next_one_starts(
    running: Processes, at_once: None, tmp_path: Path
) -> None:
    children, log = Kept(running), tmp_path / "service.log"
    words = [sys.executable, "-c", HANDS_OVER, str(tmp_path / "written")]
    children.start("service", words, {}, cwd=tmp_path, log=log)
    wait(children, lines(log, 1))
    pid, written = log.read_text().split()
    assert written == "False"
    os.kill(int(pid), signal.SIGKILL)
    wait(children, lines(log, 2))
    assert log.read_text().splitlines()[1].split()[1] == "True"


def test_pauses_double_up_to_the_longest_and_a_child_that_never_lives_is_given_up(
    running: Processes,
    at_once: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(kept, "MOST", 5)
    children = Kept(running)
    children.start("broken", ["sh", "-c", "exit 3"], {}, cwd=tmp_path, log=tmp_path / "log")
    with pytest.raises(GivenUp, match=r"broken ended by itself with status 3, see .*log: 5 times in a row"):
        wait(children, lambda: False)
    told = capsys.readouterr().err.splitlines()
    assert [line.rpartition(" in ")[2] for line in told] == ["0.01 s", "0.02 s", "0.04 s", "0.04 s"]
    assert all(line.startswith("tenor: broken ended by itself with status 3, see ") for line in told)


def test_a_child_that_had_lived_is_never_given_up_and_its_pause_is_the_first_again(
    running: Processes,
    at_once: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(kept, "LIVED", 0.0)
    children, log = Kept(running), tmp_path / "log"
    children.start("mortal", ["sh", "-c", "echo lived; exit 3"], {}, cwd=tmp_path, log=log)
    wait(children, lines(log, kept.MOST + 3))
    told = capsys.readouterr().err.splitlines()
    assert len(told) >= kept.MOST + 2
    assert {line.rpartition(" in ")[2] for line in told} == {"0.01 s"}


def test_a_child_that_refuses_what_it_was_told_is_not_asked_again(running: Processes, tmp_path: Path) -> None:
    children = Kept(running)
    children.start("service", ["sh", "-c", "exit 2"], {}, cwd=tmp_path, log=tmp_path / "log")
    with pytest.raises(GivenUp, match=r"status 2, see .*: it would again"):
        wait(children, lambda: False)


def test_a_child_that_cannot_be_started_again_is_tried_again_and_then_given_up(
    running: Processes, at_once: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program = tmp_path / "program"
    program.write_text('#!/bin/sh\nrm "$0"\n')
    program.chmod(0o700)
    children = Kept(running)
    children.start("gone", [str(program)], {}, cwd=tmp_path, log=tmp_path / "log")
    with pytest.raises(GivenUp, match=r"gone could not be started \(No such file or directory\)"):
        wait(children, lambda: False)
    assert len(capsys.readouterr().err.splitlines()) == kept.MOST - 1


def test_one_child_ends_and_the_others_run_on(running: Processes, at_once: None, tmp_path: Path) -> None:
    children, log, other = Kept(running), tmp_path / "log", tmp_path / "other"
    children.start("steady", ["sh", "-c", "echo $$; exec sleep 300"], {}, cwd=tmp_path, log=other)
    children.start("mortal", ["sh", "-c", "echo $$; exec sleep 300"], {}, cwd=tmp_path, log=log)
    wait(children, lambda: lines(log, 1)() and lines(other, 1)())
    os.kill(int(log.read_text()), signal.SIGTERM)
    wait(children, lines(log, 2))
    assert living(int(other.read_text()))


def test_stopping_leaves_nothing_that_a_child_had_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(processes, "GRACE_SECONDS", 0.2)
    log = tmp_path / "log"
    with Processes() as made:
        made.start("child", [sys.executable, "-c", STUBBORN], {}, cwd=tmp_path, log=log)
        while not lines(log, 1)():
            time.sleep(0.01)
        pid = int(log.read_text())
    assert not living(pid)
    assert "child has not stopped and is killed" in capsys.readouterr().err


def test_a_second_interrupt_kills_what_has_not_stopped_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log, pause = tmp_path / "log", time.sleep

    def interrupted(seconds: float) -> None:
        monkeypatch.setattr(processes.time, "sleep", pause)
        raise KeyboardInterrupt

    with Processes() as made:
        made.start("child", [sys.executable, "-c", STUBBORN], {}, cwd=tmp_path, log=log)
        while not lines(log, 1)():
            time.sleep(0.01)
        monkeypatch.setattr(processes.time, "sleep", interrupted)
    assert not living(int(log.read_text()))
