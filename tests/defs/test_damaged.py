"""A damaged file of the store ends each command with its name and what to do, never with a traceback."""

import errno
import os
from pathlib import Path

import pytest

from defs import cli
from quant.bundle import Bundle
from tests.defs.test_vacuum import TABLE, Store, bundles

__all__ = ["bundles"]  # a fixture


@pytest.fixture
def store(tmp_path: Path, bundles: list[Bundle]) -> Store:
    made = Store(tmp_path, bundles)
    made.train(0)
    made.promote(0)
    return made


def said(store: Store, command: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    status = cli.main([*command.split(), "horizon=1h", f"store.root='{store.root}'"])
    return status, capsys.readouterr().err


@pytest.mark.parametrize("content", ['{"add"', "", None], ids=["half a line", "nothing", "no file"])
@pytest.mark.parametrize("command", ["vacuum --dry-run", "migrate --dry-run"])
def test_a_damaged_log_of_a_table(
    store: Store, capsys: pytest.CaptureFixture[str], command: str, content: str | None
) -> None:
    log = store.root / "lake" / TABLE / "_delta_log" / "00000000000000000000.json"
    log.unlink() if content is None else log.write_text(content)
    status, told = said(store, command, capsys)
    assert status == 2
    assert f"the log of table {TABLE} is damaged" in told
    assert f"restore {store.root}/lake/{TABLE}/_delta_log from a copy" in told
    assert len(told) < 500 + len(str(store.root)) * 3  # none of the library's addresses


@pytest.mark.parametrize(
    ("number", "fix"),
    [(errno.EROFS, "a folder that it may write"), (errno.EACCES, "may write"), (errno.ENOSPC, "room")],
)
def test_a_store_that_cannot_be_written(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, number: int, fix: str
) -> None:
    def full(_: object) -> int:
        raise OSError(number, os.strerror(number), "/data/tenor/registry")

    monkeypatch.setattr(cli, "command", lambda _: full)
    assert cli.main(["models"]) == 1
    told = capsys.readouterr().err
    assert told.startswith(f"tenor: /data/tenor/registry: {os.strerror(number)}")
    assert fix in told


@pytest.mark.parametrize("file", ["provenance.json", "manifest.json"])
def test_a_damaged_bundle(store: Store, capsys: pytest.CaptureFixture[str], file: str) -> None:
    damaged = store.registry.path("1h", store.bundles[0].id) / file
    damaged.write_text("{")
    status, told = said(store, "models", capsys)
    assert status == 2
    assert f"{damaged} is damaged" in told
    assert "restore it" in told


def test_a_bundle_that_was_copied_without_its_provenance_is_listed(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("provenance.json", "judgement.json"):
        (store.registry.path("1h", store.bundles[0].id) / name).unlink()
    assert said(store, "models", capsys) == (0, "")
