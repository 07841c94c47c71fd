"""What doctor's tests look at: a small store of the first format, brought up to date."""

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import pytest
from deltalake import DeltaTable

from assets.plan import Plan
from conf.compose import compose
from conf.schema import Horizon
from defs import doctor_store as store
from defs.finding import Finding, looked
from resources import formats
from tests.defs.test_migrate import FIRST, TABLE

NOW = datetime(2024, 6, 3, 12, tzinfo=UTC)


@cache
def horizons() -> dict[str, Horizon]:
    return dict(compose(["horizon=1h", "calendar=24x7"]))


@cache
def plans() -> dict[str, Plan]:
    return {name: Plan(horizon) for name, horizon in horizons().items()}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A small store: a table, answers, two bundles, a champion."""
    shutil.copytree(FIRST, tmp_path / "store")
    for table in (TABLE, "predictions/1h"):
        formats.migrate(DeltaTable(tmp_path / "store" / "lake" / table))
    return tmp_path / "store"


def bad(findings: Iterator[Finding], state: str = "wrong") -> Finding:
    """The one finding of that state."""
    [found] = [one for one in findings if one.state == state]
    assert found.fix
    return found


def tables(root: Path, *, deep: bool = False) -> Iterator[Finding]:
    return looked("tables", lambda: store.tables_of(root, plans(), NOW, deep=deep))


def kept(root: Path, *, deep: bool = False) -> Iterator[Finding]:
    return looked("registry", lambda: store.registry(root, plans(), deep=deep))


def data_files(root: Path, table: str = TABLE) -> list[Path]:
    return [Path(uri) for uri in DeltaTable(root / "lake" / table).file_uris()]
