"""The SQL that servers with and without TimescaleDB and pgvectorscale are sent; none runs it here."""

import re
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import psycopg2  # type: ignore[import-untyped]
import pytest

from resources.database import Database
from resources.postgres import DatabaseError
from resources.vector_tables import client, create, set_index

GRAPH = 'CREATE INDEX "5m/market_embedding_idx" ON "5m/market" USING hnsw ("embedding" vector_l2_ops) ;'
COLUMNS = {"momentum": "zscore(momentum)", "range": "zscore(range)"}


class Recorder:
    """A cursor of a server with these extensions, which takes note of what it is sent and does nothing."""

    def __init__(
        self, connection: Any, extensions: set[str], index: str | None, fails: list[Exception] | None = None
    ) -> None:
        self._connection, self._extensions, self._index = connection, extensions, index
        self._rows: list[tuple[Any, ...]] = []
        self._states, self._fails = 1_000_000, fails or []
        self.sent: list[str] = []

    def execute(self, query: Any, given: tuple[Any, ...] = ()) -> None:
        text = query if isinstance(query, str) else query.as_string(self._connection)
        self._rows = []
        if "pg_available_extensions" in text:
            self._rows = [(name,) for name in sorted(self._extensions)]
        elif "pg_am" in text:
            self._rows = [(self._index,)] if self._index else []
        elif "count(*)" in text:
            self._rows = [(self._states, 64)]
        elif text.startswith("CREATE INDEX") and "hnsw" in text and self._fails:
            raise self._fails.pop()
        else:
            self.sent.append(" ".join(text.split()))

    def fetchone(self) -> tuple[Any, ...] | None:
        return self._rows[0] if self._rows else None

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return iter(self._rows)


@pytest.fixture(scope="module")
def connection(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """For quoting names."""
    database = Database(tmp_path_factory.mktemp("store"))
    with closing(psycopg2.connect(database.url("vectors"))) as made:
        yield made
    database.release()


@pytest.fixture
def server(connection: Any) -> Callable[..., Recorder]:
    def made(*extensions: str, index: str | None = None, fails: list[Exception] | None = None) -> Recorder:
        return Recorder(connection, set(extensions), index, fails)

    return made


def builder(table: str = "5m/market") -> Any:
    return client("postgresql://nobody@nowhere/none", table, 2).builder


def test_a_server_with_timescaledb_gets_a_hypertable_by_time(server: Callable[..., Recorder]) -> None:
    cursor = server("vector", "vectorscale", "timescaledb")
    create(cursor, builder(), COLUMNS)
    text = "; ".join(cursor.sent)
    for extension in ("vector", "vectorscale", "timescaledb"):
        assert f"CREATE EXTENSION IF NOT EXISTS {extension};" in text
    assert "SELECT create_hypertable('\"5m/market\"', 'id'" in text
    assert "time_partitioning_func=>'uuid_timestamp', chunk_time_interval => '7776000.0 seconds'" in text
    assert "public." not in text
    assert "embedding VECTOR(2)" in text


def test_a_server_with_pgvector_alone_is_asked_for_nothing_else(server: Callable[..., Recorder]) -> None:
    cursor = server("vector")
    create(cursor, builder(), COLUMNS)
    text = "; ".join(cursor.sent)
    assert "CREATE EXTENSION IF NOT EXISTS vector;" in text
    assert "vectorscale" not in text
    assert "timescaledb" not in text
    assert "create_hypertable" not in text
    assert 'CREATE INDEX ON "5m/market" (uuid_timestamp(id))' in text


def test_a_server_without_pgvector_is_told_of_both_ways_out(server: Callable[..., Recorder]) -> None:
    with pytest.raises(DatabaseError, match=r"no pgvector: install .* or unset TENOR_DATABASE_URL"):
        create(server("timescaledb"), builder(), COLUMNS)


def test_the_index_of_pgvectorscale_is_for_the_distance_that_is_searched(server: Callable[..., Recorder]) -> None:
    cursor = server("vector", "vectorscale")
    assert set_index(cursor, builder(), "diskann")
    assert cursor.sent == [
        'DROP INDEX IF EXISTS "5m/market_embedding_idx";',
        'CREATE INDEX "5m/market_embedding_idx" ON "5m/market" USING diskann (embedding vector_l2_ops) '
        "WITH (storage_layout = plain)",
    ]


def test_another_index_replaces_the_one_that_is_there(server: Callable[..., Recorder]) -> None:
    cursor = server("vector", "vectorscale", index="diskann")
    assert set_index(cursor, builder(), "hnsw")
    assert cursor.sent[0] == 'DROP INDEX IF EXISTS "5m/market_embedding_idx";'
    assert cursor.sent[-1] == GRAPH
    assert set_index(cursor := server("vector", index="hnsw"), builder(), "none")
    assert cursor.sent == ['DROP INDEX IF EXISTS "5m/market_embedding_idx";']


def test_a_graph_is_given_the_memory_that_its_states_need(server: Callable[..., Recorder]) -> None:
    cursor = server("vector")
    set_index(cursor, builder(), "hnsw")
    [memory] = [re.search(r"maintenance_work_mem = '(\d+)kB'", text) for text in cursor.sent if "_mem" in text]
    assert memory is not None
    assert 950 * 10**6 < int(memory[1]) * 1024 < 1300 * 10**6  # 950 bytes a state were measured


@pytest.mark.parametrize("error", [psycopg2.errors.DiskFull, psycopg2.errors.OutOfMemory])
def test_a_server_whose_shared_memory_is_too_small_builds_the_graph_alone(
    server: Callable[..., Recorder], error: type[Exception]
) -> None:
    cursor = server("vector", fails=[error("could not resize shared memory segment")])
    assert set_index(cursor, builder(), "hnsw")
    assert cursor.sent[-3:] == [
        "ROLLBACK TO SAVEPOINT alone",
        "SET LOCAL max_parallel_maintenance_workers = 0",
        GRAPH,
    ]
    with pytest.raises(error):
        set_index(server("vector", fails=[error("still"), error("full")]), builder(), "hnsw")


def test_the_index_that_is_there_is_left_alone(server: Callable[..., Recorder]) -> None:
    for index, kind in ((None, "none"), ("hnsw", "hnsw"), ("diskann", "diskann")):
        cursor = server("vector", "vectorscale", index=index)
        assert not set_index(cursor, builder(), kind)  # type: ignore[arg-type]
        assert cursor.sent == []
