"""From a section that closes to its signals at a hundred WebSocket readers, beside what serving it goes through.

    python bench/stream.py            500 symbols, 100 readers, 60 sections
    python bench/stream.py --quick    100 symbols, 20 readers, 15 sections

The features of conf's `technical` set, its factors across the section and a forest of 200 trees of 31 leaves, in a
service of its own process. Parity first: each signal equals, bit for bit, `Bundle.predict_bars` of the same history.
Then 25 concurrent readers of /api/data and /api/features, how many of the queries of dashboards come from memory while
sections close, and what one durable append costs as journal and as Delta.
"""

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, date, datetime
from pathlib import Path
from urllib.parse import quote

import httpx
import numpy as np
import polars as pl
import websockets

from assets.layout import layout_of
from assets.plan import Plan
from conf.compose import compose
from quant.bundle import Bundle
from quant.bundle_build import build
from quant.train import fit
from resources.arrivals import Journal
from resources.lake import Lake
from resources.registry import Registry

DAYS = (date(2024, 2, 20), date(2024, 3, 15))
NUMBERS = ("open", "high", "low", "close", "volume")
PORT = 8399
POLLED = 40  # queries of each reader
DASHBOARDS = 12  # each with four symbols of its own, or shared with its neighbour
ROUNDS = 12  # of a dashboard's queries between two sections: one-minute bars, looked at every five seconds
MINUTES = 5  # sections that come meanwhile


def market(plan: Plan, symbols: list[str]) -> pl.DataFrame:
    """Four weeks of random walks without gaps."""
    chance = np.random.default_rng(7)
    slots = plan.grid.slots(*DAYS)
    shape = (len(slots), len(symbols))
    close = 50 * np.exp(np.cumsum(chance.normal(0, 2e-3, shape), axis=0))
    opened = np.vstack([close[:1], close[:-1]])
    values = {
        "open": opened,
        "high": np.maximum(opened, close) * 1.001,
        "low": np.minimum(opened, close) * 0.999,
        "close": close,
        "volume": chance.integers(1_000, 9_000, shape).astype(float),
    }
    ends = np.repeat(plan.grid.ends(slots), len(symbols))
    return pl.DataFrame(
        {
            "symbol": symbols * len(slots),
            "timestamp": pl.Series(np.repeat(slots, len(symbols))).dt.replace_time_zone("UTC"),
            **{name: held.ravel() for name, held in values.items()},
            "source": "bench",
            "known_at": pl.Series(ends).dt.replace_time_zone("UTC"),
            "price_factor": 1.0,
            "volume_factor": 1.0,
        }
    )


def bundle_of(plan: Plan, symbols: list[str], bars: pl.DataFrame, trees: int) -> Bundle:
    """A forest of that many trees over the plan's factors; its labels are noise: only its size matters."""
    recipe = plan.recipe(tuple(symbols), None)
    few = bars["timestamp"].unique().sort()
    recent = bars.filter(pl.col("timestamp").is_in(few[-recipe.lookback - 12 :].implode()))
    _, X = recipe.rows(recent)
    y = np.random.default_rng(1).normal(0, 1, len(X))
    half = len(X) // 2
    trained = fit(
        X, y, np.arange(half), np.arange(half, len(X)), {"num_leaves": 31, "min_data_in_leaf": 5, "num_threads": 1},
        names=list(recipe.factors), seeds=[1], rounds=trees, early_stopping_rounds=trees,
    )  # fmt: skip
    return build(
        horizon="5m",
        recipe=recipe,
        trained=trained,
        config=plan.horizon.model_dump(mode="json", by_alias=True),
        label={"name": "noise", "text": "lead(close, 1)", "lookahead": 1},
        digests={"content": "c", "config": "bench", "source": "s", "lock": "l"},
        golden_bars=bars.filter(pl.col("timestamp").is_in(few[-recipe.lookback - 2 :].implode())),
        counts={},
        spans={},
        scores={},
        statistics={},
    )


async def read(url: str, count: int, heard: list[float], latest: list[dict]) -> None:
    """One reader: when each of `count` sections reached it, after it had closed; seconds."""
    async with websockets.connect(url, compression=None, max_size=None) as socket:
        await socket.recv()
        for _ in range(count):
            message = await socket.recv()
            now = time.time()
            if len(heard) < 10_000_000:
                closed = json.loads(message[: message.index('"signals"') - 1].rstrip(",") + "}")["closed_at"]
                heard.append(now - datetime.fromisoformat(closed).timestamp())
            latest[:] = [message]


