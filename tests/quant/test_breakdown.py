"""Scores by group of sections and by symbol, and regimes that never know what comes."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from quant.breakdown import by_sections, by_symbol, rolling_ic
from quant.portfolio import Terms, book
from quant.regime import WARM, volatility_regime
from quant.score import section_ic
from quant.stats import lags_for, mean_of
from tests.quant.test_score import world


def returns(sections: int, symbols: int, seed: int) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    wild = np.where(np.arange(sections) % 100 < 50, 0.005, 0.02)
    time = np.datetime64("2023-01-02", "us") + np.arange(sections) * np.timedelta64(1, "D")
    values = rng.normal(size=(sections, symbols)) * wild[:, None] + rng.normal(size=(sections, 1)) * wild[:, None]
    return pl.DataFrame({"time": np.repeat(time, symbols), "last_return": values.ravel()})


@settings(max_examples=20)
@given(cut=st.integers(80, 399), seed=st.integers(0, 5))
def test_what_comes_later_never_changes_a_regime(cut, seed):
    frame = returns(400, 3, seed)
    instant = frame["time"].unique().sort()[cut]
    shaken = frame.with_columns(
        last_return=pl.when(pl.col("time") > instant).then(pl.col("last_return") * -7 + 1).otherwise("last_return")
    )
    before = pl.col("time") <= instant
    assert volatility_regime(frame, 20).filter(before).equals(volatility_regime(shaken, 20).filter(before))


def test_a_regime_is_the_third_of_the_volatilities_seen_so_far():
    frame, window = returns(300, 4, 1), 20
    found = volatility_regime(frame, window)
    market = frame.group_by("time").agg(pl.col("last_return").mean()).sort("time")["last_return"].to_numpy()
    levels = [np.nan] * (window - 1)
    levels += [np.sqrt((market[end - window : end] ** 2).mean()) for end in range(window, 301)]
    for at, regime in enumerate(found["regime"]):
        seen = np.array(levels[window - 1 : at])
        if at < WARM * window:
            assert regime is None
        else:
            assert regime == ("calm", "normal", "turbulent")[min(2, int((seen < levels[at]).mean() * 3))]


def test_wild_spells_are_turbulent_and_quiet_ones_never():
    found = volatility_regime(returns(1000, 5, 2), 10).with_row_index("at").drop_nulls()
    wild = found.filter((pl.col("at") % 100).is_between(65, 99))["regime"]
    quiet = found.filter((pl.col("at") % 100).is_between(15, 49))["regime"]
    assert (wild == "turbulent").mean() > 0.7
    assert (quiet == "turbulent").mean() < 0.1


def test_groups_partition_the_sections_of_one_book():
    frame, terms = world(400, 8), Terms(3, 2.0)
    groups = frame.select("time", group=pl.col("time").dt.year()).unique()
    found = by_sections(frame, groups, terms, "regression")
    assert [row["group"] for row in found] == [2023, 2024]
    assert sum(row["sections"] for row in found) == 400
    assert sum(row["rows"] for row in found) == frame.height
    whole = book(frame, "prediction", terms)
    total = sum(row["annual_return"] * row["sections"] for row in found) / 400
    assert total == pytest.approx(whole.summary()["annual_return"])
    first = section_ic(frame.filter(pl.col("time").dt.year() == 2023), "spearman")["ic"]
    assert found[0]["rank_ic"] == pytest.approx(first.mean())


def test_sections_in_no_group_are_in_no_row():
    frame = world(50, 5)
    groups = frame.select("time").unique().sort("time").with_columns(group=pl.Series(["a"] * 20 + [None] * 30))
    [row] = by_sections(frame, groups, Terms(1, 0.0), "regression")
    assert row["sections"] == 20


def test_a_symbols_score_is_scipys_rank_correlation_over_its_rows():
    frame = world(120, 4)
    for row in by_symbol(frame, Terms(1, 0.0), "regression"):
        mine = frame.filter(pl.col("symbol") == row["group"])
        assert row["rank_ic"] == pytest.approx(scipy_stats.spearmanr(mine["prediction"], mine["outcome"])[0])
        assert row["rows"] == 120


def test_the_rolling_ic_ends_with_the_newest_window_and_is_thinned_evenly():
    series = section_ic(world(1500, 6), "spearman")
    found = rolling_ic(series, 60, 2)
    assert found.height == 400
    newest = mean_of(series["ic"].to_numpy()[-60:], lags_for(60, 2))
    assert found.row(-1) == (series["time"][-1], newest.mean, newest.error)
    assert rolling_ic(series.head(59), 60, 2).height == 0
