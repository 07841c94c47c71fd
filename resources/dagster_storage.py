"""Dagster's instance on Tenor's database and store: the classes that dagster.yaml names."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dagster import DagsterInstance, Field, StringSource
from dagster._core.instance.ref import InstanceRef
from dagster._core.storage.local_compute_log_manager import LocalComputeLogManager
from dagster._core.storage.root import LocalArtifactStorage
from dagster._serdes import ConfigurableClassData
from dagster_postgres import DagsterPostgresStorage
from dagster_postgres.auth import PgTokenProvider
from dagster_postgres.utils import create_pg_engine

from conf.files import REPOSITORY
from resources.database import Database

CONFIG = {"root": Field(StringSource, is_required=False, description="store root; default: TENOR_HOME, or .tenor")}


def store_root() -> Path:
    """The store's folder: TENOR_HOME, or `.tenor` in the repository."""
    return (REPOSITORY / os.environ.get("TENOR_HOME", ".tenor")).resolve()


@contextmanager
def instance(root: Path | None = None) -> Iterator[DagsterInstance]:
    """The instance of the repository's dagster.yaml on the store at `root` (default: `store_root()`)."""
    config = {"root": str((root or store_root()).resolve())}
    here = {"module": __name__, "config": config}
    overrides = {
        "storage": {"custom": here | {"class": "Storage"}},
        "local_artifact_storage": here | {"class": "Artifacts"},
        "compute_logs": here | {"class": "ComputeLogs"},
    }
    with DagsterInstance.from_ref(InstanceRef.from_dir(str(REPOSITORY), overrides=overrides)) as made:
        yield made


class Revive(PgTokenProvider):
    """Brings the embedded server back before Dagster connects.

    dagster-postgres asks its token provider for a password before each new connection, which is the one place
    where a daemon that runs for weeks can learn that its server was killed.
    """

    def __init__(self, database: Database) -> None:
        super().__init__()
        self._database = database

    def _fetch_token(self) -> tuple[str, float]:
        self._database.ensure()
        return "", 0.0  # no password on the embedded server; expired at once, so asked again next time


class Storage(DagsterPostgresStorage):
    """Runs, events and schedules in Tenor's database."""

    @classmethod
    def config_type(cls) -> Mapping[str, Field]:
        return CONFIG

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]) -> "Storage":
        database = Database(_root(config_value))
        url, revive = database.sqlalchemy_url("dagster"), Revive(database) if database.embedded else None
        made = cls(postgres_url=url, inst_data=inst_data, token_provider=revive)
        for part in (made.run_storage, made.event_log_storage, made.schedule_storage):
            # One connection kept open instead of one per query, for a backfill writes thousands of events; asked
            # whether it lives before each use, for its server may have been killed and brought back.
            part._engine = create_pg_engine(  # type: ignore[union-attr]
                url, revive, isolation_level="AUTOCOMMIT", pool_size=1, max_overflow=20, pool_pre_ping=True
            )
        return made


class Artifacts(LocalArtifactStorage):
    """Dagster's own files, in the store."""

    @classmethod
    def config_type(cls) -> Mapping[str, Field]:
        return CONFIG

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]) -> "Artifacts":
        return cls(str(_root(config_value) / "dagster"), inst_data)


class ComputeLogs(LocalComputeLogManager):
    """What the steps print, in the store."""

    @classmethod
    def config_type(cls) -> Mapping[str, Field]:
        return CONFIG

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> "ComputeLogs":
        return cls(str(_root(config_value) / "dagster" / "logs"), inst_data=inst_data)


def _root(config_value: Mapping[str, Any]) -> Path:
    return Path(config_value["root"]) if "root" in config_value else store_root()
