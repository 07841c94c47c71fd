"""The SQL of the tables that vectors are kept in: timescale-vector's own, less what the server lacks."""

import json
import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Literal

import psycopg2  # type: ignore[import-untyped]
from psycopg2 import sql

from resources.postgres import DatabaseError

CHUNK = timedelta(days=90)  # of a hypertable, where the server has TimescaleDB
GRAPH_BYTES = 900  # of HNSW's graph in memory, per state beside its numbers: 690 were measured
MOST_MEMORY = 2 * 2**30  # for building it
SESSIONS = "/sessions"  # what was written of each session; a horizon, which is a file's name, has no slash in it
Index = Literal["none", "hnsw", "diskann"]


def client(url: str, table: str, dimensions: int) -> Any:
    """timescale-vector's client of a table; its `builder` makes SQL."""
    from timescale_vector import client as timescale

    # Euclidean: a row whose numbers are all missing is the zero vector, which has no cosine.
    return timescale.Sync(
        url, table, dimensions, distance_type="euclidean", time_partition_interval=CHUNK, max_db_connections=1
    )


def create(cursor: Any, builder: Any, columns: Mapping[str, str]) -> None:
    """Make the table of these columns (expression by name), and the account of sessions."""
    cursor.execute("SELECT pg_advisory_xact_lock(hashtext('tenor vectors'))")  # two steps may be the first at once
    available = extensions(cursor)
    if "vector" not in available:
        raise DatabaseError(
            "the database server has no pgvector: install its `vector` extension there, or unset "
            "TENOR_DATABASE_URL to use the embedded server, which has it"
        )
    text = builder.get_create_query()
    for extension in {"vectorscale", "timescaledb"} - available:
        text = _less(text, rf"CREATE EXTENSION IF NOT EXISTS {extension};")
    if "timescaledb" not in available:
        text = _less(text, r"SELECT create_hypertable\(.*?\);")
    # In our schema, which is on the search path: `public` may not be ours to write.
    cursor.execute(text.replace("public.uuid_timestamp", "uuid_timestamp"))
    table = sql.Identifier(builder.table_name)
    cursor.execute(sql.SQL("CREATE INDEX ON {} (uuid_timestamp(id))").format(table))
    describe(cursor, builder.table_name, columns)
    create_account(cursor)


def create_account(cursor: Any) -> None:
    """Make the table that says what was written of each session."""
    cursor.execute(
        sql.SQL(
            "CREATE TABLE IF NOT EXISTS {} (of TEXT, session DATE, digest BYTEA NOT NULL, PRIMARY KEY (of, session))"
        ).format(sql.Identifier(SESSIONS))
    )


def describe(cursor: Any, table: str, columns: Mapping[str, str]) -> None:
    """Say in the table's comment what its numbers are."""
    text = json.dumps({"columns": columns})
    cursor.execute(sql.SQL("COMMENT ON TABLE {} IS %s").format(sql.Identifier(table)), (text,))


def described(cursor: Any, table: str) -> dict[str, str | None] | None:
    """What a table's numbers are, expression by name, None where there is no table.

    One that an earlier Tenor made says the names only, and their expressions are None.
    """
    cursor.execute("SELECT obj_description(to_regclass(%s))", (f'"{table}"',))
    (comment,) = cursor.fetchone()
    if not comment:
        return None
    columns = json.loads(comment)["columns"]
    return dict.fromkeys(columns) if isinstance(columns, list) else columns


def extensions(cursor: Any) -> set[str]:
    """Names of the extensions that the server has, installed in this database or not."""
    cursor.execute("SELECT name FROM pg_available_extensions")
    return {name for (name,) in cursor}


def set_index(cursor: Any, builder: Any, kind: Index) -> bool:
    """Give the table this index of its vectors and no other; whether it was changed. `none` is the exact scan."""
    from timescale_vector import client as timescale

    if kind == "diskann" and "vectorscale" not in extensions(cursor):
        raise DatabaseError(
            "vectors.index is diskann, and the database server has no pgvectorscale: install its `vectorscale` "
            "extension there, or write vectors.index=hnsw"
        )
    if indexed_by(cursor, builder.table_name) == kind:
        return False
    cursor.execute(builder.drop_embedding_index_query())
    if kind == "hnsw":
        _build_hnsw(cursor, builder.table_name, builder.create_embedding_index_query(timescale.HNSWIndex(), lambda: 0))
    elif kind == "diskann":
        # timescale-vector's own statement is of an older vectorscale, which knew the cosine only. The default layout
        # compresses numbers to two bits, made for a thousand of them: of 32, it found 40 % of the nearest.
        cursor.execute(
            sql.SQL(
                "CREATE INDEX {} ON {} USING diskann (embedding vector_l2_ops) WITH (storage_layout = plain)"
            ).format(sql.Identifier(_index_of(builder.table_name)), sql.Identifier(builder.table_name))
        )
    return True


def indexed_by(cursor: Any, table: str) -> str:
    """The kind of index that the table's vectors have, "none" where they have none."""
    cursor.execute(
        "SELECT method.amname FROM pg_class JOIN pg_am AS method ON method.oid = relam "
        "WHERE pg_class.oid = to_regclass(%s)",
        (f'"{_index_of(table)}"',),
    )
    return str((cursor.fetchone() or ("none",))[0])


def _index_of(table: str) -> str:
    return f"{table}_embedding_idx"


def _build_hnsw(cursor: Any, table: str, statement: str) -> None:
    """Build the graph in memory, by several processes where the server has shared memory for it.

    A graph that outgrows maintenance_work_mem is built on disk, ten times slower.
    """
    cursor.execute(sql.SQL("SELECT count(*), max(vector_dims(embedding)) FROM {}").format(sql.Identifier(table)))
    rows, dimensions = cursor.fetchone()
    needed = rows * (4 * (dimensions or 0) + GRAPH_BYTES)
    cursor.execute(f"SET LOCAL maintenance_work_mem = '{min(max(64 * 2**20, needed), MOST_MEMORY) // 1024}kB'")
    cursor.execute("SAVEPOINT alone")
    try:
        cursor.execute(statement)
    except (psycopg2.errors.DiskFull, psycopg2.errors.OutOfMemory):
        # Processes share the graph through /dev/shm, of which a container has 64 MB unless it is given more.
        cursor.execute("ROLLBACK TO SAVEPOINT alone")
        cursor.execute("SET LOCAL max_parallel_maintenance_workers = 0")
        cursor.execute(statement)


def _less(text: str, pattern: str) -> str:
    shorter, found = re.subn(pattern, "", text, flags=re.DOTALL)
    if found != 1:
        raise DatabaseError(f"timescale-vector's SQL has changed: {pattern!r} is in it {found} times, not once")
    return shorter
