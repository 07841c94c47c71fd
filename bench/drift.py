"""How often the drift check fails: falsely, on a market that does not change, and in 2020, on one that did.

bench/drift.py [rate] [--seeds 40] [--rate 0.05]     made-up markets with and without spells of turbulence: alarms over
                                                     seeds × windows, against the law that their number has
bench/drift.py indices [--windows 1 2 5]             hourly indices: 2020 by a model of up to 2019, 2019 by one of 2018,
                                                     with windows of so many sessions
"""

import argparse
import os
import shlex
import sys
import tempfile
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import numpy.typing as npt
import polars as pl

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import dagster as dg
import lightgbm as lgb

from assets import names, partitions
from assets.plan import Plan
from conf.compose import compose
from defs.graph import build
from quant.drift import calibrate, compare, judge
from quant.false_alarms import band, law, rate_of, total
from quant.universe import session_of
from resources.clock import FixedClock
from resources.lake import Lake
from resources.settings import OVERRIDES_VARIABLE
from resources.sources import open_source
from resources.sources.synthetic import CALM, STAY, _market, _regimes

TRAINED, AFTER = 300, 130  # sessions
LOOK_BACK = 68  # sessions that the factors' takes
SESSIONS = 70 + TRAINED + AFTER
SYMBOLS = 12
WINDOW = 5
LABEL, AHEAD = "ahead", 6  # bars
Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
FILE = "dev_idx_1h_snowguru.parquet"
LATEST = ["model.valid_share=0.05", "model.test_share=0.02", "folds.count=3"]  # so that training reaches the year's end


def rate(seeds: int, asked: float, columns: int) -> None:
    """Alarms on windows after training, side by side, so that those of a market share nothing but itself."""
    independent, several = TRAINED // WINDOW, AFTER // WINDOW
    print(f"asked {asked:.4f}, promised {rate_of(independent, asked)[0]:.4f}")
    alike = total([law(several, independent, asked)] * seeds)
    for name, found in alarms(seeds, asked, columns, spells=False).items():
        which = {
            "all": "",
            "learned": ", by the prediction alone",
            "by heart": ", by that of a forest that learned noise",
        }
        seen(found, several, f"without spells of turbulence{which[name]}", alike, "beta-binomial")
    found = alarms(seeds, asked, columns, spells=True)["all"]
    all_ = by_spells_alone(chains(20_000), asked)
    drawn = np.random.default_rng(1).choice(all_, (20_000, seeds)).sum(axis=1)
    chances = np.bincount(drawn, minlength=several * seeds + 1) / len(drawn)
    seen(found, several, "with spells of some ten sessions", chances, "a check's that sees nothing but spells")
    # Which spells these markets happen to have: what that check makes of them, and the rest once that is taken out.
    alone = by_spells_alone(np.array([_regimes(draws(seed)) for seed in range(seeds)]) > CALM, asked)
    slope = np.cov(found, alone)[0, 1] / alone.var(ddof=1)
    rest = (found - slope * (alone - all_.mean())) / several
    print(
        f"that check fails in {all_.mean() / several:.4f} of windows of all such markets, in "
        f"{alone.mean() / several:.4f} of these (correlation by market {np.corrcoef(found, alone)[0, 1]:.2f}); with "
        f"their luck taken out, the real one in {rest.mean():.4f} ± {rest.std(ddof=1) / np.sqrt(seeds):.4f}"
    )


