"""A universe chosen with hindsight: who survived is not known in time. Membership by date is; it moves the score."""

from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from assets.dataset import load
from quant.portfolio import Terms
from quant.score import score
from tests.assets.conftest import Make, Pipeline

REFRESH = ("bars", "features", "factors")
SYMBOLS, SESSIONS = 12, 130
DELISTED = 0.8  # of its first price: below it a symbol is taken off the exchange


def listed() -> pl.DataFrame:
    """Daily bars of random walks without drift; a symbol that falls below DELISTED of its first close ends there."""
    rng = np.random.default_rng(8)
    days = [day for day in pl.date_range(date(2021, 1, 4), date(2021, 12, 30), eager=True) if day.weekday() < 5]
    days = [day for day in days if day not in HOLIDAYS][:SESSIONS]
    frames = []
    for number in range(SYMBOLS):
        close = 100 * np.exp(np.cumsum(rng.normal(0, 0.02, len(days))))
        low = np.flatnonzero(close < DELISTED * 100)
        end = len(days) if not len(low) else int(low[0]) + 1
        opened = np.concatenate([[100.0], close[:-1]])
        frame = pl.DataFrame(
            {
                "symbol": f"S{number:03d}",
                "timestamp": pl.Series(days).cast(pl.Datetime("us")).dt.replace_time_zone("UTC"),
                "open": opened, "high": np.maximum(opened, close), "low": np.minimum(opened, close), "close": close,
                "volume": rng.uniform(1e5, 2e5, len(days)).round(),
            }
        )  # fmt: skip
        frames.append(frame.head(end))
    return pl.concat(frames)


HOLIDAYS = {
    date(2021, 1, 18), date(2021, 2, 15), date(2021, 4, 2), date(2021, 5, 31), date(2021, 7, 5), date(2021, 9, 6),
    date(2021, 11, 25), date(2021, 12, 24),
}  # fmt: skip


@pytest.fixture
def market() -> pl.DataFrame:
    return listed()


@pytest.fixture
def source(market: pl.DataFrame, tmp_path: Path) -> list[str]:
    """The words for a daily horizon over that market, with membership by date as it was."""
    market.write_parquet(tmp_path / "bars.parquet")
    spans = market.group_by("symbol").agg(start=pl.min("timestamp").dt.date(), end=pl.max("timestamp").dt.date())
    last = market["timestamp"].max()
    assert last is not None
    spans.with_columns(end=pl.when(pl.col("end") < last.date()).then("end")).write_csv(tmp_path / "members.csv")
    return [
        "horizon=1d", "source=parquet", f"source.path='{tmp_path}/bars.parquet'", "universe=all",
        "features=[few]", "factors=[few]", "label.bars=10",
    ]  # fmt: skip


def mean_outcome(made: Pipeline) -> float:
    """What the average symbol of a section earned over the label: 0 in a market without drift."""
    data = load(made.plan("1d"), made.lake)
    rows = pl.DataFrame({"time": data.timestamp, "y": data.y})
    return float(rows.group_by("time").agg(pl.mean("y"))["y"].mean())  # type: ignore[arg-type]


def reversal(made: Pipeline) -> float:
    """Rank IC of buying what has fallen most from its first price: the survivors among those came back."""
    data = load(made.plan("1d"), made.lake)
    closes = made.table("bars", "1d").select("symbol", pl.col("timestamp").dt.replace_time_zone(None), "close")
    rows = pl.DataFrame({"timestamp": data.timestamp, "symbol": data.symbol}).join(
        closes, on=["timestamp", "symbol"], how="left", maintain_order="left"
    )
    frame = pl.DataFrame({"time": data.timestamp, "symbol": data.symbol, "outcome": data.y, "fallen": -rows["close"]})
    found = score(frame, ["fallen"], Terms(holding=10, cost_bps=0.0))
    return float(found["fallen"]["rank_ic"])


def test_a_universe_of_survivors_changes_the_score_and_flatters_it(
    pipeline: Make, source: list[str], market: pl.DataFrame, tmp_path: Path
) -> None:
    then = pipeline(*source, f"universe.members='{tmp_path}/members.csv'")
    then.run(*REFRESH, horizon="1d")
    newest = market["timestamp"].max()
    survivors = market.filter(pl.col("timestamp") == newest)["symbol"].sort().to_list()
    assert 3 <= len(survivors) < SYMBOLS - 2
    hindsight = pipeline(*source, f"universe.symbols=[{','.join(survivors)}]")
    hindsight.run(*REFRESH, horizon="1d")
    assert mean_outcome(hindsight) > mean_outcome(then) + 0.005
    assert reversal(hindsight) > reversal(then) + 0.05


def test_a_section_holds_its_members_of_that_day_and_what_comes_later_does_not_change_it(
    pipeline: Make, source: list[str], market: pl.DataFrame, tmp_path: Path
) -> None:
    """Who joins late has bars before, but no row, and no place in the others' ranks."""
    late = market.filter(pl.col("timestamp") == market["timestamp"].max())["symbol"].sort()[0]
    joined = date(2021, 4, 12)
    members = pl.read_csv(tmp_path / "members.csv", try_parse_dates=True)
    joining = members.with_columns(start=pl.when(pl.col("symbol") == late).then(joined).otherwise("start"))
    joining.write_csv(tmp_path / "late.csv")
    made = pipeline(*source, f"universe.members='{tmp_path}/late.csv'")
    made.run(*REFRESH, horizon="1d")
    rows = made.table("factors", "1d")
    assert rows.filter(pl.col("symbol") == late)["timestamp"].min().date() == joined  # type: ignore[union-attr]
    before = pl.col("timestamp").dt.date() < joined
    market.filter(~(before & (pl.col("symbol") == late))).write_parquet(tmp_path / "without.parquet")
    words = [word.replace("bars.parquet", "without.parquet") for word in source]
    without = pipeline(*words, f"universe.members='{tmp_path}/late.csv'")
    without.run(*REFRESH, horizon="1d")
    drop = ("known_at", "partition")
    assert rows.filter(before).drop(drop).equals(without.table("factors", "1d").filter(before).drop(drop))
    # And had it been a member from the start, the others' ranks would be others.
    always = pipeline(*source, f"universe.members='{tmp_path}/members.csv'")
    always.run(*REFRESH, horizon="1d")
    others = pl.col("symbol") != late
    theirs = always.table("factors", "1d").filter(before & others)
    assert not theirs["momentum_rank"].equals(rows.filter(before & others)["momentum_rank"])
