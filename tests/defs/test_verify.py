"""`tenor verify` as its user runs it: a verdict, and an exit status that a script can read."""

from pathlib import Path

import pytest

from defs.cli import main
from tests.defs.conftest import STRUCTURAL

pytestmark = pytest.mark.slow  # each starts from a whole `tenor run`

STATUSES = ("pass", "hint", "warn", "skip", "fail")


def test_shipped_sets_on_a_fresh_store_are_ok_and_every_line_says_how(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", "horizon=5m", *STRUCTURAL, f"store.root='{store}'"]) == 0
    out = capsys.readouterr().out
    assert "verdict for 5m: OK" in out
    checks = [line for line in out.splitlines() if line[:4] in STATUSES]
    assert len(checks) == 20
    assert all(any(digit.isdigit() for digit in line) for line in checks)
    assert not any(line.startswith(("fail", "warn", "skip")) for line in checks)


def test_a_table_that_is_stale_is_broken_and_says_what_to_run(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["horizon=5m", *STRUCTURAL, f"store.root='{store}'", "++features.technical.mine='close / open'"]
    assert main(["verify", *words]) == 1
    out = capsys.readouterr().out
    assert "verdict for 5m: broken: “features: the table equals the bars”" in out
    assert "it lacks mine" in out
    assert "Run `tenor run horizon=5m" in out


def test_a_horizon_without_bars_is_told_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "horizon=5m", f"store.root='{tmp_path}'"]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert "there are no bars" in told.err
    assert "`tenor run horizon=5m" in told.err
    assert told.err.count("\n") == 1
