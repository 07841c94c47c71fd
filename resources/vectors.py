"""Vectors of market states in Postgres, through timescale-vector: when did the market look like this?"""

import io
import json
import re
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import polars as pl
import psycopg2  # type: ignore[import-untyped]
from psycopg2 import sql

from resources.database import Database
from resources.postgres import DatabaseError
from resources.vector_ids import ids, timestamps

MOST_DIMENSIONS = 64
CHUNK = timedelta(days=90)  # of a hypertable, where the server has TimescaleDB
ROWS: dict[str, pl.DataType | type[pl.DataType]] = {
    "symbol": pl.String,
    "timestamp": pl.Datetime("us", "UTC"),
    "known_at": pl.Datetime("us", "UTC"),
    "vector": pl.List(pl.Float32),
    "coverage": pl.Float32,
}
FOUND: dict[str, pl.DataType | type[pl.DataType]] = {
    "symbol": pl.String,
    "timestamp": ROWS["timestamp"],
    "known_at": ROWS["known_at"],
} | {
    "coverage": pl.Float32,
    "distance": pl.Float64,
}


@dataclass(frozen=True)
class Stored:
    """What a write did: rows in, rows replaced, and why the table was started anew, if it was."""

    rows: int
    replaced: int
    restarted: str | None


class Vectors:
    """One table per horizon, named by it: a row is one symbol's vector at one bar."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def write(
        self, horizon: str, rows: pl.DataFrame, start: datetime, end: datetime, *, columns: Sequence[str]
    ) -> Stored:
        """Replace the vectors of bars that start in [start, end) by `rows`, in one transaction.

        `rows`: symbol, timestamp, known_at, vector (as many numbers as `columns`, none missing), coverage
        (share of the numbers that were present before missing ones became 0). `columns` names the numbers;
        when they are not those that the table was made for, the table, being derived data, starts anew and
        `Stored.restarted` says so. ValueError names the first row that cannot be stored.
        """
        _check(horizon, rows, start, end, columns)
        with self._connect() as connection, connection, connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(hashtext('tenor vectors'))")
            there, restarted = self._columns(cursor, horizon), None
            if there is not None and there != list(columns):
                restarted = (
                    f"the vectors of {horizon} were {', '.join(there)} and are now {', '.join(columns)}: "
                    "the table starts anew; materialize earlier sessions again to search them"
                )
                cursor.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier(horizon)))
            if there is None or restarted:
                _create(cursor, self._client(horizon, len(columns)).builder, columns)
            cursor.execute(
                sql.SQL("DELETE FROM {} WHERE uuid_timestamp(id) >= %s AND uuid_timestamp(id) < %s").format(
                    sql.Identifier(horizon)
                ),
                (start, end),
            )
            replaced = cursor.rowcount
            cursor.copy_expert(
                sql.SQL("COPY {} (id, metadata, contents, embedding) FROM STDIN WITH (FORMAT csv)").format(
                    sql.Identifier(horizon)
                ),
                _csv(rows),
            )
        return Stored(rows.height, replaced, restarted)

    def search(
        self,
        horizon: str,
        vector: Sequence[float],
        *,
        before: datetime,
        limit: int = 10,
        symbol: str | None = None,
        start: datetime | None = None,
        end: datetime | None = None,
    ) -> pl.DataFrame:
        """The stored bars known at `before` that are nearest to `vector` (Euclidean), nearest first.

        `symbol` and [start, end) of the bars narrow the search. Exact unless `index` was called: 0.1 s
        for 200,000 vectors of 32 numbers. LookupError if the horizon has no vectors yet, ValueError if
        `vector` is of another length.
        """
        from timescale_vector import client as timescale

        with self._connect() as connection, connection.cursor() as cursor:
            columns = self._columns(cursor, horizon)
        if columns is None:
            raise LookupError(f"horizon {horizon} has no vectors yet: materialize its vectors step first")
        if len(vector) != len(columns):
            raise ValueError(
                f"the vector has {len(vector)} numbers, those of {horizon} have {len(columns)}: {', '.join(columns)}"
            )
        with closing(self._client(horizon, len(columns))) as client:
            found = client.search(
                [float(number) for number in vector],
                limit=int(limit),
                filter={"symbol": symbol} if symbol is not None else None,
                predicates=timescale.Predicates("known_at", "<=", before),
                uuid_time_filter=timescale.UUIDTimeRange(start, end) if start or end else None,
                # An index alone would look at a few neighbours and then filter most of them away.
                query_params=timescale.QueryParams(
                    {"hnsw.iterative_scan": "strict_order", "hnsw.max_scan_tuples": 2**31 - 1}
                ),
            )
        metadata = [row[timescale.SEARCH_RESULT_METADATA_IDX] for row in found]
        return pl.DataFrame(
            {
                "symbol": [entry["symbol"] for entry in metadata],
                "timestamp": timestamps([row[timescale.SEARCH_RESULT_ID_IDX] for row in found]),
                "known_at": [datetime.fromisoformat(entry["known_at"]) for entry in metadata],
                "coverage": [entry["coverage"] for entry in metadata],
                "distance": [row[timescale.SEARCH_RESULT_DISTANCE_IDX] for row in found],
            },
            schema=FOUND,
        )

    def count(self, horizon: str) -> int:
        """Stored vectors of a horizon; 0 where there is no table yet."""
        with self._connect() as connection, connection.cursor() as cursor:
            if self._columns(cursor, horizon) is None:
                return 0
            cursor.execute(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(horizon)))
            return int(cursor.fetchone()[0])

    def index(self, horizon: str) -> None:
        """Build the approximate (HNSW) index, worth its minutes from some millions of vectors on.

        Until then the exact scan is quick, and every write is spared the index's upkeep.
        """
        from timescale_vector import client as timescale

        with self._connect() as connection, connection, connection.cursor() as cursor:
            columns = self._columns(cursor, horizon)
            if columns is None:
                raise LookupError(f"horizon {horizon} has no vectors yet: materialize its vectors step first")
            # A graph that outgrows this memory is built on disk, ten times slower.
            cursor.execute("SET LOCAL maintenance_work_mem = '1GB'")
            builder = self._client(horizon, len(columns)).builder
            cursor.execute(builder.drop_embedding_index_query())
            cursor.execute(builder.create_embedding_index_query(timescale.HNSWIndex(), lambda: 0))

    def _connect(self) -> Any:
        return closing(psycopg2.connect(self._database.url("vectors")))

    def _client(self, horizon: str, dimensions: int) -> Any:
        from timescale_vector import client as timescale

        # Euclidean: a row whose numbers are all missing is the zero vector, which has no cosine.
        return timescale.Sync(
            self._database.url("vectors"),
            horizon,
            dimensions,
            distance_type="euclidean",
            time_partition_interval=CHUNK,
            max_db_connections=1,
        )

    def _columns(self, cursor: Any, horizon: str) -> list[str] | None:
        """The names of the numbers that the horizon's table was made for; None where there is no table."""
        cursor.execute("SELECT obj_description(to_regclass(%s))", (f'"{horizon}"',))
        (comment,) = cursor.fetchone()
        return json.loads(comment)["columns"] if comment else None


