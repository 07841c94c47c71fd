"""Searches of vectors on a real embedded server, with and without an index, against numpy's own."""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import psycopg2
import pytest
from timescale_vector import client as timescale

from quant.states import KEYS
from resources import vector_search
from resources.database import Database
from resources.postgres import DatabaseError
from resources.vector_tables import Index
from resources.vectors import NoVectors, Vectors
from tests.resources.vectors import END, START, SYMBOLS, bars, states, vectors, write

__all__ = ["vectors"]  # a fixture

FAR = START + timedelta(days=9)


def nearest(rows: pl.DataFrame, vector: list[float], limit: int) -> list[tuple[str, datetime]]:
    distance = np.linalg.norm(np.array(rows["vector"].to_list()) - np.array(vector), axis=1)
    chosen = rows[np.argsort(distance)[:limit].tolist()]
    return list(zip(chosen["symbol"], chosen["timestamp"], strict=True))


def found(result: pl.DataFrame) -> list[tuple[str, datetime]]:
    return list(zip(result["symbol"], result["timestamp"], strict=True))


def test_search_finds_what_a_full_scan_in_numpy_finds(vectors: Vectors) -> None:
    rows = bars(200)
    assert write(vectors, "exact", rows, 200).rows == 800
    query = rows["vector"][5].to_list()
    result = vectors.search("exact", query, before=END, limit=7)
    assert found(result) == nearest(rows, query, 7)
    assert result["distance"][0] == 0
    assert result.row(0, named=True)["coverage"] == pytest.approx(rows["coverage"][5])
    assert result["known_at"][0] == rows["known_at"][5]


def test_search_sees_only_what_was_known_then_equality_included(vectors: Vectors) -> None:
    rows = bars(50)
    write(vectors, "known", rows, 50)
    before = START + timedelta(minutes=25)
    known = rows.filter(pl.col("known_at") <= before)
    query = rows["vector"][-1].to_list()
    result = vectors.search("known", query, before=before, limit=1000)
    assert found(result) == nearest(known, query, known.height)
    assert result["known_at"].max() == before


def test_search_narrows_by_symbol_and_by_time(vectors: Vectors) -> None:
    rows = bars(50)
    write(vectors, "narrow", rows, 50)
    query, since = rows["vector"][0].to_list(), START + timedelta(hours=1)
    for symbol in SYMBOLS:
        wanted = rows.filter((pl.col("symbol") == symbol) & (pl.col("timestamp") >= since))
        result = vectors.search("narrow", query, before=END, limit=5, symbol=symbol, start=since, end=END)
        assert found(result) == nearest(wanted, query, 5)


def test_search_leaves_out_states_that_lack_too_many_numbers(vectors: Vectors) -> None:
    rows = bars(50)
    write(vectors, "covered", rows, 50)
    query = rows["vector"][0].to_list()
    wanted = rows.filter(pl.col("coverage") >= 0.7)
    assert found(vectors.search("covered", query, before=END, limit=9, coverage=0.7)) == nearest(wanted, query, 9)


def test_the_newest_state_is_the_last_that_was_known_not_the_last_that_is_stored(vectors: Vectors) -> None:
    rows = bars(30)
    late = (pl.col("symbol") == "SPY") & (pl.col("timestamp") == START + timedelta(minutes=50))
    rows = rows.with_columns(known_at=pl.when(late).then(pl.lit(END)).otherwise("known_at"))
    write(vectors, "newest", rows, 30)
    for symbol in SYMBOLS:
        for before in (START + timedelta(minutes=57), START + timedelta(minutes=60)):
            known = rows.filter((pl.col("symbol") == symbol) & (pl.col("known_at") <= before)).tail(1)
            newest = vectors.newest("newest", symbol, before)
            assert newest.keys.equals(known.select(KEYS.keys()))
            np.testing.assert_array_equal(newest.vectors, states(known).vectors)
    with pytest.raises(NoVectors, match="no state of SPY in newest was known at 2024-01-02 14:30:00"):
        vectors.newest("newest", "SPY", START)


def test_who_has_a_state_at_a_bar_is_told(vectors: Vectors) -> None:
    rows = bars(10).filter((pl.col("symbol") != "SPY") | (pl.col("timestamp") > START))
    write(vectors, "who", rows, 10)
    asked = [START, START + timedelta(minutes=45)]
    expected = rows.filter(pl.col("timestamp").is_in(asked)).select("symbol", "timestamp")
    assert vectors.symbols("who", asked).equals(expected.sort("timestamp", "symbol"))


