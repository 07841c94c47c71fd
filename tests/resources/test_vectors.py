"""Vectors on a real embedded server, against numpy's own search and timescale-vector's own ids."""

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import numpy as np
import polars as pl
import psycopg2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from timescale_vector.client import uuid_from_time

from resources.database import Database
from resources.vector_ids import ids, timestamps
from resources.vectors import ROWS, Vectors

START = datetime(2024, 1, 2, 14, 30, tzinfo=UTC)
END = START + timedelta(days=1)
SYMBOLS = ("AAPL", "BRK.B", "Ünï,\"code'", "SPY")


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vectors]:
    patch = pytest.MonkeyPatch()
    patch.delenv("TENOR_DATABASE_URL", raising=False)
    database = Database(tmp_path_factory.mktemp("store"))
    yield Vectors(database)
    database.release()
    patch.undo()


def columns(count: int) -> list[str]:
    return [f"factor_{number}" for number in range(count)]


def bars(count: int, dimensions: int = 4, seed: int = 0) -> pl.DataFrame:
    """`count` five-minute bars of each symbol from START on, known when they end."""
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
        .select(pl.col(name).cast(kind) for name, kind in ROWS.items())
    )


def vector(*numbers: float | None) -> pl.Expr:
    return pl.concat_list([pl.lit(number, pl.Float32) for number in numbers]).alias("vector")


def nearest(rows: pl.DataFrame, vector: list[float], limit: int) -> list[tuple[str, datetime]]:
    distance = np.linalg.norm(np.array(rows["vector"].to_list()) - np.array(vector), axis=1)
    chosen = rows[np.argsort(distance)[:limit].tolist()]
    return list(zip(chosen["symbol"], chosen["timestamp"], strict=True))


def found(result: pl.DataFrame) -> list[tuple[str, datetime]]:
    return list(zip(result["symbol"], result["timestamp"], strict=True))


def test_search_finds_what_a_full_scan_in_numpy_finds(vectors: Vectors) -> None:
    rows = bars(200)
    assert vectors.write("exact", rows, START, END, columns=columns(4)).rows == 800
    query = rows["vector"][5].to_list()
    result = vectors.search("exact", query, before=END, limit=7)
    assert found(result) == nearest(rows, query, 7)
    assert result["distance"][0] == 0
    assert result.row(0, named=True)["coverage"] == pytest.approx(rows["coverage"][5])
    assert result["known_at"][0] == rows["known_at"][5]


def test_search_sees_only_what_was_known_then_equality_included(vectors: Vectors) -> None:
    rows = bars(50)
    vectors.write("known", rows, START, END, columns=columns(4))
    before = START + timedelta(minutes=25)
    known = rows.filter(pl.col("known_at") <= before)
    query = rows["vector"][-1].to_list()
    result = vectors.search("known", query, before=before, limit=1000)
    assert found(result) == nearest(known, query, known.height)
    assert result["known_at"].max() == before


def test_search_narrows_by_symbol_and_by_time(vectors: Vectors) -> None:
    rows = bars(50)
    vectors.write("narrow", rows, START, END, columns=columns(4))
    query, since = rows["vector"][0].to_list(), START + timedelta(hours=1)
    for symbol in SYMBOLS:
        wanted = rows.filter((pl.col("symbol") == symbol) & (pl.col("timestamp") >= since))
        result = vectors.search("narrow", query, before=END, limit=5, symbol=symbol, start=since, end=END)
        assert found(result) == nearest(wanted, query, 5)


def test_a_range_written_twice_holds_only_the_second_writing(vectors: Vectors) -> None:
    first, second = bars(20, seed=1), bars(20, seed=2).head(40)
    vectors.write("twice", first, START, END, columns=columns(4))
    half = START + timedelta(minutes=50)
    done = vectors.write("twice", second, START, half, columns=columns(4))
    assert (done.rows, done.replaced) == (40, 40)
    assert vectors.count("twice") == 80
    changed = vectors.search("twice", second["vector"][3].to_list(), before=END, limit=1)
    assert changed["distance"][0] == 0
    kept = vectors.search("twice", first["vector"][60].to_list(), before=END, limit=1)
    assert kept["distance"][0] == 0


def test_a_write_that_fails_leaves_what_was_there(vectors: Vectors) -> None:
    rows = bars(5)
    vectors.write("atomic", rows, START, END, columns=columns(4))
    with pytest.raises(psycopg2.DataError):  # `\0` cannot be stored as text: the server itself refuses
        vectors.write(
            "atomic",
            rows.with_columns(symbol=pl.lit("A\0") + pl.col("symbol")),
            START,
            END,
            columns=columns(4),
        )
    assert vectors.count("atomic") == 20


