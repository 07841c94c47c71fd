"""A server that the user runs: TENOR_DATABASE_URL."""

import logging
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import psycopg2
import pytest

from resources.database import NAMES, Database
from resources.postgres import Postgres

SECRET = "s3cr%2Fet"


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    server = Postgres(tmp_path_factory.mktemp("server"), ("app", "closed"))
    server.ensure()
    with (
        closing(psycopg2.connect(server.url("app"))) as connection,
        connection,
        connection.cursor() as cursor,
    ):
        cursor.execute("CREATE ROLE ada LOGIN; ALTER DATABASE app OWNER TO ada; CREATE ROLE bob LOGIN")
    yield server
    server.release()


@pytest.fixture
def connect(servers: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Database]:
    def as_user(name: str, database: str) -> Database:
        url = servers.url(database).replace("//postgres@", f"//{name}:{SECRET}@")
        monkeypatch.setenv("TENOR_DATABASE_URL", url)
        return Database(tmp_path)

    return as_user


def tables(url: str) -> set[str]:
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT table_schema || '.' || table_name FROM information_schema.tables WHERE table_name = 'own'"
        )
        return {name for (name,) in cursor}


def test_each_name_is_a_schema_of_its_own_in_the_one_database(
    connect: Callable[[str, str], Database],
) -> None:
    database = connect("ada", "app")
    for name in NAMES:
        with (
            closing(psycopg2.connect(database.url(name))) as connection,
            connection,
            connection.cursor() as cursor,
        ):
            cursor.execute("CREATE TABLE own ()")
    assert tables(database.url("dagster")) == {f"{name}.own" for name in NAMES}
    assert database.sqlalchemy_url("optuna").startswith("postgresql+psycopg2://ada:")


def test_optuna_keeps_its_study_in_its_schema(connect: Callable[[str, str], Database]) -> None:
    import optuna
    import sqlalchemy

    url = connect("ada", "app").sqlalchemy_url("optuna")
    optuna.create_study(storage=url, study_name="study").optimize(lambda trial: trial.suggest_float("x", 0, 1), 1)
    assert "alembic_version" in sqlalchemy.inspect(sqlalchemy.create_engine(url)).get_table_names("optuna")
    assert optuna.load_study(storage=url, study_name="study").trials[0].value is not None


def test_nothing_is_started_for_a_server_that_the_user_runs(
    connect: Callable[[str, str], Database], tmp_path: Path
) -> None:
    connect("ada", "app").ensure()
    assert list(tmp_path.iterdir()) == []


def test_a_user_who_may_not_create_schemas_is_told_what_to_ask_for(
    connect: Callable[[str, str], Database],
) -> None:
    with pytest.raises(RuntimeError, match=r"may not create schemas in host .*, database closed: let an admin"):
        connect("bob", "closed").ensure()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (
            f"postgresql://ada:{SECRET}@127.0.0.1:1/app",
            "no connection to host 127.0.0.1, port 1, database app",
        ),
        (f"postgresql+psycopg2://ada:{SECRET}@127.0.0.1:1/app", "Check that the server runs"),
        (f"mysql://ada:{SECRET}@127.0.0.1/app", "is not of the form postgresql://"),
        (f"postgresql://ada:{SECRET}@127.0.0.1:{SECRET}/app", "is not of the form postgresql://"),
        (f"postgresql://ada:{SECRET}/x@127.0.0.1/app", "is not of the form postgresql://"),
    ],
)
def test_an_unusable_url_is_one_message_without_the_password(
    url: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("TENOR_DATABASE_URL", url)
    with caplog.at_level(logging.DEBUG), pytest.raises(RuntimeError, match=message) as raised:
        Database(tmp_path).ensure()
    shown = f"{raised.value!r}{raised.value.__cause__}{caplog.text}"
    assert "s3cr" not in shown


def test_a_repr_shows_where_it_is_and_not_the_password(connect: Callable[[str, str], Database]) -> None:
    shown = repr(connect("ada", "app"))
    assert "database app" in shown
    assert "s3cr" not in shown
