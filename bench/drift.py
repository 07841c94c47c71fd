"""How often the drift check fails: falsely, on a market that does not change, and in 2020, on one that did.

bench/drift.py rate [--seeds 40] [--rate 0.05]       the made-up market: alarms over seeds × sessions, with their band
bench/drift.py indices                               hourly indices: 2020 by a model of up to 2019, 2019 by one of 2018
"""

import argparse
import os
import shlex
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import polars as pl
from scipy import stats

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import dagster as dg

from assets import names, partitions
from assets.plan import Plan
from conf.compose import compose
from defs.graph import build
from quant.drift import calibrate, compare, judge
from quant.universe import session_of
from resources.clock import FixedClock
from resources.lake import Lake
from resources.settings import OVERRIDES_VARIABLE
from resources.sources import open_source

WARM = 70  # sessions that the look-back of the factors takes
TRAINED, AFTER = 300, 130  # sessions
WINDOW = 5
FILE = "dev_idx_1h_snowguru.parquet"
LATEST = ["model.valid_share=0.05", "model.test_share=0.02", "folds.count=3"]  # so that training reaches the year's end


def rate(seeds: int, asked: float, columns: int) -> None:
    """Alarms of the check on windows after training, none of which is another market's: seed by seed, then all."""
    shares, several = [], []
    for seed in range(seeds):
        frame = market(seed, columns)
        days = frame["session"].unique().sort()
        learned = frame.filter(pl.col("session") <= days[TRAINED - 1])
        factors = [name for name in frame.columns if name not in ("timestamp", "symbol", "session")]
        how = {"method": "wasserstein", "sample_rows": 2000}
        made = calibrate(learned, factors, window_sessions=WINDOW, windows=200, **how)
        # Side by side, so that the alarms of a seed share nothing but its market.
        firsts = range(TRAINED, min(len(days), TRAINED + AFTER) - WINDOW + 1, WINDOW)
        failed = []
        for first in firsts:
            now = frame.filter(pl.col("session").is_between(days[first], days[first + WINDOW - 1]))
            found = judge(compare(now, learned, factors, **how), made, rate=asked, share=0.3)
            failed.append(found.drifted)
        shares.append(np.mean(failed))
        several.append(len(failed))
        print(f"seed {seed:3}: {sum(failed)} of {len(failed)} windows, promised {found.rate:.4f}", flush=True)
    trials, alarms = sum(several), round(float(np.dot(shares, several)))
    error = float(np.std(shares, ddof=1) / np.sqrt(seeds))
    # Windows of a seed share its calibration and its spells: they are worth fewer independent ones.
    alone = found.rate * (1 - found.rate) / trials
    worth = trials * min(1.0, alone / error**2) if error > 0 else trials
    low, high = np.array(stats.binom.interval(0.95, round(worth), found.rate)) / worth
    print(f"asked {asked:.4f}, promised {found.rate:.4f}, seen {alarms / trials:.4f} ± {error:.4f} (seeds as clusters)")
    print(f"{alarms} alarms of {trials} windows, which are worth {worth:.0f} independent ones; 95 % of binomial draws")
    where = "inside" if low <= alarms / trials <= high else "OUTSIDE"
    print(f"at the promised rate lie in {low:.4f} .. {high:.4f}: {where}")


def market(seed: int, columns: int) -> pl.DataFrame:
    """Rows of some factors of the made-up hourly market, with their session, from where all have their look-back."""
    words = ["horizon=1h", f"source.seed={seed + 1000}", "source.symbols=12", "source.splits=0"]
    plan = Plan(compose([*words, f"source.sessions={WARM + TRAINED + AFTER}"])["1h"])
    source = open_source(plan.horizon.source, plan.grid, datetime(2040, 1, 1, tzinfo=UTC))
    bars = pl.concat(source.bars(datetime(2000, 1, 1, tzinfo=UTC), datetime(2040, 1, 1, tzinfo=UTC), None))
    bars = bars.with_columns(known_at="timestamp", price_factor=pl.lit(1.0), volume_factor=pl.lit(1.0))
    recipe = plan.recipe(tuple(bars["symbol"].unique().sort()), None)
    keys, X = recipe.rows(bars.sort("timestamp", "symbol"))
    chosen = np.sort(np.random.default_rng(0).choice(len(recipe.factors), columns, replace=False)).tolist()
    named = list(recipe.factors)
    frame = keys.with_columns(pl.Series(named[at], X[:, at]) for at in chosen)
    return frame.with_columns(session_of(frame["timestamp"], plan.grid))


