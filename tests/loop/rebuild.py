"""A clean rebuild: everything that is made of bars made once more, in one run of each step, in a store of its own."""

import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import date
from pathlib import Path

import polars as pl
import psycopg2  # type: ignore[import-untyped]
from psycopg2 import sql

from assets import names
from assets.layout import layout_of
from resources.database import Database
from resources.vectors import Vectors, market_of
from tests.assets.conftest import Pipeline
from tests.loop.replay import Replay


@contextmanager
def rebuilt(replay: Replay, root: Path, since: date) -> Iterator[Pipeline]:
    """A store with the recorded bars and the registry of the replay, and everything made anew.

    Bars are recorded data, for `known_at` says when they came: they are fetched and resampled once more over what was
    recorded, which must change nothing. Drift holds each session against the bundle that served when it closed, so
    bundles and ledger are what it is made of, too; it is made of the sessions `since` somebody served.
    """
    database = Database(root)
    words = [word for word in replay.words if not word.startswith("store.root")]
    try:
        clean = Pipeline(root, *words, store=Vectors(database))
        shutil.copytree(replay.root / "registry", root / "registry")
        clean.clock.set(replay.clock.now())
        for horizon in clean.horizons:
            table = names.table("bars", horizon)
            rows = replay.lake.scan(table).collect()
            clean.lake.write(table, [rows], rows["partition"].unique().sort().to_list(), layout_of(clean.plan(horizon)))
        for horizon in clean.horizons:
            clean.run("bars", "features", "factors", "vectors", horizon=horizon)
        for horizon in clean.registry.horizons():
            clean.run(
                "drift", keys=[key for key in clean.partition_keys(horizon) if key >= str(since)], horizon=horizon
            )
        yield clean
    finally:
        database.release()


def vectors(root: Path, horizon: str) -> dict[str, list[tuple[str, str, str]]]:
    """Every state of a horizon and of its market, as text: id, metadata, numbers to the last bit."""
    database = Database(root)
    found = {}
    with closing(psycopg2.connect(database.url("vectors"))) as connection, connection.cursor() as cursor:
        cursor.execute("SET extra_float_digits = 3")
        for table in (horizon, market_of(horizon)):
            query = sql.SQL("SELECT id::text, metadata::text, embedding::real[]::text FROM {} ORDER BY id")
            cursor.execute(query.format(sql.Identifier(table)))
            found[table] = cursor.fetchall()
    return found


def same(ours: pl.DataFrame, theirs: pl.DataFrame) -> bool:
    """Whether two tables hold the same rows, whatever their order."""
    by = [name for name in ("symbol", "timestamp", "session", "column") if name in ours.columns]
    return ours.sort(by).equals(theirs.select(ours.columns).sort(by))
