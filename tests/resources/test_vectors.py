"""Vectors on a real embedded server, against numpy's own search and timescale-vector's own ids."""

import hashlib
import json
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import polars as pl
import psycopg2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from timescale_vector import client as timescale
from timescale_vector.client import uuid_from_time

from quant.states import KEYS, States
from resources import vector_search
from resources.database import Database
from resources.postgres import DatabaseError
from resources.vector_ids import ids, timestamps
from resources.vector_tables import Index
from resources.vectors import NoVectors, Stored, Vectors

START = datetime(2024, 1, 2, 14, 30, tzinfo=UTC)
END = START + timedelta(days=1)
FAR = START + timedelta(days=9)
SESSION = 20
SYMBOLS = ("AAPL", "BRK.B", "Ünï,\"code'", "SPY")


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vectors]:
    patch = pytest.MonkeyPatch()
    patch.delenv("TENOR_DATABASE_URL", raising=False)
    database = Database(tmp_path_factory.mktemp("store"))
    yield Vectors(database)
    database.release()
    patch.undo()


def columns(count: int) -> dict[str, str]:
    return {f"factor_{number}": f"expression {number}" for number in range(count)}


def bars(count: int, dimensions: int = 4, seed: int = 0) -> pl.DataFrame:
    """`count` five-minute bars of each symbol from START on, known when they end: KEYS and a `vector`."""
    random = np.random.default_rng(seed)
    rows = count * len(SYMBOLS)
    return (
        pl.DataFrame(
            {
                "timestamp": [START + timedelta(minutes=5 * (row // len(SYMBOLS))) for row in range(rows)],
                "symbol": [SYMBOLS[row % len(SYMBOLS)] for row in range(rows)],
                "vector": random.normal(size=(rows, dimensions)).astype(np.float32).tolist(),
                "coverage": random.random(rows).astype(np.float32),
            }
        )
        .with_columns(known_at=pl.col("timestamp") + pl.duration(minutes=5))
        .with_columns(pl.col(name).cast(kind) for name, kind in KEYS.items())
        .sort("timestamp", "symbol")
    )


def grid(count: int, start: datetime = START) -> tuple[np.ndarray, np.ndarray]:
    """The slots of `count` bars from `start` on, and the session of each: SESSION bars make one."""
    number = (start - START) // timedelta(minutes=5) + np.arange(count)
    slots = np.datetime64(START.replace(tzinfo=None), "us") + number * np.timedelta64(5, "m")
    return slots, np.datetime64("2024-01-02") + number // SESSION


def states(rows: pl.DataFrame) -> States:
    vectors = np.array(rows["vector"].to_list(), np.float32) if len(rows) else np.zeros((0, 4), np.float32)
    return States(rows.select(KEYS.keys()), vectors)


def write(
    vectors: Vectors, table: str, rows: pl.DataFrame, count: int, *, start: datetime = START, dimensions: int = 4
) -> Stored:
    """Make `rows` the states of `count` bars from `start` on."""
    return vectors.write(table, states(rows), *grid(count, start), columns=columns(dimensions))


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


def test_sessions_written_twice_hold_only_the_second_writing(vectors: Vectors) -> None:
    first, second = bars(60, seed=1), bars(60, seed=2).head(2 * SESSION * 4)
    write(vectors, "twice", first, 60)
    done = write(vectors, "twice", second, 2 * SESSION)
    assert (done.written, done.replaced) == (160, 160)
    assert vectors.count("twice") == 240
    changed = vectors.search("twice", second["vector"][3].to_list(), before=END, limit=1)
    assert changed["distance"][0] == 0
    kept = vectors.search("twice", first["vector"][200].to_list(), before=END, limit=1)
    assert kept["distance"][0] == 0


def versions(vectors: Vectors, table: str) -> dict[str, int]:
    """The transaction that wrote each row: one that was left alone keeps its own."""
    with psycopg2.connect(vectors._database.url("vectors")) as connection, connection.cursor() as cursor:
        cursor.execute(f'SELECT id::text, xmin::text::bigint FROM "{table}"')
        rows = dict(cursor.fetchall())
    connection.close()
    return rows


def test_a_session_that_did_not_change_is_not_touched(vectors: Vectors) -> None:
    rows = bars(60)
    write(vectors, "same", rows, 60)
    before = versions(vectors, "same")
    again = write(vectors, "same", rows, 60)
    assert (again.rows, again.written, again.replaced, again.changed) == (240, 0, 0, ())
    assert versions(vectors, "same") == before


@pytest.mark.parametrize(
    "change",
    [
        pl.lit(0.25).alias("coverage"),
        pl.lit(END).alias("known_at"),
        pl.lit("OTHER").alias("symbol"),
        pl.concat_list([pl.lit(number, pl.Float32) for number in (1, 2, 3, 4)]).alias("vector"),
    ],
)
def test_a_session_with_one_row_that_differs_is_written_and_no_other(vectors: Vectors, change: pl.Expr) -> None:
    rows, name = bars(60), change.meta.output_name()
    write(vectors, "one", rows, 60)
    before = versions(vectors, "one")
    here = (pl.col("timestamp") == START + timedelta(minutes=5 * 30)) & (pl.col("symbol") == "SPY")
    changed = rows.with_columns(pl.when(here).then(change.cast(rows.schema[name])).otherwise(name).alias(name))
    done = write(vectors, "one", changed.sort("timestamp", "symbol"), 60)
    assert (done.written, done.replaced, done.changed) == (80, 80, (date(2024, 1, 3),))
    after = versions(vectors, "one")
    same = {id for id, version in after.items() if before.get(id) == version}
    assert len(same) == 160
    write(vectors, "one", rows, 60)


def test_sessions_that_lost_their_rows_are_emptied(vectors: Vectors) -> None:
    rows = bars(60)
    write(vectors, "lost", rows, 60)
    left = rows.filter(pl.col("timestamp") >= START + timedelta(minutes=5 * SESSION))
    done = write(vectors, "lost", left, 60)
    assert (done.written, done.replaced, vectors.count("lost")) == (0, 80, 160)
    assert write(vectors, "lost", left, 60).changed == ()


def test_a_write_that_fails_leaves_what_was_there(vectors: Vectors) -> None:
    rows = bars(5)
    write(vectors, "atomic", rows, 5)
    with pytest.raises(psycopg2.DataError):  # `\0` cannot be stored as text: the server itself refuses
        write(vectors, "atomic", rows.with_columns(symbol=pl.lit("A\0") + pl.col("symbol")), 5)
    assert vectors.count("atomic") == 20
    assert write(vectors, "atomic", rows, 5).changed == ()


def test_other_columns_start_the_table_anew_and_say_so(vectors: Vectors) -> None:
    def written(rows: pl.DataFrame, **columns: str) -> str | None:
        return vectors.write("shape", states(rows), *grid(20), columns=columns).restarted

    assert written(bars(20, dimensions=2), a="x", b="y") is None
    assert written(bars(10, dimensions=2), a="x", b="y") is None
    said = written(bars(3, dimensions=2), a="x", c="y")
    assert said is not None
    assert "were a, b and are now a, c: the table starts anew" in said
    assert vectors.count("shape") == 12
    said = written(bars(3, dimensions=2), a="x", c="z")
    assert said is not None
    assert "have another c: it was y and is now z" in said
    assert written(bars(3, dimensions=2), c="z", a="x") is not None


def test_a_table_of_an_earlier_tenor_is_kept_and_goes_on(vectors: Vectors) -> None:
    rows = bars(60)
    write(vectors, "earlier", rows, 60)
    with psycopg2.connect(vectors._database.url("vectors")) as connection, connection.cursor() as cursor:
        cursor.execute("COMMENT ON TABLE earlier IS %s", (json.dumps({"columns": list(columns(4))}),))
        cursor.execute('DROP TABLE "/sessions"')
    connection.close()
    done = write(vectors, "earlier", rows.head(80), SESSION)
    assert (done.restarted, done.written, done.replaced) == (None, 80, 80)
    assert vectors.count("earlier") == 240
    assert vectors.columns("earlier") == columns(4)


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


@pytest.mark.parametrize(
    ("change", "trouble"),
    [
        (pl.lit(END).alias("timestamp"), "outside the sessions"),
        (pl.lit(START - timedelta(minutes=5)).alias("timestamp"), "outside the sessions"),
        (pl.lit("SPY").alias("symbol"), "is there twice"),
        (pl.lit(None).alias("coverage"), "lacks a symbol, a known_at or a coverage"),
    ],
)
def test_a_row_that_cannot_be_stored_is_named(vectors: Vectors, change: pl.Expr, trouble: str) -> None:
    rows = bars(1).with_columns(change.cast(KEYS[change.meta.output_name()]))
    with pytest.raises(ValueError, match=rf"the row of .* at 2024-01-0.*{trouble}"):
        write(vectors, "refused", rows, 1)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_number_that_is_none_is_named(vectors: Vectors, number: float) -> None:
    made = states(bars(1))
    made.vectors[2, 1] = number
    with pytest.raises(ValueError, match=r"the row of SPY at 2024-01-02.*missing or not finite"):
        vectors.write("refused", made, *grid(1), columns=columns(4))


def test_rows_that_go_back_in_time_are_named(vectors: Vectors) -> None:
    with pytest.raises(ValueError, match="is earlier than the row before it"):
        write(vectors, "refused", bars(2).reverse(), 2)


def test_numbers_of_another_count_than_columns_are_refused(vectors: Vectors) -> None:
    with pytest.raises(ValueError, match=r"float32 \(4, 5\), not .* with float32 \(4, 4\)"):
        write(vectors, "refused", bars(1, dimensions=5), 1)
    with pytest.raises(ValueError, match="would have 129 numbers: 1 to 128"):
        write(vectors, "wide", bars(1, dimensions=129), 1, dimensions=129)


def test_no_sessions_are_a_write_too(vectors: Vectors) -> None:
    assert write(vectors, "empty", bars(2).clear(), 0).changed == ()
    assert write(vectors, "empty", bars(2).clear(), 2).changed == ()


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
