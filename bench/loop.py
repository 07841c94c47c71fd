"""How often the drift check fails for nothing where Tenor runs by itself, under the daemons, on markets without change.

bench/loop.py [--seeds 10] [--sessions 21] [--workers 2]      alarms over seeds × sessions, with the stated rate's band

Each seed is a market of its own that lives through its sessions as tests/loop does: Dagster's daemons, the clock of a
replay, a first model trained by the policy. Nothing is trained on drift: one calibration stands for a seed.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from scipy import stats

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from quant.false_alarms import band, law, total
from quant.grid import CalendarSpec, Grid
from tests.loop.market import Vendor, bars
from tests.loop.replay import replayed, small_configs

FIRST, HISTORY = date(2021, 1, 4), 150  # sessions before the first that is looked at; 70 % of them train
RATE = 0.05
# A window is one session: no two windows share a bar, and each session is a trial of its own.
WORDS = [
    "horizon=1h", "features=[few]", "factors=[few]", "vectors.window=20", "serving.port=9", "retraining.on_drift=false",
    "drift.window_sessions=1", f"drift.rate={RATE}", "folds.count=2", "model.n_estimators=20",
]  # fmt: skip


def lived(seed: int, sessions: int) -> dict[str, Any]:
    """One seed: which sessions failed the check, the rate that it stated, and in how many windows that was counted."""
    grid = Grid(CalendarSpec("XNYS"), "1h")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        vendor = Vendor(folder / "vendor", bars(FIRST, HISTORY + sessions, seed=1000 + seed, grid=grid))
        days = vendor.sessions
        now = grid.sessions(days[HISTORY - 1], days[HISTORY - 1])[0].close + timedelta(hours=1)
        with replayed(folder, small_configs(folder), WORDS, vendor, HISTORY, now) as replay:
            replay.daemon.settle()
            for day in days[HISTORY:]:
                vendor.send(day)
                replay.close(day)
            # Sessions before, in the partition of the same month, are looked at too, once there is a model.
            rows = replay.lake.scan("drift/1h").filter(pl.col("session") >= days[HISTORY])
            table = rows.collect().unique("session").sort("session")
    assert table["session"].to_list() == days[HISTORY:], "the daemons left a session out"
    assert table["champion"].n_unique() == 1
    return {
        "seed": seed,
        "failed": table["failed"].to_list(),
        "rate": table["rate"][0],
        "independent": table["independent"][0],
    }


def told(found: Sequence[dict[str, Any]]) -> None:
    """The count beside what the stated rate allows, two-sided, 99 %."""
    alarms = sum(sum(one["failed"]) for one in found)
    trials = sum(len(one["failed"]) for one in found)
    rate = float(np.mean([one["rate"] for one in found]))
    many = f"{len(found)} seeds × {trials // len(found)} sessions"
    print(f"{alarms} alarms in {many}: {alarms / trials:.4f}, stated {rate:.4f}")
    # Sessions of a seed share its level, and so that level's luck: their number is not binomial but beta-binomial.
    shared = band(total([law(len(one["failed"]), one["independent"], RATE) for one in found]), 0.99)
    for name, (low, high) in {"binomial": stats.binom.interval(0.99, trials, rate), "beta-binomial": shared}.items():
        where = "inside" if low <= alarms <= high else "OUTSIDE"
        print(f"99 % of {name} draws at the stated rate: {low:.0f} to {high:.0f} alarms: {where}")


def apart(seed: int, sessions: int) -> dict[str, Any]:
    """`lived` in a process of its own, which ends its database with itself."""
    words = [sys.executable, __file__, "--one", str(seed), "--sessions", str(sessions)]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"seed {seed} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    one: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(f"seed {seed}: {sum(one['failed'])} of {len(one['failed'])} sessions, stated {one['rate']:.4f}", flush=True)
    return one


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--sessions", type=int, default=21)
    parser.add_argument("--workers", type=int, default=2, help="seeds at a time")
    parser.add_argument("--one", type=int, help="live through this seed alone, and print it as JSON")
    given = parser.parse_args()
    if given.one is not None:
        print(json.dumps(lived(given.one, given.sessions)))
    else:
        with ThreadPoolExecutor(given.workers) as pool:
            told(list(pool.map(lambda seed: apart(seed, given.sessions), range(given.seeds))))
