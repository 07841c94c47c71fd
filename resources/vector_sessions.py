"""The account of sessions: what was written of each, so that one that is as it was is not written again."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from psycopg2 import extras, sql  # type: ignore[import-untyped]

from quant.panel import Instants, moment
from resources.vector_tables import SESSIONS


def written(cursor: Any, table: str, asked: Instants) -> dict[np.datetime64, bytes]:
    """The digest of each of these sessions (datetime64[D], increasing) that has states."""
    if not len(asked):
        return {}
    cursor.execute(
        sql.SQL("SELECT session, digest FROM {} WHERE of = %s AND session BETWEEN %s AND %s").format(
            sql.Identifier(SESSIONS)
        ),
        (table, asked[0].item(), asked[-1].item()),
    )
    return {np.datetime64(session, "D"): bytes(digest) for session, digest in cursor}


def account(cursor: Any, table: str, digests: Mapping[np.datetime64, bytes | None]) -> None:
    """Keep the digests of sessions that were written; None: the session has no states now."""
    table_of = sql.Identifier(SESSIONS)
    cursor.execute(
        sql.SQL("DELETE FROM {} WHERE of = %s AND session = ANY(%s)").format(table_of),
        (table, [session.item() for session in digests]),
    )
    rows = [(table, session.item(), digest) for session, digest in digests.items() if digest is not None]
    extras.execute_values(
        cursor, sql.SQL("INSERT INTO {} (of, session, digest) VALUES %s").format(table_of).as_string(cursor), rows
    )


def delete(cursor: Any, table: str, slots: Instants, wanted: np.ndarray) -> int:
    """Delete the states of the slots wanted (bool [T]), each run of neighbours at once; how many there were."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], wanted, [False]]).astype(np.int8)))
    deleted = 0
    for first, after in zip(edges[::2], edges[1::2], strict=True):
        cursor.execute(
            sql.SQL("DELETE FROM {} WHERE uuid_timestamp(id) BETWEEN %s AND %s").format(sql.Identifier(table)),
            (moment(slots[first]), moment(slots[after - 1])),
        )
        deleted += cursor.rowcount
    return deleted
