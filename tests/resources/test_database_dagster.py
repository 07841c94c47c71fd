"""Dagster's instance as the repository's dagster.yaml describes it, on a real embedded server."""

import logging
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import psutil
import psycopg2
import pytest
import sqlalchemy.exc
import yaml

from conf.files import REPOSITORY
from resources.dagster_storage import instance, store_root
from resources.database import Database
from resources.postgres import Postgres


@dg.asset
def answer() -> int:
    print("printed by the step")
    return 42


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("store")
    yield folder
    Database(folder).release()


def kill_server(root: Path) -> None:
    server = psutil.Process(int((root / "postgres/data/postmaster.pid").read_text().split()[0]))
    server.kill()
    psutil.wait_procs([server], timeout=5)


def test_a_run_is_kept_in_postgres_and_its_files_in_the_store(root: Path) -> None:
    with instance(root) as made:
        assert dg.materialize([answer], instance=made).success
    with instance(root) as again:
        assert again.get_latest_materialization_event(dg.AssetKey("answer")) is not None
    assert (root / "dagster" / "storage" / "answer").exists()
    printed = (root / "dagster" / "logs").rglob("*.out")
    assert any("printed by the step" in file.read_text() for file in printed)


def test_a_daemon_outlives_the_death_of_its_server(root: Path) -> None:
    with instance(root) as made:
        before = made.get_runs_count()
        kill_server(root)
        assert made.get_runs_count() == before
        assert dg.materialize([answer], instance=made).success


def test_a_webserver_needs_one_retry_after_the_death_of_its_server(root: Path) -> None:
    with instance(root) as made:
        made.optimize_for_webserver(statement_timeout=5000, pool_recycle=3600, max_overflow=20)
        before = made.get_runs_count()
        kill_server(root)
        with pytest.raises(sqlalchemy.exc.OperationalError):
            made.get_runs_count()
        assert made.get_runs_count() == before


def test_a_killed_run_worker_is_started_once_more_and_a_failed_step_is_not(root: Path) -> None:
    with instance(root) as made:
        assert made.run_monitoring_enabled
        assert made.run_retries_enabled
        assert made.run_retries_max_retries == 1
        assert not made.run_retries_retry_on_asset_or_op_failure
        assert not made.telemetry_enabled


def test_the_store_is_where_TENOR_HOME_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TENOR_HOME", str(tmp_path))
    assert store_root() == tmp_path
    monkeypatch.delenv("TENOR_HOME")
    assert store_root() == REPOSITORY / ".tenor"


def test_no_secret_reaches_the_instance_page_or_a_log(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    server = Postgres(tmp_path / "server", ("app",))
    server.ensure()
    monkeypatch.setenv("TENOR_DATABASE_URL", server.url("app").replace("//postgres@", "//postgres:s3cret@"))
    try:
        with caplog.at_level(logging.DEBUG), instance(tmp_path) as made:
            assert made.get_runs_count() == 0
            assert dg.materialize([answer], instance=made).success
            shown = made.info_str() + str(made.get_ref().to_dict()) + repr(made) + caplog.text
            columns = "SELECT table_schema FROM information_schema.tables WHERE table_name = 'alembic_version'"
            with (
                psycopg2.connect(Database(tmp_path).url("dagster")) as connection,
                connection.cursor() as cursor,
            ):
                cursor.execute(columns)
                assert cursor.fetchall() == [("dagster",)]
            connection.close()
    finally:
        server.release()
    assert "s3cret" not in shown
    assert "s3cret" not in (REPOSITORY / "dagster.yaml").read_text()


def test_the_workspace_names_the_code_location() -> None:
    workspace = yaml.safe_load((REPOSITORY / "workspace.yaml").read_text())
    assert workspace["load_from"][0]["python_module"]["module_name"] == "defs.definitions"
