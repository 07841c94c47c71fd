"""Forward factors: adjusted returns are what a holder earned, and the future never rewrites the past."""

from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quant.adjust import ACTIONS, adjust, no_actions
from quant.bars import BarsError, expression_columns
from quant.grid import CalendarSpec, Grid
from quant.validate import validate

DAYS = Grid(CalendarSpec("XNYS"), "1d")
SLOTS = DAYS.slots(date(2024, 1, 2), date(2024, 3, 28))


def daily(prices: np.ndarray, symbol: str = "A") -> pl.DataFrame:
    stamps = pl.Series("timestamp", SLOTS[: len(prices)]).dt.replace_time_zone("UTC")
    columns = {name: prices.astype(float) for name in ("open", "high", "low", "close")}
    return pl.DataFrame({"symbol": [symbol] * len(prices), "timestamp": stamps, **columns}).with_columns(
        volume=pl.lit(100.0), source=pl.lit("test")
    )


def actions(*rows: tuple[str, date, float, float]) -> pl.DataFrame:
    return pl.DataFrame(list(rows), schema=ACTIONS, orient="row")


def test_a_split_leaves_no_jump_and_scales_the_volume() -> None:
    frame = daily(np.array([700.0, 700.0, 100.0, 100.0]))
    found = expression_columns(adjust(frame, actions(("A", SLOTS[2].item().date(), 7.0, 0.0)), DAYS))
    assert found["close"].to_list() == [700.0] * 4
    assert found["raw_close"].to_list() == [700.0, 700.0, 100.0, 100.0]
    assert found["volume"].to_list() == pytest.approx([100, 100, 100 / 7, 100 / 7])
    assert found["raw_volume"].to_list() == [100.0] * 4


def test_a_dividend_is_reinvested_at_the_last_close() -> None:
    frame = daily(np.array([100.0, 98.0]))  # 2 paid out, nothing earned
    found = expression_columns(adjust(frame, actions(("A", SLOTS[1].item().date(), 1.0, 2.0)), DAYS))
    assert found["close"].to_list() == pytest.approx([100.0, 100.0])
    assert found["volume"].to_list() == [100.0, 100.0]


def test_an_action_on_a_day_without_a_session_or_a_bar_lands_on_the_next_bar() -> None:
    frame = daily(np.full(20, 10.0)).filter(pl.col("timestamp").dt.date() != date(2024, 1, 16))
    # 2024-01-13 is a Saturday, the 15th a holiday, and the bar of the 16th is missing.
    found = adjust(frame, actions(("A", date(2024, 1, 13), 2.0, 0.0)), DAYS)
    moved = found.filter(pl.col("price_factor") != 1.0)
    assert moved["timestamp"][0].date() == date(2024, 1, 17)
    assert moved["price_factor"].unique().to_list() == [2.0]


def test_two_actions_on_one_day_and_other_symbols_keep_apart() -> None:
    day = SLOTS[1].item().date()
    frame = pl.concat([daily(np.array([100.0, 49.0])), daily(np.array([10.0, 10.0]), "B")])
    found = adjust(frame, actions(("A", day, 2.0, 0.0), ("A", day, 1.0, 2.0), ("C", day, 3.0, 0.0)), DAYS)
    assert found["price_factor"].to_list() == pytest.approx([1.0, 2.0 * 100 / 98, 1.0, 1.0])
    assert found["volume_factor"].to_list() == [1.0, 0.5, 1.0, 1.0]


def test_an_action_before_the_first_bar_touches_nothing() -> None:
    found = adjust(daily(np.full(3, 10.0)), actions(("A", SLOTS[0].item().date(), 2.0, 0.0)), DAYS)
    assert found["price_factor"].to_list() == [1.0] * 3


def test_intraday_bars_change_factor_with_the_session() -> None:
    grid = Grid(CalendarSpec("XNYS"), "1h")
    slots = grid.slots(date(2024, 1, 2), date(2024, 1, 3))
    frame = pl.DataFrame({"timestamp": pl.Series(slots).dt.replace_time_zone("UTC"), "symbol": ["A"] * 14})
    frame = frame.with_columns(close=pl.lit(5.0))
    found = adjust(frame, actions(("A", date(2024, 1, 3), 4.0, 0.0)), grid)
    assert found["price_factor"].to_list() == [1.0] * 7 + [4.0] * 7


