"""What followed a bar: the label where the whole market is laid out, and only once its bars had arrived."""

from datetime import UTC, date, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from quant.followed import followed, reach
from quant.grid import CalendarSpec, Grid
from quant.inputs import bar_panel
from quant.labels import BarrierLabel, ExpressionLabel, Label
from quant.panel import instants
from quant.program import Program

GRID = Grid(CalendarSpec("XNYS"), "1h")
SLOTS = GRID.slots(date(2024, 6, 24), date(2024, 7, 12))  # a half day and a holiday among them
SYMBOLS = ("A", "B", "C")
LATER = datetime(2030, 1, 1, tzinfo=UTC)


def label(text: str = "lead(close, 4) / lead(open, 1) - 1") -> Label:
    return ExpressionLabel(Program.compile({"label": text}, ("open", "close"), lookahead=True), text)


def barriers() -> Label:
    width = Program.compile({"width": "std(close / lag(close, 1) - 1, 5)"}, ("close",))
    return BarrierLabel(width, "width", profit=1.0, loss=1.0, bars=6, entry="next_open", tie="loss")


def bars(slots: np.ndarray = SLOTS) -> pl.DataFrame:
    random = np.random.default_rng(1)
    close = 100 * np.exp(np.cumsum(random.normal(0, 0.01, (len(slots), 3)), axis=0))
    opened = np.vstack([close[:1], close[:-1]])
    rows = len(slots) * 3
    return pl.DataFrame(
        {
            "symbol": list(SYMBOLS) * len(slots),
            "timestamp": pl.Series(np.repeat(slots, 3)).cast(pl.Datetime("us")).dt.replace_time_zone("UTC"),
            "open": opened.ravel(),
            "high": (np.maximum(opened, close) * 1.001).ravel(),
            "low": (np.minimum(opened, close) * 0.999).ravel(),
            "close": close.ravel(),
            "volume": [1000.0] * rows,
            "known_at": pl.Series(np.repeat(GRID.ends(slots), 3)).cast(pl.Datetime("us")).dt.replace_time_zone("UTC"),
            "price_factor": [1.0] * rows,
            "volume_factor": [1.0] * rows,
            "source": ["test"] * rows,
        }
    ).filter(pl.int_range(pl.len()) % 17 != 5)  # gaps


def within(frame: pl.DataFrame, slots: np.ndarray) -> pl.DataFrame:
    return frame.filter(pl.Series(np.isin(instants(frame["timestamp"]), slots)))


@pytest.mark.parametrize(
    "made", [label(), barriers(), label("rank(lead(close, 3) / close)")], ids=["lead", "barriers", "rank"]
)
def test_an_outcome_is_the_one_that_training_would_learn(made: Label) -> None:
    frame = bars()
    whole = made.run(bar_panel(frame, GRID, SLOTS, SYMBOLS, made.inputs))
    seen = 0
    for at in range(10, len(SLOTS) - 10, 3):
        told = followed(within(frame, reach(GRID, made, SLOTS[at])), GRID, made, {}, SLOTS[at], SYMBOLS, LATER)
        expected = [None if np.isnan(value) else value for value in whole.value[at].tolist()]
        assert told["outcome"].to_list() == expected
        seen += told["outcome"].count()
    assert seen > 50


@pytest.mark.parametrize("made", [label(), barriers()], ids=["lead", "barriers"])
def test_an_outcome_is_known_with_the_last_bar_that_it_reads_and_not_before(made: Label) -> None:
    frame = bars()
    whole = made.run(bar_panel(frame, GRID, SLOTS, SYMBOLS, made.inputs))
    for at in range(10, len(SLOTS) - 10, 7):
        held = within(frame, reach(GRID, made, SLOTS[at]))
        for place, symbol in enumerate(SYMBOLS):
            if np.isnan(whole.value[at, place]):
                continue
            last = at + whole.ahead[at, place]
            of_symbol = held.filter(pl.col("symbol") == symbol)
            end = of_symbol.filter(pl.Series(instants(of_symbol["timestamp"]) <= SLOTS[last]))["known_at"].max()
            [told] = followed(held, GRID, made, {}, SLOTS[at], [symbol], end)["outcome_known_at"]
            assert told == end
            [before] = followed(held, GRID, made, {}, SLOTS[at], [symbol], end - timedelta(microseconds=1))["outcome"]
            assert before is None


def test_a_bar_that_arrived_late_or_was_revised_makes_the_outcome_so_much_later() -> None:
    made, at = label(), 21
    held = within(bars(), reach(GRID, made, SLOTS[at]))
    late = datetime(2025, 1, 1, tzinfo=UTC)
    here = (pl.col("symbol") == "B") & (pl.Series(instants(held["timestamp"]) == SLOTS[at + 4]))
    held = held.with_columns(known_at=pl.when(here).then(pl.lit(late)).otherwise("known_at"))
    early, then = (
        followed(held, GRID, made, {}, SLOTS[at], SYMBOLS, moment) for moment in (late - timedelta(seconds=1), late)
    )
    assert early["outcome"].is_null().to_list() == [False, True, False]
    assert then["outcome_known_at"].to_list()[1] == late


def test_a_label_of_the_section_is_known_when_all_of_it_is() -> None:
    made, at = label("rank(lead(close, 3) / close)"), 20
    held = within(bars(), reach(GRID, made, SLOTS[at]))
    late = datetime(2025, 1, 1, tzinfo=UTC)
    here = (pl.col("symbol") == "C") & (pl.Series(instants(held["timestamp"]) == SLOTS[at + 3]))
    held = held.with_columns(known_at=pl.when(here).then(pl.lit(late)).otherwise("known_at"))
    told = followed(held, GRID, made, {}, SLOTS[at], ["A"], late - timedelta(seconds=1))
    assert told["outcome"].to_list() == [None]


def test_bars_that_are_still_to_come_leave_no_outcome() -> None:
    made = label()
    frame = bars(SLOTS[:30])
    told = followed(within(frame, reach(GRID, made, SLOTS[28])), GRID, made, {}, SLOTS[28], SYMBOLS, LATER)
    assert told["outcome"].to_list() == [None] * 3


def test_reach_counts_bars_over_holidays() -> None:
    for lookahead, calendar, interval in ((40, "XNYS", "1d"), (7, "XTKS", "1d"), (300, "XNYS", "1h")):
        grid = Grid(CalendarSpec(calendar), interval)
        made = label(f"lead(close, {lookahead}) / lag(close, 9) - 1")
        [slot] = grid.slots(date(2024, 4, 24), date(2024, 4, 24))[:1]
        slots = reach(grid, made, slot)
        assert len(slots) == 9 + 1 + lookahead
        assert slots[9] == slot