async def stream(address: str, bars: pl.DataFrame, stamps: list[datetime], readers: int, bundle: Bundle) -> None:
    heard: list[list[float]] = [[] for _ in range(readers)]
    latest: list = [[] for _ in range(readers)]
    url = address.replace("http", "ws") + "/stream?horizon=5m"
    tasks = [asyncio.create_task(read(url, len(stamps), *both)) for both in zip(heard, latest, strict=True)]
    posted = []
    async with httpx.AsyncClient(base_url=address, timeout=60) as client:
        await asyncio.sleep(1)
        for number, stamp in enumerate(stamps):
            content = body(bars, stamp)
            began = time.perf_counter()
            answer = await client.post("/bars", content=content, headers={"content-type": "application/json"})
            posted.append(time.perf_counter() - began)
            assert answer.status_code == 200, answer.text
            while min(map(len, heard)) <= number:
                await asyncio.sleep(0.002)
            await asyncio.sleep(0.1)
    await asyncio.gather(*tasks)
    told = json.loads(latest[0][0])
    expected = bundle.predict_bars(bars.filter(pl.col("timestamp") <= stamps[-1]), 1)
    assert [one["symbol"] for one in told["signals"]] == expected["symbol"].to_list()
    found = np.array([one["prediction"] for one in told["signals"]])
    assert found.tobytes() == expected["prediction"].to_numpy().tobytes(), "a signal differs from predict_bars"
    sections = np.array(heard)  # [readers, sections]
    print(f"  parity: {len(found)} signals of the last section equal predict_bars, bit for bit")
    tell("POST /bars of a section, durable", np.array(posted))
    tell("closed to the first reader", sections.min(axis=0))
    tell("closed to a reader", sections.ravel())
    tell(f"closed to the last of {readers} readers", sections.max(axis=0))


def tell(what: str, seconds: np.ndarray) -> None:
    p50, p99 = np.quantile(seconds, [0.5, 0.99]) * 1e3
    print(f"  {what:38s} p50 {p50:7.2f} ms   p99 {p99:7.2f} ms   (n={len(seconds)})")