def test_other_columns_start_the_table_anew_and_say_so(vectors: Vectors) -> None:
    vectors.write("shape", bars(20), START, END, columns=columns(4))
    assert vectors.write("shape", bars(10), START, END, columns=columns(4)).restarted is None
    done = vectors.write("shape", bars(3, dimensions=2), START, END, columns=["a", "b"])
    assert done.restarted is not None
    assert "are now a, b: the table starts anew" in done.restarted
    assert vectors.count("shape") == 12
    renamed = vectors.write("shape", bars(3, dimensions=2), START, END, columns=["a", "c"])
    assert renamed.restarted is not None


def test_an_index_returns_as_many_as_asked_for_under_a_narrow_filter(vectors: Vectors) -> None:
    rows = bars(500)
    vectors.write("indexed", rows, START, START + timedelta(days=9), columns=columns(4))
    vectors.index("indexed")
    query, before = rows["vector"][-1].to_list(), START + timedelta(minutes=30)
    wanted = rows.filter((pl.col("known_at") <= before) & (pl.col("symbol") == "SPY"))
    result = vectors.search("indexed", query, before=before, limit=5, symbol="SPY")
    assert found(result) == nearest(wanted, query, 5)


def test_a_horizon_without_vectors_says_what_to_do(vectors: Vectors) -> None:
    assert vectors.count("none") == 0
    with pytest.raises(LookupError, match="none has no vectors yet: materialize its vectors step"):
        vectors.search("none", [1.0], before=END)


def test_a_query_of_another_length_is_refused(vectors: Vectors) -> None:
    vectors.write("length", bars(1), START, END, columns=columns(4))
    with pytest.raises(ValueError, match="has 1 numbers, those of length have 4: factor_0"):
        vectors.search("length", [1.0], before=END)


@pytest.mark.parametrize(
    ("change", "trouble"),
    [
        (pl.lit(END).alias("timestamp"), "outside the range"),
        (vector(1.0, float("nan"), 0.0, 0.0), "missing or not finite"),
        (vector(1.0, None, 0.0, 0.0), "missing or not finite"),
        (vector(*[1.0] * 5), "another length than its 4 columns"),
        (pl.lit("SPY").alias("symbol"), "is there twice"),
        (pl.lit(None).alias("coverage"), "lacks a symbol, a known_at or a coverage"),
    ],
)
def test_a_row_that_cannot_be_stored_is_named(vectors: Vectors, change: pl.Expr, trouble: str) -> None:
    name = change.meta.output_name()
    rows = bars(1).with_columns(change.cast(ROWS[name]))
    with pytest.raises(ValueError, match=rf"the row of .* at 2024-01-0.*{trouble}"):
        vectors.write("refused", rows, START, END, columns=columns(4))


def test_more_than_64_numbers_are_refused(vectors: Vectors) -> None:
    with pytest.raises(ValueError, match="would have 65 numbers: choose 1 to 64"):
        vectors.write("wide", bars(1, dimensions=65), START, END, columns=columns(65))


def test_an_empty_session_is_a_write_too(vectors: Vectors) -> None:
    vectors.write("empty", bars(2), START, END, columns=columns(4))
    assert vectors.write("empty", bars(2).clear(), START, END, columns=columns(4)).replaced == 8


TIMES = st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1)).map(lambda time: time.replace(tzinfo=UTC))


@given(st.lists(st.tuples(TIMES, st.text(min_size=1, max_size=5)), min_size=1, max_size=20))
def test_an_id_is_its_bar_s_own_and_gives_the_time_back(rows: list[tuple[datetime, str]]) -> None:
    time = pl.Series([row[0] for row in rows], dtype=pl.Datetime("us", "UTC"))
    made = [UUID(text) for text in ids(time, pl.Series([row[1] for row in rows]))]
    assert len(set(made)) == len(set(rows))
    assert timestamps(made).to_list() == time.to_list()


@given(TIMES.map(lambda time: time.replace(microsecond=0)), st.text(min_size=1, max_size=5))
def test_an_id_is_timescale_vector_s_for_the_symbol_s_hash(when: datetime, symbol: str) -> None:
    """On whole seconds: its own arithmetic is in floats, which are off by up to 0.4 µs between them."""
    (made,) = ids(pl.Series([when], dtype=pl.Datetime("us", "UTC")), pl.Series([symbol]))
    bits = int.from_bytes(hashlib.sha256(symbol.encode()).digest()[:8], "big") >> 2
    assert UUID(made) == uuid_from_time(when, node=bits & (2**48 - 1), clock_seq=bits >> 48)
