"""The tables that Dagster and Optuna keep in the database: whether they are of the releases that are installed."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import psycopg2  # type: ignore[import-untyped]

from resources.database import Database


@dataclass(frozen=True)
class Schema:
    """found: the revision of the tables, None where there are none yet; newest: that of the installed release."""

    name: str
    found: str | None
    newest: str
    upgrade: Callable[[], None]

    @property
    def current(self) -> bool:
        return self.found in (None, self.newest)


def schemas(root: Path) -> list[Schema]:
    """Both, from the database of the store at `root`, which starts if need be."""
    database = Database(root)
    return [_dagster(root, _revision(database, "dagster")), _optuna(database, _revision(database, "optuna"))]


def _revision(database: Database, name: str) -> str | None:
    with closing(psycopg2.connect(database.url(name))) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass('alembic_version')")
        if cursor.fetchone() == (None,):
            return None
        cursor.execute("SELECT version_num FROM alembic_version")
        row = cursor.fetchone()
        return None if row is None else str(row[0])


def _dagster(root: Path, found: str | None) -> Schema:
    from dagster._core.storage.sql import ALEMBIC_SCRIPTS_LOCATION

    from resources.dagster_storage import instance

    def upgrade() -> None:
        with instance(root) as dagster:
            dagster.upgrade()

    return Schema("dagster", found, _newest(ALEMBIC_SCRIPTS_LOCATION), upgrade)


def _optuna(database: Database, found: str | None) -> Schema:
    from optuna.storages import RDBStorage

    def upgrade() -> None:
        url = database.sqlalchemy_url("optuna")
        RDBStorage(url, skip_compatibility_check=True, skip_table_creation=True).upgrade()

    return Schema("optuna", found, _newest("optuna.storages._rdb:alembic"), upgrade)


def _newest(scripts: str) -> str:
    """The newest revision that a release's migration scripts know."""
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", scripts)
    return str(ScriptDirectory.from_config(config).get_current_head())
