"""How a question goes to the server: through the index where that pays, else every state is compared."""

import json
from collections.abc import Sequence
from contextlib import closing
from datetime import datetime
from typing import Any

from psycopg2 import sql  # type: ignore[import-untyped]

from resources.vector_tables import client, indexed_by

FEW = 50_000  # candidates that are compared as fast as an index finds its way to them
# Compiling a query takes longer than it saves. An index scan could only be that of the vectors' index.
EXACT = {"jit": "off", "enable_indexscan": "off"}
# The index goes on while what it found is filtered away, up to pgvector's hnsw.max_scan_tuples, and may tell a nearer
# state after one farther off: who asks sorts them.
INDEXED = {"jit": "off", "hnsw.iterative_scan": "relaxed_order"}


def search(
    url: str,
    cursor: Any,
    table: str,
    vector: Sequence[float],
    *,
    before: datetime,
    limit: int,
    symbol: str | None,
    start: datetime | None,
    end: datetime | None,
    coverage: float,
) -> list[Any]:
    """timescale-vector's rows for the nearest states of `Vectors.search`, in no order.

    An index meets states in the order of their distance, whoever's and whenever they are. Where few of those it meets
    are wanted (one symbol of many, an early time) it gives up before it has found the nearest, or any: then all are
    compared.
    """
    from timescale_vector import client as timescale

    # What was known then had begun by then: the time index narrows what known_at alone would read through.
    bars = timescale.UUIDTimeRange(start, end) if end and end <= before else None
    bars = bars or timescale.UUIDTimeRange(start, before, end_inclusive=True)
    given: dict[str, Any] = {
        "limit": limit,
        "filter": {"symbol": symbol} if symbol is not None else None,
        "predicates": timescale.Predicates(("known_at", "<=", before), ("coverage", ">=", float(coverage))),
        "uuid_time_filter": bars,
    }
    with closing(client(url, table, len(vector))) as asked:
        if indexed_by(cursor, table) != "none" and not _few(cursor, table, symbol, bars):
            found = asked.search(vector, query_params=timescale.QueryParams(INDEXED), **given)
            if len(found) == limit:
                return found
        return asked.search(vector, query_params=timescale.QueryParams(EXACT), **given)


def _few(cursor: Any, table: str, symbol: str | None, bars: Any) -> bool:
    """Whether the planner expects few states of these bars and this symbol."""
    wanted = {"symbol": symbol} if symbol is not None else {}
    cursor.execute(
        sql.SQL(
            "EXPLAIN (FORMAT JSON) SELECT id FROM {} "
            "WHERE metadata @> %s::jsonb AND uuid_timestamp(id) >= %s AND uuid_timestamp(id) <= %s"
        ).format(sql.Identifier(table)),
        (json.dumps(wanted), bars.start_date or datetime.min, bars.end_date),
    )
    [[[plan]]] = cursor.fetchall()
    return bool(plan["Plan"]["Plan Rows"] < FEW)