def alarms(seeds: int, asked: float, columns: int, spells: bool) -> dict[str, Counts]:
    """How many of its windows fail, a market each: by all columns, and by one alone, what a forest predicts.

    `learned` is as Tenor's models are: of returns, and stopped early. `by heart` learned noise, for too long: no other
    is bolder on the rows that it learned from.
    """
    found = []
    for seed in range(seeds):
        frame = market(seed, columns, spells)
        days = frame["session"].unique().sort()
        factors = [name for name in frame.columns if name not in ("timestamp", "symbol", "session", LABEL)]
        trained = frame.filter(pl.col("session") <= days[TRAINED - 1])
        later = frame.filter(pl.col("session") > days[TRAINED - 1])
        noise = np.random.default_rng(4).normal(size=trained.height)
        forests = {
            "learned": forest(trained, trained[LABEL].to_numpy(), factors, later),
            "by heart": forest(trained, noise, factors),
        }
        said = {name: pl.Series(name, made.predict(frame.select(factors).to_numpy())) for name, made in forests.items()}
        frame = frame.with_columns(said.values())
        windows = [
            frame.filter(pl.col("session").is_between(days[first], days[first + WINDOW - 1]))
            for first in range(TRAINED, TRAINED + AFTER - WINDOW + 1, WINDOW)
        ]
        trained = frame.filter(pl.col("session") <= days[TRAINED - 1])
        watched = {"all": [*factors, "learned"], "learned": ["learned"], "by heart": ["by heart"]}
        found.append({name: failed(trained, windows, which, asked) for name, which in watched.items()})
        print(f"  seed {seed:3}: of {len(windows)} windows {found[-1]}", flush=True)
    return {name: np.array([one[name] for one in found]) for name in found[0]}


def forest(
    trained: pl.DataFrame, label: Floats, factors: Sequence[str], later: pl.DataFrame | None = None
) -> lgb.Booster:
    """Fitted to the label; for as long as that helps on later rows, or for 300 trees."""
    how = {"num_leaves": 31, "min_data_in_leaf": 100, "learning_rate": 0.05, "num_threads": 1, "verbose": -1}
    rows = lgb.Dataset(trained.select(factors).to_numpy(), label)
    if later is None:
        return lgb.train(how, rows, 300)
    valid = lgb.Dataset(later.select(factors).to_numpy(), later[LABEL].to_numpy(), reference=rows)
    return lgb.train(how, rows, 300, valid_sets=[valid], callbacks=[lgb.early_stopping(30, verbose=False)])


def failed(learned: pl.DataFrame, windows: Sequence[pl.DataFrame], columns: Sequence[str], asked: float) -> int:
    """How many windows the check fails on."""
    how: dict[str, Any] = {"method": "wasserstein", "sample_rows": 2000}
    made = calibrate(learned, columns, window_sessions=WINDOW, windows=200, **how)
    return sum(judge(compare(now, learned, columns, **how), made, rate=asked, share=0.3).drifted for now in windows)


def seen(found: Counts, several: int, where: str, chances: Floats, whose: str) -> None:
    error = found.std(ddof=1) / several / np.sqrt(len(found))
    low, high = band(chances, 0.99)
    side = "inside" if low <= found.sum() <= high else "OUTSIDE"
    print(
        f"{where}: {found.sum()} of {len(found) * several} windows fail, {found.mean() / several:.4f} ± {error:.4f} "
        f"(markets as clusters); 99 % of {whose} law: {low} to {high}: {side}",
        flush=True,
    )