def _create(cursor: Any, builder: Any, columns: Sequence[str]) -> None:
    """Make the table by timescale-vector's own SQL, less the extensions that this server lacks."""
    cursor.execute("SELECT name FROM pg_available_extensions")
    available = {name for (name,) in cursor}
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
    cursor.execute(sql.SQL("COMMENT ON TABLE {} IS %s").format(table), (json.dumps({"columns": list(columns)}),))


def _less(text: str, pattern: str) -> str:
    shorter, found = re.subn(pattern, "", text, flags=re.DOTALL)
    if found != 1:
        raise DatabaseError(f"timescale-vector's SQL has changed: {pattern!r} is in it {found} times, not once")
    return shorter


def _csv(rows: pl.DataFrame) -> io.BytesIO:
    """`rows` as COPY reads them: id, metadata, contents, embedding."""
    metadata = pl.struct(
        "symbol", pl.col("known_at").dt.to_string("%Y-%m-%dT%H:%M:%S%.6f+00:00"), "coverage"
    ).struct.json_encode()
    vector = pl.format("[{}]", pl.col("vector").cast(pl.List(pl.String)).list.join(","))
    buffer = io.BytesIO()
    rows.select(
        pl.Series("id", ids(rows["timestamp"], rows["symbol"])),
        metadata=metadata,
        contents="symbol",
        embedding=vector,
    ).write_csv(buffer, include_header=False)
    buffer.seek(0)
    return buffer


def _check(horizon: str, rows: pl.DataFrame, start: datetime, end: datetime, columns: Sequence[str]) -> None:
    """ValueError that names the first row, or the setting, that cannot be stored."""
    if not 1 <= len(columns) <= MOST_DIMENSIONS:
        raise ValueError(
            f"vectors of {horizon} would have {len(columns)} numbers: choose 1 to {MOST_DIMENSIONS} in vectors.columns"
        )
    if dict(rows.schema) != ROWS:
        raise ValueError(f"vectors of {horizon}: the rows are {dict(rows.schema)}, not {ROWS}")
    numbers = pl.col("vector")
    for trouble, wrong in {
        "is outside the range to replace": ~pl.col("timestamp").is_between(start, end, closed="left"),
        f"has another length than its {len(columns)} columns": numbers.list.len() != len(columns),
        "holds a number that is missing or not finite": ~numbers.list.eval(
            pl.element().is_not_null() & pl.element().is_finite()
        ).list.all(),
        "is there twice": pl.struct("symbol", "timestamp").is_duplicated(),
        "lacks a symbol, a known_at or a coverage": pl.any_horizontal(
            pl.col("symbol", "known_at", "coverage").is_null()
        ),
    }.items():
        bad = rows.filter(wrong | wrong.is_null()).head(1)
        for symbol, timestamp in bad.select("symbol", "timestamp").iter_rows():
            raise ValueError(f"vectors of {horizon}: the row of {symbol} at {timestamp} {trouble}")
