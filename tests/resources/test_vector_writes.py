"""What is written of vectors on a real embedded server: by session, whole or not at all, and only what is a state."""

import json
from datetime import date, timedelta

import polars as pl
import psycopg2
import pytest

from quant.states import KEYS
from resources.vectors import Vectors
from tests.resources.vectors import END, SESSION, START, bars, columns, grid, states, vectors, write

__all__ = ["vectors"]  # a fixture


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