def by_spells_alone(turbulent: npt.NDArray[np.bool_], asked: float) -> Counts:
    """Alarms [markets] of a check whose statistic is how much of a window is turbulent [markets, sessions].

    Its level is set as the real one's is. A little noise, the same in every market, parts what would be equal.
    """
    read = turbulent[:, LOOK_BACK : LOOK_BACK + TRAINED + AFTER]
    shown = read + 0.3 * np.random.default_rng(2).normal(size=read.shape)
    found = np.lib.stride_tricks.sliding_window_view(shown, WINDOW, axis=1).sum(axis=2)
    firsts = np.unique(np.linspace(0, TRAINED - WINDOW, 200).round().astype(int))
    over = int(rate_of(TRAINED // WINDOW, asked)[1] * len(firsts) / (TRAINED // WINDOW))
    level = np.sort(found[:, firsts], axis=1)[:, [len(firsts) - 1 - over]]
    return (found[:, TRAINED::WINDOW] > level).sum(axis=1)


def chains(markets: int) -> npt.NDArray[np.bool_]:
    """The made-up market's regimes, turbulent or not [markets, sessions], calm at first."""
    random, state = np.random.default_rng(3), np.zeros(markets, bool)
    found = np.empty((markets, SESSIONS), bool)
    for session in range(SESSIONS):
        state ^= random.random(markets) >= np.where(state, STAY["turbulent"], STAY["calm"])
        found[:, session] = state
    return found


def draws(seed: int) -> list[np.random.Generator]:
    """Of each session of `market`, as its source makes them."""
    return [np.random.default_rng([seed + 1000, SYMBOLS, session]) for session in range(SESSIONS)]


def market(seed: int, columns: int, spells: bool) -> pl.DataFrame:
    """Rows of some factors of the made-up hourly market with session and label, from where all have their look-back."""
    words = ["horizon=1h", f"source.seed={seed + 1000}", f"source.symbols={SYMBOLS}", "source.splits=0"]
    plan = Plan(compose([*words, f"source.sessions={SESSIONS}"])["1h"])
    source = open_source(plan.horizon.source, plan.grid, datetime(2040, 1, 1, tzinfo=UTC))
    _market.cache_clear()  # it does not know how long regimes stay
    with patch.dict(STAY, {} if spells else {"calm": 1.0}):
        bars = pl.concat(source.bars(datetime(2000, 1, 1, tzinfo=UTC), datetime(2040, 1, 1, tzinfo=UTC), None))
    ahead = (pl.col("close").shift(-AHEAD) / pl.col("close")).log().over("symbol", order_by="timestamp").fill_null(0.0)
    labels = bars.select("timestamp", "symbol", ahead.alias(LABEL))
    bars = bars.with_columns(known_at="timestamp", price_factor=pl.lit(1.0), volume_factor=pl.lit(1.0))
    recipe = plan.recipe(tuple(bars["symbol"].unique().sort()), None)
    keys, X = recipe.rows(bars.sort("timestamp", "symbol"))
    chosen = np.sort(np.random.default_rng(0).choice(len(recipe.factors), columns, replace=False)).tolist()
    named = list(recipe.factors)
    frame = keys.with_columns(pl.Series(named[at], X[:, at]) for at in chosen)
    frame = frame.join(labels, on=["timestamp", "symbol"], how="left", maintain_order="left")
    return frame.with_columns(session_of(frame["timestamp"], plan.grid))


def indices(years: Sequence[int], windows: Sequence[int]) -> None:
    """The check, session by session, in each of the years, with windows of so many sessions."""
    folder = os.environ.get("TENOR_MARKET_DATA")
    if not folder:
        sys.exit("set TENOR_MARKET_DATA to the folder of real market data")
    for year in years:
        with tempfile.TemporaryDirectory() as root:
            for window, rows in replayed(Path(root), Path(folder) / FILE, year, windows):
                told(year, window, rows)


def replayed(root: Path, file: Path, year: int, windows: Sequence[int]) -> Iterator[tuple[int, pl.DataFrame]]:
    """What drift says of the sessions of `year`, by a model that learned until the end of the year before."""
    words = [
        "horizon=1h", "calendar=us_index_cfd", "source=parquet", f"source.path='{file}'", "source.volume=null",
        "universe=all", f"store.root='{root}'", *LATEST,
    ]  # fmt: skip
    clock = FixedClock(datetime(year, 1, 1, tzinfo=UTC))
    instance = dg.DagsterInstance.ephemeral()

    def run(end: int, *steps: str, window: int = WINDOW) -> None:
        given = [*words, f"source.end={end}-12-31", f"drift.window_sessions={window}"]
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
    run(year, "bars", "features", "factors")
    for window in windows:
        run(year, "drift", window=window)
        yield window, Lake(f"{root}/lake").scan("drift/1h").collect()


def told(year: int, window: int, rows: pl.DataFrame) -> None:
    whole = rows.unique("session").sort("session")
    failed = whole.filter("failed")["session"].to_list()
    promised, calibrated = whole["rate"][0], whole["independent"][0]
    print(
        f"{year}, windows of {window}: {len(failed)} of {whole.height} sessions fail; {calibrated} windows of training "
        f"promise {promised:.4f}",
        flush=True,
    )
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
    parser.add_argument("what", choices=["rate", "indices"], nargs="?", default="rate")
    parser.add_argument("--seeds", type=int, default=40)
    parser.add_argument("--rate", type=float, default=0.05)
    parser.add_argument("--columns", type=int, default=20)
    parser.add_argument("--years", type=int, nargs="+", default=[2019, 2020])
    parser.add_argument("--windows", type=int, nargs="+", default=[1, 2, WINDOW])
    given = parser.parse_args()
    if given.what == "rate":
        rate(given.seeds, given.rate, given.columns)
    else:
        indices(given.years, given.windows)
