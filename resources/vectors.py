"""Vectors of market states in Postgres, through timescale-vector: when did the market look like this?"""

import difflib
import io
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import numpy as np
import polars as pl
import psycopg2  # type: ignore[import-untyped]
from psycopg2 import extras, sql

from quant.panel import Instants
from quant.states import KEYS, States
from resources.database import Database
from resources.vector_ids import timestamps
from resources.vector_rows import COLUMNS, checked, copied, digests
from resources.vector_search import search
from resources.vector_sessions import account, delete, written
from resources.vector_tables import SESSIONS, Index, client, create, create_account, describe, described, set_index

FOUND = {**KEYS, "distance": pl.Float64}
LOOKED = 100_000  # newest states that are read to name the symbols there are: all of them may be many millions
SHOWN = 20  # symbols that a message names


class NoVectors(LookupError):
    """A horizon, or a symbol of it, without a state that answers the question."""


@dataclass(frozen=True)
class Stored:
    """What a write did. rows: given; written, replaced: of the sessions that differ from what was there."""

    rows: int
    written: int
    replaced: int
    changed: tuple[date, ...]  # those sessions
    restarted: str | None  # why the table was started anew, if it was


def market_of(horizon: str) -> str:
    """The table of the market's own states."""
    return f"{horizon}/market"