def indices(years: Sequence[int]) -> None:
    """The check, session by session, in each of the years."""
    folder = os.environ.get("TENOR_MARKET_DATA")
    if not folder:
        sys.exit("set TENOR_MARKET_DATA to the folder of real market data")
    for year in years:
        with tempfile.TemporaryDirectory() as root:
            rows = replayed(Path(root), Path(folder) / FILE, year)
        told(year, rows)


def replayed(root: Path, file: Path, year: int) -> pl.DataFrame:
    """One row a session of `year`, by a model that learned until the end of the year before."""
    words = [
        "horizon=1h", "calendar=us_index_cfd", "source=parquet", f"source.path='{file}'", "source.volume=null",
        "universe=all", f"store.root='{root}'", *LATEST,
    ]  # fmt: skip
    clock = FixedClock(datetime(year, 1, 1, tzinfo=UTC))
    instance = dg.DagsterInstance.ephemeral()

    def run(end: int, *steps: str) -> None:
        given = [*words, f"source.end={end}-12-31"]
        os.environ[OVERRIDES_VARIABLE] = shlex.join(given)
        horizons = compose(given)
        graph = build(horizons, clock=clock)
        assets = [asset for asset in graph.assets or () if isinstance(asset, dg.AssetsDefinition)]
        plan = Plan(horizons["1h"])
        last = str(partitions.newest(plan, horizons, clock.now()))
        for step in steps:
            parts = next(asset for asset in assets if names.key("1h", step) in asset.keys).partitions_def
            keys = [key for key in parts.get_partition_keys() if key <= last] if parts else []
            if step != "bars" and end == year and parts:
                keys = [key for key in keys if key >= f"{year}"]
            ends = {"start": keys[0], "end": keys[-1]} if keys else {}
            tags = {f"dagster/asset_partition_range_{end}": key for end, key in ends.items()}
            dg.materialize(
                assets, selection=[names.key("1h", step)], instance=instance, resources=graph.resources, tags=tags,
                run_config={"loggers": {"console": {"config": {"log_level": "ERROR"}}}},
            )  # fmt: skip

    run(year - 1, "bars", "features", "factors", "model")
    clock.set(datetime(year + 1, 1, 1, tzinfo=UTC))
    run(year, "bars", "features", "factors", "drift")
    return Lake(f"{root}/lake").scan("drift/1h").collect()


def told(year: int, rows: pl.DataFrame) -> None:
    whole = rows.unique("session").sort("session")
    failed = whole.filter("failed")["session"].to_list()
    promised, windows = whole["rate"][0], whole["independent"][0]
    print(f"{year}: {len(failed)} of {whole.height} sessions fail; {windows} windows promise {promised:.4f} at best")
    for first, last in spells(failed, whole["session"].to_list()):
        inside = rows.filter(pl.col("session").is_between(first, last), "drifted")
        worst = inside.group_by("column").len().sort("len", "column", descending=[True, False])["column"].head(4)
        print(f"  {first} to {last}: {', '.join(worst)}")


def spells(failed: Sequence[date], all_: Sequence[date]) -> list[tuple[date, date]]:
    """Runs of sessions that follow each other."""
    place = {day: at for at, day in enumerate(all_)}
    found: list[tuple[date, date]] = []
    for day in failed:
        if found and place[day] - place[found[-1][1]] == 1:
            found[-1] = (found[-1][0], day)
        else:
            found.append((day, day))
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["rate", "indices"])
    parser.add_argument("--seeds", type=int, default=40)
    parser.add_argument("--rate", type=float, default=0.05)
    parser.add_argument("--columns", type=int, default=20)
    parser.add_argument("--years", type=int, nargs="+", default=[2019, 2020])
    given = parser.parse_args()
    if given.what == "rate":
        rate(given.seeds, given.rate, given.columns)
    else:
        indices(given.years)
