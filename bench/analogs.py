"""Market states at a million: writing against timescale-vector's upsert; HNSW and novelty against exact search.

States of 100 symbols over 10,000 bars, 64 numbers each, from a path that remembers: neighbours in time are near, as
those of real factors are. First it proves that the exact search finds what numpy finds. Then it prints rows a second
written (anew, unchanged, one session changed) beside `Sync.upsert`; milliseconds a question, median and 99th
percentile, and how many of numpy's nearest are found, for tables without and with HNSW, over all states and over one
symbol's, as of now, of the middle and of early on; what the graph costs to build and to write a session into; and the
microseconds of a row's novelty beside scikit-learn's brute force. A million takes five to twenty minutes, nearly all of
it for the graph: 9 minutes of one core. `--quick`: 50,000 states, a minute or two.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
from _measure import medians

from quant.novelty import fit
from quant.states import KEYS, States
from resources.database import Database
from resources.vector_ids import ids
from resources.vector_tables import client, create
from resources.vectors import Vectors

SYMBOLS, NUMBERS, BARS, NEAREST = 100, 64, 78, 80  # BARS: of a session; NEAREST: what ten analogs are chosen from
START = datetime(2015, 1, 5, 14, 30, tzinfo=UTC)
COLUMNS = {f"factor_{number}": "its expression" for number in range(NUMBERS)}
QUESTIONS = 40


def states(sessions: int) -> tuple[States, np.ndarray, np.ndarray]:
    """States of every bar, the bar starts, and the session of each; a session a day."""
    random = np.random.default_rng(0)
    bars = sessions * BARS
    loads = random.normal(size=(12, NUMBERS)) / 3.5
    hidden = np.zeros((bars, SYMBOLS, 12), np.float32)
    for bar in range(1, bars):
        hidden[bar] = 0.97 * hidden[bar - 1] + 0.24 * random.normal(size=(SYMBOLS, 12))
    vectors = hidden.reshape(-1, 12) @ loads + 0.4 * random.standard_normal((bars * SYMBOLS, NUMBERS))
    day = np.arange(bars) // BARS
    slots = np.datetime64(START.replace(tzinfo=None), "us") + day * np.timedelta64(1, "D")
    slots = slots + np.arange(bars) % BARS * np.timedelta64(5, "m")
    stamps = pl.Series(np.repeat(slots, SYMBOLS)).cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    keys = pl.DataFrame({"symbol": [f"S{n:03d}" for n in range(SYMBOLS)] * bars, "timestamp": stamps})
    keys = keys.with_columns(known_at=pl.col("timestamp") + pl.duration(minutes=5), coverage=pl.lit(1.0, pl.Float32))
    return (
        States(keys.select(KEYS.keys()), np.clip(vectors, -5, 5).astype(np.float32)),
        slots,
        np.datetime64("2015-01-05") + day,
    )


def busy() -> str:
    """What else the machine does, which every time here depends on."""
    return f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"


def seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def writing(store: Vectors, database: Database, held: States, slots: np.ndarray, days: np.ndarray) -> None:
    rows = len(held.vectors)
    write = partial(store.write, "states", slots=slots, days=days, columns=COLUMNS)
    taken = {"anew": seconds(lambda: write(held)), "unchanged": seconds(lambda: write(held))}
    changed = States(held.keys, held.vectors.copy())
    changed.vectors[-1] = 0
    taken["one session changed"] = seconds(lambda: write(changed))
    write(held)
    few = 20_000
    peer = client(database.url("vectors"), "upserted", NUMBERS)
    with store._connect() as connection, connection, connection.cursor() as cursor:
        create(cursor, peer.builder, COLUMNS)
    part = States(held.keys[:few], held.vectors[:few])

    records = [
        (id.tobytes().hex(), {"symbol": symbol, "known_at": known.isoformat()}, symbol, vector.tolist())
        for id, symbol, known, vector in zip(
            ids(part.keys["timestamp"], part.keys["symbol"]), part.keys["symbol"], part.keys["known_at"], part.vectors,
            strict=True,
        )
    ]  # fmt: skip
    upsert = few / seconds(lambda: peer.upsert(records))
    peer.close()
    print(f"{'writing':>22} {'seconds':>9} {'rows a second':>14}   timescale-vector's upsert: {upsert:,.0f} a second")
    for what, took in taken.items():
        print(f"{what:>22} {took:9.2f} {rows / took:14,.0f}   {rows / took / upsert:.1f}x")


def nearest(held: States, sizes: np.ndarray, wanted: np.ndarray, query: np.ndarray) -> set[int]:
    """Rows of numpy's nearest among those wanted: the nearest by a matrix product, then exactly. sizes: |x|²."""
    rough = np.where(wanted, sizes - 2 * (held.vectors @ query), np.inf)
    first = np.argpartition(rough, 4 * NEAREST)[: 4 * NEAREST]
    first = first[wanted[first]]
    apart = np.linalg.norm(held.vectors[first].astype(np.float64) - query, axis=1)
    return set(first[np.argsort(apart)[:NEAREST]].tolist())