class Vectors:
    """One table per horizon, named by it, and one for its market: a row is the state at one bar."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def write(
        self, table: str, states: States, slots: Instants, days: Instants, *, columns: Mapping[str, str]
    ) -> Stored:
        """Make these states those of the sessions asked for, touching only sessions that differ, in one transaction.

        slots: every bar start of those sessions, increasing [T]; days: the session of each, datetime64[D]. columns:
        the expression of each number by name. Where these are not those that the table was made for, the table,
        being derived data, starts anew and `Stored.restarted` says so. ValueError names the first row that cannot
        be stored.
        """
        day = checked(table, states, slots, days, columns)
        found = digests(states, day)
        with self._connect() as connection, connection, connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(hashtext(%s))", (f"tenor vectors {table}",))
            restarted = self._prepare(cursor, table, columns)
            asked = np.unique(days)
            there = written(cursor, table, asked)
            changed = asked[[there.get(one) != found.get(one) for one in asked]]
            replaced = delete(cursor, table, slots, np.isin(days, changed))
            rows = np.isin(day, changed)
            if rows.any():
                kept = States(states.keys.filter(pl.Series(rows)), states.vectors[rows])
                statement = sql.SQL("COPY {} ({}) FROM STDIN WITH (FORMAT binary)")
                cursor.copy_expert(statement.format(sql.Identifier(table), sql.SQL(COLUMNS)), io.BytesIO(copied(kept)))
            account(cursor, table, {one: found.get(one) for one in changed})
        return Stored(len(day), int(rows.sum()), replaced, tuple(changed.tolist()), restarted)

    def search(
        self,
        table: str,
        vector: Sequence[float],
        *,
        before: datetime,
        limit: int = 10,
        symbol: str | None = None,
        start: datetime | None = None,
        end: datetime | None = None,
        coverage: float = 0.0,
    ) -> pl.DataFrame:
        """The stored bars known at `before` that are nearest to `vector` (Euclidean), nearest first.

        `symbol`, [start, end) of the bars, and the least `coverage` narrow the search. Exact unless `index` was
        called, and then still where fewer than some 50,000 states are wanted. NoVectors if the table has none yet,
        ValueError if `vector` is of another length.
        """
        from timescale_vector import client as timescale

        with self._connect() as connection, connection.cursor() as cursor:
            columns = _columns(cursor, table)
            if len(vector) != len(columns):
                raise ValueError(
                    f"the vector has {len(vector)} numbers, those of {table} have {len(columns)}: {', '.join(columns)}"
                )
            found = search(
                self._url,
                cursor,
                table,
                [float(number) for number in vector],
                before=before,
                limit=int(limit),
                symbol=symbol,
                start=start,
                end=end,
                coverage=coverage,
            )
        keys = _keys((row[timescale.SEARCH_RESULT_ID_IDX], row[timescale.SEARCH_RESULT_METADATA_IDX]) for row in found)
        distance = [row[timescale.SEARCH_RESULT_DISTANCE_IDX] for row in found]
        return keys.with_columns(distance=pl.Series(distance, dtype=pl.Float64)).sort("distance", maintain_order=True)

    def newest(self, table: str, symbol: str, before: datetime) -> States:
        """The newest state of a symbol that was known at `before`, as a States of one row.

        NoVectors where there is none; where there is no database yet, asking makes none.
        """
        if not self._database.begun:
            raise _none_yet(table)
        with self._connect() as connection, connection.cursor() as cursor:
            _columns(cursor, table)
            extras.register_uuid(conn_or_curs=cursor)
            cursor.execute(
                sql.SQL(
                    "SELECT id, metadata, embedding::real[] FROM {} WHERE metadata @> jsonb_build_object('symbol', %s) "
                    "AND (metadata->>'known_at')::timestamptz <= %s AND uuid_timestamp(id) <= %s "
                    "ORDER BY uuid_timestamp(id) DESC LIMIT 1"
                ).format(sql.Identifier(table)),
                (symbol, before, before),
            )
            row = cursor.fetchone()
            if row is None:
                raise NoVectors(
                    f"no state of {symbol} in {table} was known at {before:%Y-%m-%d %H:%M:%S} UTC: ask for a later "
                    "time, materialize the vectors step of that time, or check the symbol; "
                    f"{_known(cursor, table, symbol)}"
                )
        return States(_keys([row[:2]]), np.array([row[2]], np.float32))

    def symbols(self, table: str, timestamps: Sequence[datetime]) -> pl.DataFrame:
        """(symbol, timestamp) of every state at these bars."""
        with self._connect() as connection, connection.cursor() as cursor:
            _columns(cursor, table)
            extras.register_uuid(conn_or_curs=cursor)
            cursor.execute(
                sql.SQL("SELECT id, metadata FROM {} WHERE uuid_timestamp(id) = ANY(%s)").format(sql.Identifier(table)),
                (list(timestamps),),
            )
            return _keys(cursor.fetchall()).select("symbol", "timestamp").sort("timestamp", "symbol")

    def columns(self, table: str) -> dict[str, str | None]:
        """The expression of each number by name, None where it is not on record; NoVectors without a table."""
        with self._connect() as connection, connection.cursor() as cursor:
            return _columns(cursor, table)

    def count(self, table: str) -> int:
        """Stored vectors; 0 where there is no table yet."""
        with self._connect() as connection, connection.cursor() as cursor:
            if described(cursor, table) is None:
                return 0
            cursor.execute(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table)))
            return int(cursor.fetchone()[0])

    def index(self, table: str, kind: Index) -> bool:
        """Give the vectors this index; whether it had to be built or dropped. See conf/vectors for when it pays."""
        dimensions = len(self.columns(table))
        with self._connect() as connection, connection, connection.cursor() as cursor:
            return set_index(cursor, client(self._url, table, dimensions).builder, kind)

    @property
    def _url(self) -> str:
        return self._database.url("vectors")

    def _connect(self) -> Any:
        return closing(psycopg2.connect(self._url))

    def _prepare(self, cursor: Any, table: str, columns: Mapping[str, str]) -> str | None:
        """Have the table for these columns; why it was started anew, if it was."""
        there, restarted = described(cursor, table), None
        if there is not None and list(there.items()) == list(columns.items()):
            return None
        if there is not None and list(there) == list(columns) and None in there.values():
            # An earlier Tenor made it and kept no account of sessions: each is written again when it is asked for.
            create_account(cursor)
            describe(cursor, table, columns)
            return None
        if there is not None:
            restarted = _differ(table, there, columns)
            cursor.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier(table)))
        create(cursor, client(self._url, table, len(columns)).builder, columns)
        cursor.execute(sql.SQL("DELETE FROM {} WHERE of = %s").format(sql.Identifier(SESSIONS)), (table,))
        return restarted


def _columns(cursor: Any, table: str) -> dict[str, str | None]:
    found = described(cursor, table)
    if found is None:
        raise _none_yet(table)
    return found


def _none_yet(table: str) -> NoVectors:
    horizon = table.partition("/")[0]
    return NoVectors(
        f"horizon {horizon} has no vectors yet: materialize its vectors step first, with "
        f"`tenor refresh horizon={horizon}`"
    )


def _known(cursor: Any, table: str, asked: str) -> str:
    """The symbols of the newest states, for a message; where they are many, those whose names are nearest."""
    cursor.execute(
        sql.SQL(
            "SELECT DISTINCT symbol FROM (SELECT metadata->>'symbol' AS symbol FROM {} "
            "ORDER BY uuid_timestamp(id) DESC LIMIT %s) AS newest ORDER BY 1"
        ).format(sql.Identifier(table)),
        (LOOKED,),
    )
    found = [symbol for (symbol,) in cursor]
    if len(found) <= SHOWN:
        return f"there are {', '.join(found) or 'none'}"
    near = difflib.get_close_matches(asked, found, n=SHOWN, cutoff=0)
    return f"nearest of {len(found)} by name: {', '.join(near)}"


def _keys(rows: Iterable[Sequence[Any]]) -> pl.DataFrame:
    """KEYS of rows that begin with id and metadata."""
    found = list(rows)
    metadata = [row[1] for row in found]
    return pl.DataFrame(
        {
            "symbol": [entry["symbol"] for entry in metadata],
            "timestamp": timestamps(row[0] for row in found),
            "known_at": [datetime.fromisoformat(entry["known_at"]) for entry in metadata],
            "coverage": [entry["coverage"] for entry in metadata],
        },
        schema=KEYS,
    )


def _differ(table: str, there: Mapping[str, str | None], columns: Mapping[str, str]) -> str:
    """Why a table cannot take these columns."""
    if list(there) != list(columns):
        what = f"were {', '.join(there)} and are now {', '.join(columns)}"
    else:
        name = next(name for name in columns if columns[name] != there[name])
        what = f"have another {name}: it was {there[name]} and is now {columns[name]}"
    return f"the vectors of {table} {what}: the table starts anew; materialize earlier sessions again to search them"
