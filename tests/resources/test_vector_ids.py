"""Ids of vectors: a bar's own, with its time in them, and those of timescale-vector."""

import hashlib
from datetime import UTC, datetime
from uuid import UUID

import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st
from timescale_vector.client import uuid_from_time

from resources.vector_ids import ids, timestamps

TIMES = st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1)).map(lambda time: time.replace(tzinfo=UTC))


def uuids(words: np.ndarray) -> list[UUID]:
    return [UUID(bytes=pair.tobytes()) for pair in words]


@given(st.lists(st.tuples(TIMES, st.text(min_size=1, max_size=5)), min_size=1, max_size=20))
def test_an_id_is_its_bar_s_own_and_gives_the_time_back(rows: list[tuple[datetime, str]]) -> None:
    time = pl.Series([row[0] for row in rows], dtype=pl.Datetime("us", "UTC"))
    made = uuids(ids(time, pl.Series([row[1] for row in rows])))
    assert len(set(made)) == len(set(rows))
    assert timestamps(made).to_list() == time.to_list()


@given(TIMES.map(lambda time: time.replace(microsecond=0)), st.text(min_size=1, max_size=5))
def test_an_id_is_timescale_vector_s_for_the_symbol_s_hash(when: datetime, symbol: str) -> None:
    """On whole seconds: its own arithmetic is in floats, which are off by up to 0.4 µs between them."""
    (made,) = uuids(ids(pl.Series([when], dtype=pl.Datetime("us", "UTC")), pl.Series([symbol])))
    bits = int.from_bytes(hashlib.sha256(symbol.encode()).digest()[:8], "big") >> 2
    assert made == uuid_from_time(when, node=bits & (2**48 - 1), clock_seq=bits >> 48)