def searching(store: Vectors, held: States, kind: str) -> None:
    random = np.random.default_rng(1)
    names, stamps = held.keys["symbol"].to_numpy(), held.keys["timestamp"].dt.epoch("us").to_numpy()
    place = {(name, stamp): row for row, (name, stamp) in enumerate(zip(names, stamps, strict=True))}
    known_at, sizes = held.keys["known_at"].dt.epoch("us").to_numpy(), (held.vectors**2).sum(axis=1)
    for when, share in (("now", 1.0), ("the middle", 0.5), ("early on", 0.01)):
        before = held.keys["known_at"][int((len(names) - 1) * share)]
        known = known_at <= int(before.timestamp() * 1e6)
        for whose in ("all", "one symbol"):
            took, recalled = [], []
            for _ in range(QUESTIONS):
                row = int(random.integers(int(len(names) * share)))
                query = held.vectors[row] + random.normal(size=NUMBERS).astype(np.float32) * 0.1
                symbol = names[row] if whose == "one symbol" else None
                began = time.perf_counter()
                found = store.search("states", query.tolist(), before=before, limit=NEAREST, symbol=symbol)
                took.append(time.perf_counter() - began)
                rows = {
                    place[name, int(at.timestamp() * 1e6)] for name, at in found.select("symbol", "timestamp").rows()
                }
                expected = nearest(held, sizes, known if symbol is None else known & (names == symbol), query)
                recalled.append(len(rows & expected) / len(expected))
            if kind == "exact":
                assert np.mean(recalled) == 1, "the exact search is not exact"
            middle, slow = np.quantile(took, [0.5, 0.99]) * 1e3
            print(
                f"{kind:>8} {whose:>12} {when:>12} {middle:9.1f} ms {slow:9.1f} ms {np.mean(recalled):9.3f}", flush=True
            )


def novelty(held: States) -> None:
    from sklearn.neighbors import NearestNeighbors

    names, rows = tuple(COLUMNS), np.arange(20_000)
    sections = np.arange(len(held.vectors)) // SYMBOLS
    measure = fit(held.vectors, names, rows, sections, columns=names, sample=2048, neighbours=NEAREST, apart=12, seed=0)
    X = np.ascontiguousarray(held.vectors[-2000:])
    Z = (X - measure.centre) / measure.scale
    peer = NearestNeighbors(n_neighbors=NEAREST, algorithm="brute").fit(measure.sample.T)
    expected = np.searchsorted(measure.distances, peer.kneighbors(Z)[0].mean(axis=1)) / len(measure.distances)
    assert np.abs(measure.of(X, names) - expected).max() < 0.01, "novelty differs from scikit-learn's distances"
    for count in (1, 2000):
        part, units = X[:count], Z[:count]
        taken = medians(
            {"ours": lambda p=part: measure.of(p, names), "sklearn": lambda u=units: peer.kneighbors(u)}, 15
        )  # type: ignore[misc]
        ours, theirs = (taken[name] / count * 1e6 for name in ("ours", "sklearn"))
        print(f"novelty of {count:>5,} rows: {ours:8.1f} us a row, scikit-learn {theirs:8.1f} us: {theirs / ours:.1f}x")


def main() -> None:
    held, slots, days = states(7 if "--quick" in sys.argv else 129)
    print(f"{len(held.vectors):,} states of {NUMBERS} numbers, {SYMBOLS} symbols; {busy()}", flush=True)
    with tempfile.TemporaryDirectory() as root:
        database = Database(Path(root))
        try:
            store = Vectors(database)
            writing(store, database, held, slots, days)
            print(f"{'search':>8} {'of':>12} {'as of':>12} {'median':>12} {'99 %':>12} {'recall':>9}   {busy()}")
            searching(store, held, "exact")
            print(f"{'':>8} building the graph; {busy()}", flush=True)
            built = seconds(lambda: store.index("states", "hnsw"))
            print(f"{'':>8} HNSW built in {built:.0f} s; {busy()}", flush=True)
            searching(store, held, "hnsw")
            last = States(held.keys[-SYMBOLS * BARS :], held.vectors[-SYMBOLS * BARS :] + np.float32(0.01))
            took = seconds(lambda: store.write("states", last, slots[-BARS:], days[-BARS:], columns=COLUMNS))
            print(f"{'':>8} a session of {len(last.vectors):,} states written into the HNSW table in {took:.1f} s")
        finally:
            database.release()
    novelty(held)


if __name__ == "__main__":
    main()