@pytest.mark.parametrize("kind", ["hnsw", "none"])
def test_an_index_returns_as_many_as_asked_for_under_a_narrow_filter(vectors: Vectors, kind: Index) -> None:
    rows = bars(500)
    write(vectors, "indexed", rows, 500)
    assert vectors.index("indexed", kind)
    assert not vectors.index("indexed", kind)
    query, before = rows["vector"][-1].to_list(), START + timedelta(minutes=30)
    wanted = rows.filter((pl.col("known_at") <= before) & (pl.col("symbol") == "SPY"))
    result = vectors.search("indexed", query, before=before, limit=5, symbol="SPY")
    assert found(result) == nearest(wanted, query, 5)


def explained(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """The settings of each search that is sent, in order."""
    sent: list[dict[str, str]] = []
    make = timescale.QueryParams.__init__
    monkeypatch.setattr(
        timescale.QueryParams, "__init__", lambda self, given: (sent.append(given), make(self, given))[1]
    )
    return sent


def test_where_many_are_wanted_the_index_is_asked_and_where_few_are_all_are_compared(
    vectors: Vectors, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = bars(500)
    write(vectors, "chosen", rows, 500)
    vectors.index("chosen", "hnsw")
    with psycopg2.connect(vectors._database.url("vectors")) as connection, connection.cursor() as cursor:
        cursor.execute("ANALYZE chosen")  # as the server does by itself within a minute
    connection.close()
    sent = explained(monkeypatch)
    query, early = rows["vector"][-1].to_list(), START + timedelta(minutes=30)
    monkeypatch.setattr(vector_search, "FEW", 1000)
    ways = {True: vector_search.INDEXED, False: vector_search.EXACT}
    asked: list[tuple[bool, dict[str, Any]]] = [
        (True, {"before": FAR}),
        (False, {"before": FAR, "symbol": "SPY"}),
        (False, {"before": early}),
        (False, {"before": FAR, "end": early}),
        (False, {"before": FAR, "start": START + timedelta(minutes=5 * 490)}),
    ]
    for indexed, narrowed in asked:
        vectors.search("chosen", query, limit=5, **narrowed)
        assert sent[-1] == ways[indexed], narrowed
    assert len(sent) == len(asked)


def test_an_index_that_found_too_few_is_not_believed(vectors: Vectors, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = bars(500)
    write(vectors, "short", rows, 500)
    vectors.index("short", "hnsw")
    monkeypatch.setattr(vector_search, "FEW", 0)
    lazy = {"hnsw.max_scan_tuples": "1", "enable_sort": "off"}  # the planner has no other way to the order asked for
    monkeypatch.setattr(vector_search, "INDEXED", vector_search.INDEXED | lazy)
    sent = explained(monkeypatch)
    query, before = rows["vector"][-1].to_list(), START + timedelta(minutes=30)
    wanted = rows.filter((pl.col("known_at") <= before) & (pl.col("symbol") == "SPY"))
    result = vectors.search("short", query, before=before, limit=5, symbol="SPY")
    assert found(result) == nearest(wanted, query, 5)
    assert sent == [vector_search.INDEXED, vector_search.EXACT]


def test_an_index_that_the_server_lacks_is_refused(vectors: Vectors) -> None:
    write(vectors, "lacks", bars(2), 2)
    with pytest.raises(DatabaseError, match=r"no pgvectorscale.*vectors\.index=hnsw"):
        vectors.index("lacks", "diskann")


def test_a_horizon_without_vectors_says_what_to_do(vectors: Vectors) -> None:
    assert vectors.count("none") == 0
    with pytest.raises(NoVectors, match=r"none has no vectors yet: materialize its vectors step .*tenor refresh"):
        vectors.search("none", [1.0], before=END)


def test_asking_a_store_without_a_database_makes_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TENOR_DATABASE_URL", raising=False)
    with pytest.raises(NoVectors, match=r"horizon 5m has no vectors yet: .* `tenor refresh horizon=5m`"):
        Vectors(Database(tmp_path)).newest("5m/market", "market", END)
    assert list(tmp_path.iterdir()) == []


def test_a_query_of_another_length_is_refused(vectors: Vectors) -> None:
    write(vectors, "length", bars(1), 1)
    with pytest.raises(ValueError, match="has 1 numbers, those of length have 4: factor_0"):
        vectors.search("length", [1.0], before=END)
