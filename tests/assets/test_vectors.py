"""The vectors step: market states that are found again, each against its own past only, and replaced by a re-run."""

from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl
import psycopg2  # type: ignore[import-untyped]
import pytest

from quant.states import MARKET
from resources.vectors import Vectors, market_of
from tests.assets.conftest import FEW, SMALL, File, Make, Pipeline

WINDOW = 20
WORDS = [*SMALL, f"vectors.window={WINDOW}", "vectors.columns=[momentum,range,volume_ratio]"]
REFRESH = ("bars", "features", "factors")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, store: Vectors) -> Pipeline:
    made = Pipeline(tmp_path_factory.mktemp("vectors"), *WORDS, store=store)
    made.run(*REFRESH, "vectors")
    return made


def stored(store: Vectors) -> list[tuple[str, str, str]]:
    with psycopg2.connect(store._database.url("vectors")) as connection, connection.cursor() as cursor:
        cursor.execute('SELECT id::text, metadata::text, embedding::text FROM "5m" ORDER BY id')
        rows = cursor.fetchall()
    connection.close()
    return rows


def state(made: Pipeline, symbol: str, at: int) -> tuple[pl.DataFrame, np.ndarray]:
    """The `at`-th factor row of a symbol, and its z-scores over the last WINDOW bars by numpy in float64."""
    rows = made.table("factors").filter(symbol=symbol)
    past = rows[at - WINDOW + 1 : at + 1].select("momentum", "range", "volume_ratio").to_numpy().astype(float)
    z = (past[-1] - past.mean(axis=0)) / past.std(axis=0, ddof=1)
    return rows[at], np.clip(z, -5, 5)


def test_a_row_is_found_by_its_z_scores_which_read_its_past_alone(made: Pipeline, store: Vectors) -> None:
    for at in (200, 500, -1):
        row, expected = state(made, "S002", at if at > 0 else made.table("factors").filter(symbol="S002").height - 1)
        found = store.search("5m", expected.tolist(), before=made.clock.now(), limit=1)
        assert (
            found.select("symbol", "timestamp", "known_at").rows()
            == row.select("symbol", "timestamp", "known_at").rows()
        )
        assert found["distance"].item() < 1e-3
        assert found["coverage"].item() == 1.0


def test_nothing_is_found_that_was_not_known_yet(made: Pipeline, store: Vectors) -> None:
    row, expected = state(made, "S002", 400)
    known = row["known_at"].item()
    found = store.search("5m", expected.tolist(), before=known - timedelta(seconds=1), limit=50)
    assert (found["known_at"] < known).all()
    assert row["timestamp"].item() not in found["timestamp"]


def test_every_factor_row_has_one_vector(made: Pipeline, store: Vectors) -> None:
    assert store.count("5m") == made.table("factors").height


def test_a_second_run_touches_nothing(made: Pipeline, store: Vectors) -> None:
    before = stored(store)
    told = made.run("vectors").metadata["vectors"]
    assert told["dagster/row_count"] == len(before)
    assert told["written, of symbols and market"] == told["sessions that changed"] == 0
    assert stored(store) == before


def test_one_partition_alone_gives_the_same_states(made: Pipeline, store: Vectors) -> None:
    before = stored(store)
    key = made.partition_keys()[5]
    told = made.run("vectors", keys=[key]).metadata["vectors"]
    assert told["dagster/row_count"] == made.table("factors").filter(partition=key).height
    assert told["sessions that changed"] == 0
    assert stored(store) == before


def test_the_market_has_a_state_at_every_bar(made: Pipeline, store: Vectors) -> None:
    table = made.table("factors")
    assert store.count(market_of("5m")) == table["timestamp"].n_unique()
    when = table["timestamp"][2000]
    known = table.filter(timestamp=when)["known_at"].max()
    newest = store.newest(market_of("5m"), MARKET, known)
    assert newest.keys["timestamp"].item() == when
    symbols = table.filter(timestamp=when)["symbol"]
    z = np.array(
        [state(made, symbol, table.filter(symbol=symbol)["timestamp"].index_of(when))[1] for symbol in symbols]
    )
    np.testing.assert_allclose(newest.vectors[0], [*z.mean(axis=0), *z.std(axis=0)], atol=1e-3)


def test_other_columns_start_the_table_anew_and_say_so(made: Pipeline, store: Vectors) -> None:
    values = ["vectors.columns=[momentum,change]"]
    told = made.run("vectors", values=values).metadata["vectors"]
    assert "momentum, range, volume_ratio" in told["started anew"]
    assert store.count("5m") == made.table("factors").height
    made.run("vectors")


def test_vectors_of_rows_that_are_gone_are_gone_too(
    pipeline: Make, store: Vectors, tmp_path: Path, market: pl.DataFrame, file: File
) -> None:
    members = tmp_path / "members.csv"
    members.write_text("symbol,start,end\nS000,2000-01-01,\nS001,2000-01-01,\n")
    words = [*file(market), f"universe.members='{members}'", "vectors.window=20"]
    made = Pipeline(tmp_path / "gone", "horizon=5m", *FEW, *words, store=store)
    made.run(*REFRESH, "vectors")
    assert store.count("5m") == made.table("factors").height
    members.write_text("symbol,start,end\nS000,2000-01-01,2021-11-26\nS001,2000-01-01,2021-11-24\n")
    made.run("factors")
    assert made.partition_keys()[-1] not in made.lake.partitions("factors/5m")
    for key in made.partition_keys():
        made.run("vectors", keys=[key])
    assert store.count("5m") == made.table("factors").height


def test_a_revision_writes_the_sessions_whose_look_back_it_is_in(
    pipeline: Make, store: Vectors, tmp_path: Path, market: pl.DataFrame, file: File
) -> None:
    words = ["horizon=5m", *FEW, "vectors.window=20", "vectors.columns=[momentum,range]"]
    made = Pipeline(tmp_path / "revised", *words, *file(market), store=store)
    made.run(*REFRESH, "vectors")
    day, after = made.partition_keys()[1:3]
    first = made.table("bars").filter(partition=day)["timestamp"].max()
    last_bar = (pl.col("timestamp") == first) & (pl.col("symbol") == "S001")
    file(market.with_columns(high=pl.when(last_bar).then(pl.col("high") * 1.01).otherwise("high")))
    made.run(*REFRESH)
    told = made.run("vectors").metadata["vectors"]
    assert told["sessions that changed"] == 2  # its own, and the next one's first bars
    rows = made.table("factors").filter(pl.col("partition").is_in([day, after])).height
    assert told["written, of symbols and market"] > rows