async def poll(address: str, symbols: list[str], readers: int) -> None:
    """Concurrent readers, each asking for the newest rows of symbol after symbol."""
    host, port = address.removeprefix("http://").split(":")

    async def one(number: int, route: str, taken: list[float]) -> None:
        reader, writer = await asyncio.open_connection(host, int(port))
        for turn in range(POLLED):
            symbol = symbols[(number * 7 + turn * 13) % len(symbols)]
            writer.write(f"GET /api/{route}/{quote(symbol)}?horizon=5m HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            began = time.perf_counter()
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200"), head
            length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
            taken.append(time.perf_counter() - began)
        writer.close()

    for route in ("data", "features"):
        taken: list[float] = []
        await asyncio.gather(*(one(number, route, taken) for number in range(readers)))
        tell(f"/api/{route}, {readers} concurrent readers", np.array(taken))


async def dashboards(address: str, bars: pl.DataFrame, stamps: list[datetime]) -> None:
    """What dashboards ask, again and again, while sections close: the newest rows, the last days, days gone by."""
    symbols, times = bars["symbol"].unique().sort().to_list(), bars["timestamp"].unique().sort().to_list()
    gone = {"start": times[78].isoformat(), "end": times[156].isoformat()}
    days = {"start": times[234].isoformat(), "limit": 5000}
    panels: list[tuple[str, dict[str, object]]] = [
        ("data", {}), ("data", {"limit": 100, "columns": "close"}), ("data", days), ("data", gone),
        ("features", {}), ("features", {"limit": 300, "columns": "rsi_14"}), ("features", gone | {"columns": "rsi_14"}),
    ]  # fmt: skip
    limits = httpx.Limits(max_connections=25)
    async with httpx.AsyncClient(base_url=address, timeout=60, limits=limits, trust_env=False) as client:

        async def look(number: int) -> None:
            for symbol in symbols[number * 2 : number * 2 + 4]:
                for route, query in panels:
                    answer = await client.get(f"/api/{route}/{quote(symbol)}", params={"horizon": "5m", **query})
                    assert answer.status_code == 200, answer.text

        async def round_() -> None:
            await asyncio.gather(*(look(number) for number in range(DASHBOARDS)))

        before = await outcomes(client)
        for stamp in stamps:
            await client.post("/bars", content=body(bars, stamp), headers={"content-type": "application/json"})
            for _ in range(ROUNDS):
                await round_()
        now = await outcomes(client)
    found = {
        route: [now[route, kind] - before[route, kind] for kind in ("hit", "miss")] for route in ("data", "features")
    }
    for route, (hits, misses) in found.items():
        share = hits / (hits + misses)
        print(f"  dashboards' /api/{route}: answered from memory {share:.2%}   (n={hits + misses:.0f})")
        assert share > 0.95


async def outcomes(client: httpx.AsyncClient) -> dict[tuple[str, str], float]:
    """Of /api/data and /api/features, how many were answered from memory (hit) and with a table read (miss)."""
    told = [line for line in (await client.get("/metrics")).text.splitlines() if line.startswith("tenor_cache_total{")]
    return {
        (route, kind): sum(float(line.split()[-1]) for line in told if f'"{route}"' in line and f'"{kind}"' in line)
        for route in ("data", "features")
        for kind in ("hit", "miss")
    }


def body(bars: pl.DataFrame, stamp: datetime) -> str:
    """A section's bars as they are pushed."""
    rows = bars.filter(pl.col("timestamp") == stamp)
    sent = rows.select("symbol", pl.col("timestamp").dt.to_string("iso:strict"), *NUMBERS).to_dicts()
    return json.dumps({"horizon": "5m", "bars": sent})


def durable(rows: pl.DataFrame, root: Path, rounds: int) -> None:
    """One section as a durable append: the journal, and a Delta commit of the same rows."""
    journal, lake = Journal(root, "5m"), Lake(root / "lake")
    columns = {
        "symbol": rows["symbol"].to_list(),
        "timestamp": rows["timestamp"].dt.epoch("us").to_list(),
        **{name: rows[name].to_list() for name in NUMBERS},
    }
    taken: dict[str, list[float]] = {"journal": [], "delta": []}
    for number in range(rounds):
        began = time.perf_counter()
        journal.append(datetime.now(UTC), columns).result()
        taken["journal"].append(time.perf_counter() - began)
        began = time.perf_counter()
        lake.append("arrivals/5m", rows.with_columns(partition=pl.lit("2024-03-15"), batch=number), {"of": "bench"})
        taken["delta"].append(time.perf_counter() - began)
    journal.close()
    for name, seconds in taken.items():
        tell(f"durable append of a section: {name}", np.array(seconds))
    ratio = statistics.median(taken["delta"]) / statistics.median(taken["journal"])
    print(f"  a Delta commit costs {ratio:.1f}x the journal's append")


def newest(address: str, symbol: str) -> dict[str, object]:
    """A symbol's newest features."""
    answer = httpx.get(f"{address}/api/features/{quote(symbol)}?horizon=5m", trust_env=False, timeout=30)
    assert answer.status_code == 200, answer.text
    return answer.json()


def start(root: Path, what: str) -> tuple[subprocess.Popen[bytes], str]:
    """A service; prints how long after its start it served the champion, and had its live state."""
    address = f"http://127.0.0.1:{PORT}"
    words = [sys.executable, "-m", "serving", "--store", str(root), "--port", str(PORT), "--log-level", "error"]
    began = time.perf_counter()
    service = subprocess.Popen(words, cwd=Path(__file__).parents[1])
    taken = []
    for path in ("/ready", "/signals/5m"):
        while True:
            try:
                if httpx.get(address + path, trust_env=False).status_code == 200:
                    break
            except httpx.TransportError:
                pass
            assert service.poll() is None, "the service ended"
            time.sleep(0.05)
        taken.append(time.perf_counter() - began)
    print(f"  {what + ':':16s} champion serves after {taken[0]:.2f} s, live state after {taken[1]:.2f} s")
    return service, address


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="100 symbols, 20 readers, 15 sections")
    quick = parser.parse_args().quick
    count, readers, sections = (100, 20, 15) if quick else (500, 100, 60)
    symbols = [f"S{number:03}" for number in range(count)]
    with tempfile.TemporaryDirectory(prefix="tenor-stream-") as folder:
        root = Path(folder)
        horizons = compose(["horizon=5m", f"store.root='{root}'"])
        plan = Plan(horizons["5m"])
        bars = market(plan, symbols)
        stamps = bars["timestamp"].unique().sort().to_list()
        first, dashed = -sections - MINUTES, -MINUTES
        history = bars.filter(pl.col("timestamp") < stamps[first])
        bundle = bundle_of(plan, symbols, history, trees=200)
        registry = Registry(root)
        registry.write(bundle, {})
        registry.promote("5m", bundle.id, "bench")
        days = plan.grid.partition_keys(history["timestamp"].dt.replace_time_zone(None).to_numpy(), "day")
        table = history.with_columns(partition=pl.Series(days.tolist()))
        Lake(root / "lake").write("bars/5m", [table], sorted(set(days.tolist())), layout_of(plan))
        print(
            f"{count} symbols, {len(bundle.recipe.features)} features, {len(bundle.factors)} factors, look-back "
            f"{bundle.recipe.lookback}, 200 trees of 31 leaves, {readers} readers"
        )
        service, address = start(root, "first start")
        try:
            asyncio.run(stream(address, bars, stamps[first:dashed], readers, bundle))
            asyncio.run(poll(address, symbols, 25))
            asyncio.run(dashboards(address, bars, stamps[dashed:]))
            before = newest(address, symbols[0])
            service.kill()
            service.wait(30)
            service, address = start(root, "after kill -9")
            assert newest(address, symbols[0]) == before, "the live state is not what it was"
        finally:
            service.kill()
            service.wait(30)
        durable(bars.filter(pl.col("timestamp") == stamps[-1]).drop("source"), root, rounds=10 if quick else 30)


if __name__ == "__main__":
    main()