EVENT = st.tuples(
    st.sampled_from(["A", "B"]),
    st.dates(date(2024, 1, 2), date(2024, 3, 28)),
    st.sampled_from([1.0, 2.0, 0.5, 7.0]),
    st.sampled_from([0.0, 0.5, 1.0]),
)


@given(events=st.lists(EVENT, max_size=6), cut=st.integers(1, 59), seed=st.integers(0, 100))
@settings(max_examples=60)
def test_factors_never_depend_on_what_came_later(events: list[tuple], cut: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    both = [daily(random.uniform(50, 60, 60), symbol) for symbol in ("A", "B")]
    frame, table = pl.concat(both), actions(*events)
    whole = adjust(frame, table, DAYS)
    day = pl.Series(SLOTS[cut : cut + 1]).dt.replace_time_zone("UTC")[0]
    past = adjust(frame.filter(pl.col("timestamp") < day), table.filter(pl.col("date") < day.date()), DAYS)
    assert past.equals(whole.filter(pl.col("timestamp") < day))
    # And the rest, computed from the last bars before it, continues where the past ended.
    rest = adjust(frame.filter(pl.col("timestamp") >= day), table, DAYS, prior=past)
    expected = whole.filter(pl.col("timestamp") >= day)
    for name in ("price_factor", "volume_factor"):
        assert rest[name].to_list() == pytest.approx(expected[name].to_list(), rel=1e-12)


def test_a_prior_bar_inside_the_frame_and_an_impossible_action_are_refused() -> None:
    frame = adjust(daily(np.full(5, 10.0)), no_actions(), DAYS)
    with pytest.raises(BarsError, match="not before the frame"):
        adjust(frame, no_actions(), DAYS, prior=frame)
    with pytest.raises(BarsError, match=r"A on 2024-01-04: .*dividend 11.0"):
        adjust(frame, actions(("A", date(2024, 1, 4), 1.0, 11.0)), DAYS)


def test_the_apple_split_of_2014_is_no_loss_of_six_sevenths(market_data: Path) -> None:
    frame = pl.read_parquet(market_data / "dev_eq_us_1m_lean.parquet").filter(pl.col("symbol") == "AAPL")
    grid = Grid(CalendarSpec("XNYS"), "1m")
    good = validate(
        frame.select("symbol", "timestamp", "open", "high", "low", "close", "volume").with_columns(
            source=pl.lit("lean")
        ),
        grid,
    ).good
    found = expression_columns(adjust(good, actions(("AAPL", date(2014, 6, 9), 7.0, 0.0)), grid))
    before = found.filter(pl.col("timestamp").dt.date() == date(2014, 6, 6))
    after = found.filter(pl.col("timestamp").dt.date() == date(2014, 6, 9))
    assert np.log(before["raw_close"][-1] / after["raw_open"][0]) == pytest.approx(1.94, abs=0.01)
    assert abs(np.log(before["close"][-1] / after["open"][0])) < 0.01


def test_the_daily_split_agrees_with_the_vendors_own_factors(market_data: Path) -> None:
    frame = pl.read_parquet(market_data / "dev_eq_us_1d_lean.parquet").filter(pl.col("symbol") == "AAPL")
    good = validate(frame.with_columns(source=pl.lit("lean")), DAYS).good
    vendor = pl.read_parquet(market_data / "dev_eq_us_factors_lean.parquet").filter(pl.col("symbol") == "AAPL")
    # Lean's row of a date holds back-adjustment up to and with it: the split is between two rows.
    steps = vendor.sort("date").with_columns(split=pl.col("split_factor").shift(-1) / pl.col("split_factor"))
    steps = steps.filter(pl.col("split") > 1.0 + 1e-9)
    table = actions(
        *[("AAPL", day + date.resolution, split, 0.0) for day, split in steps.select("date", "split").rows()]
    )
    found = adjust(good, table, DAYS)
    assert sorted(table["split"].to_list()) == pytest.approx([2.0, 2.0, 4.0, 7.0], rel=1e-3)
    jumps = (found["close"] * found["price_factor"]).log().diff().abs()
    assert (found["close"].log().diff().abs() > 0.65).sum() >= 4
    day = found["timestamp"].dt.date()
    for landed in table["date"]:
        assert jumps.filter(day >= landed)[0] < 0.15
