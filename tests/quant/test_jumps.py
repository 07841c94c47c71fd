"""A bar on another price scale is told from the bars before it alone, and from the same ones however they are cut."""

from datetime import date
from itertools import pairwise
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quant.adjust import ACTIONS, no_actions
from quant.grid import CalendarSpec, Grid
from quant.jumps import MEMORY, REACH, Judged, judge, no_past
from quant.validate import validate

DAYS = Grid(CalendarSpec("XNYS"), "1d")
DATES = DAYS.dates(date(2022, 1, 3), date(2023, 12, 29))
MOST = 8.0


def bars(closes: list[float | None], symbol: str = "A", first: int = 0) -> pl.DataFrame:
    """Daily bars on consecutive sessions, none where the close is None; each opens where it closes."""
    stamps = pl.Series(DATES[first : first + len(closes)].astype("datetime64[us]")).dt.replace_time_zone("UTC")
    prices = pl.Series("close", closes, dtype=pl.Float64)
    frame = pl.DataFrame({"timestamp": stamps, "open": prices, "close": prices})
    return frame.select(pl.lit(symbol).alias("symbol"), pl.all()).drop_nulls()


def run(frame: pl.DataFrame, actions: pl.DataFrame | None = None, past: pl.DataFrame | None = None) -> Judged:
    actions = no_actions() if actions is None else actions
    return judge(frame, no_past() if past is None else past, actions, DAYS, MOST)


def split(ratio: float, at: int) -> pl.DataFrame:
    return pl.DataFrame([("A", DATES[at].item(), ratio, 0.0)], schema=ACTIONS, orient="row")


@pytest.mark.parametrize("factor", [1e6, 0.01, 10.0, 0.1])
def test_a_broken_bar_is_kept_apart_and_the_bars_around_it_stay(factor: float) -> None:
    closes = [100.0 + at for at in range(30)]
    closes[20] *= factor
    found = run(bars(closes))
    assert found.jumps["close"].to_list() == [closes[20]]
    assert found.good["close"].to_list() == closes[:20] + closes[21:]
    (note,) = found.notes
    assert note.startswith(f"A: 1 bar(s) kept apart as `jump`, the first at {DATES[20]}")


def test_a_broken_open_alone_is_enough() -> None:
    frame = bars([100.0] * 20).with_columns(open=pl.when(pl.int_range(pl.len()) == 12).then(1e8).otherwise("open"))
    assert run(frame).jumps["open"].to_list() == [1e8]


def test_a_declared_split_is_no_jump_and_a_broken_bar_after_it_is() -> None:
    closes = [2000.0] * 15 + [100.0] * 15
    closes[17] = 2000.0  # the old scale
    found = run(bars(closes), split(20.0, 15))
    assert found.jumps["timestamp"].dt.date().to_list() == [DATES[17].item()]


def test_an_undeclared_split_costs_five_bars_and_is_then_taken_and_named() -> None:
    found = run(bars([2000.0] * 15 + [100.0] * 15))
    assert found.jumps["timestamp"].dt.date().to_list() == DATES[15:20].tolist()
    assert found.good.height == 25
    _, note = found.notes
    assert note.startswith(f"A: prices stay at 0.05 times the scale before and are taken from {DATES[20]}")
    assert "source.actions" in note


def test_a_broken_first_bar_costs_one_more_and_is_named() -> None:
    # Nothing before it says that it is broken: of two bars that contradict each other either may be.
    found = run(bars([1e8, *[100.0] * 20]))
    assert found.good["close"].to_list() == [1e8, *[100.0] * 19]
    assert "a broken bar where the series begins" in found.notes[-1]


def test_other_symbols_do_not_notice() -> None:
    both = pl.concat([bars([100.0] * 10 + [1e8] + [100.0] * 10), bars([3.0] * 21, "B"), bars([1e5] * 21, "C")])
    assert run(both).jumps.select("symbol", "close").rows() == [("A", 1e8)]


def test_a_ticker_that_is_used_again_after_a_long_gap_is_not_judged_by_the_old_one() -> None:
    closes: list[float | None] = [1.0] * 10 + [None] * REACH + [500.0] * 10
    assert run(bars(closes)).jumps.is_empty()
    assert run(bars(closes[:10] + closes[11:])).jumps.height == 1  # the last slot within reach: one close decides


SCALE = st.sampled_from([1.0, 1.0, 1.0, 1.1, 3.0, 10.0, 1e6, 0.01, None])


@given(
    scales=st.lists(SCALE, min_size=2, max_size=60),
    cuts=st.lists(st.integers(0, 60), max_size=4),
    at=st.integers(1, 40),
    future=st.floats(1e-3, 1e9),
)
@settings(max_examples=80)
def test_pieces_give_the_verdicts_of_the_whole_and_later_bars_change_none(
    scales: list[float | None], cuts: list[int], at: int, future: float
) -> None:
    closes = [None if scale is None else 100.0 * scale for scale in scales]
    frame, actions = pl.concat([bars(closes), bars(closes[::-1], "B")]).sort("timestamp"), split(10.0, at)
    whole = run(frame, actions)
    edges = [DATES[0].item(), *(DATES[cut].item() for cut in sorted(cuts)), DATES[-1].item()]
    pieces, past = [], no_past()
    for start, end in pairwise(edges):
        day = pl.col("timestamp").dt.date()
        pieces.append(run(frame.filter(day >= start, day < end), actions, past))
        past = pieces[-1].past
    assert pl.concat(piece.jumps for piece in pieces).equals(whole.jumps)
    said = [note for piece in pieces for note in piece.notes]
    assert sorted(note for note in said if "stay" in note) == sorted(note for note in whole.notes if "stay" in note)
    assert past.group_by("symbol").len()["len"].max() in (None, *range(MEMORY + 1))

    later = pl.col("timestamp").dt.date() >= DATES[at].item()
    changed = frame.with_columns(pl.when(later).then(future).otherwise("close").alias("close"))
    assert run(changed, actions).jumps.filter(~later).equals(whole.jumps.filter(~later))


@pytest.mark.parametrize(
    ("name", "calendar", "interval"),
    [
        ("dev_eq_us_1d_sp500", CalendarSpec("XNYS"), "1d"),
        ("dev_eq_us_1d_lean", CalendarSpec("XNYS"), "1d"),
        ("dev_crypto_1h_snowguru", CalendarSpec("24/7"), "1h"),
        ("dev_fx_1h_lean_oanda", CalendarSpec("template", "America/New_York", "17:00", "17:00"), "1h"),
    ],
)
def test_real_bars_are_all_kept(market_data: Path, name: str, calendar: CalendarSpec, interval: str) -> None:
    # Among them WaMu's last day (1.77 to 0.16, and 3.40 four days before): beyond 15, within the default of 20.
    grid = Grid(calendar, interval)
    frame = pl.read_parquet(market_data / f"{name}.parquet").with_columns(source=pl.lit(name))
    assert judge(validate(frame, grid).good, no_past(), no_actions(), grid, 20.0).jumps.is_empty()
