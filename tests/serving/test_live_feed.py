"""When sections close, and what a slow reader costs the others: without a service, on a clock of our own."""

from datetime import UTC, date, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from quant.grid import CalendarSpec, Grid
from serving.live_bars import LiveBars
from serving.live_feed import Feed, members_of
from serving.metrics import Metrics
from serving.stream import SLOW, Hub

GRID = Grid(CalendarSpec("XNYS"), "5m")
SYMBOLS = ("AAA", "BBB", "CCC")
SLOTS = GRID.slots(date(2024, 3, 14), date(2024, 3, 15))
DEADLINE = timedelta(seconds=5)


def feed(growing: bool = False) -> Feed:
    bars = LiveBars(GRID, SYMBOLS, (), 50)
    return Feed("5m", GRID, bars, members_of(bars.place, None, SYMBOLS, GRID), DEADLINE, growing)


def bars(slot: int, *symbols: str, close: float = 10.0) -> pl.DataFrame:
    stamp, end = SLOTS[slot].item().replace(tzinfo=UTC), GRID.ends(SLOTS[slot : slot + 1])[0].item()
    return pl.DataFrame(
        {
            "symbol": list(symbols),
            "timestamp": [stamp] * len(symbols),
            **{name: [close] * len(symbols) for name in ("open", "high", "low", "close", "volume")},
            "price_factor": 1.0,
            "volume_factor": 1.0,
            "known_at": [end.replace(tzinfo=UTC)] * len(symbols),
        }
    )


def end(slot: int) -> datetime:
    return GRID.ends(SLOTS[slot : slot + 1])[0].item().replace(tzinfo=UTC)


def test_a_section_closes_at_once_when_every_member_has_arrived() -> None:
    made = feed()
    made.put(bars(0, "AAA", "BBB"), end(0))
    assert made.due(end(0)) == []
    made.put(bars(0, "CCC"), end(0))
    [closed] = made.due(end(0))
    assert (closed.slot, closed.complete) == (SLOTS[0], True)
    assert made.due(end(0)) == []


def test_a_section_closes_at_its_deadline_with_what_it_has() -> None:
    made = feed()
    made.put(bars(0, "AAA"), end(0) + timedelta(seconds=1))
    assert made.until() == end(0) + DEADLINE
    assert made.due(end(0) + DEADLINE - timedelta(microseconds=1)) == []
    [closed] = made.due(end(0) + DEADLINE)
    assert not closed.complete
    assert made.coverage(SLOTS[0]) == pytest.approx(1 / 3)


def test_a_section_whose_first_bar_comes_after_the_deadline_waits_as_long_from_there() -> None:
    made = feed()
    late = end(0) + timedelta(hours=2)
    made.put(bars(0, "AAA"), late)
    assert made.due(late + timedelta(seconds=4)) == []
    assert len(made.due(late + DEADLINE)) == 1


def test_a_section_closes_with_a_later_one_and_never_after_it() -> None:
    made = feed()
    made.put(bars(0, "AAA"), end(1))
    made.put(bars(1, *SYMBOLS), end(1))
    assert [(one.slot, one.complete) for one in made.due(end(1))] == [(SLOTS[0], False), (SLOTS[1], True)]
    taken = made.put(bars(0, "BBB"), end(1))
    assert (taken.new, taken.late) == (1, 1)
    assert made.due(end(9)) == []
    assert made.restated == {SLOTS[0]: end(1)}


def test_a_symbol_that_has_not_traded_for_long_is_not_awaited() -> None:
    made = feed()
    made.put(bars(0, "AAA", "BBB"), end(0))
    assert made.due(end(0)) == [], "the first section knows no past, and awaits all"
    made.put(bars(1, "AAA", "BBB"), end(1))
    assert [one.complete for one in made.due(end(1))] == [False, True]


def test_equal_bars_change_nothing_and_others_revise() -> None:
    made = feed()
    made.put(bars(0, "AAA"), end(0))
    taken = made.put(bars(0, "AAA"), end(0))
    assert (taken.new, taken.same, taken.revised) == (0, 1, 0)
    taken = made.put(bars(0, "AAA", close=11.0), end(0))
    assert (taken.new, taken.same, taken.revised) == (0, 0, 1)
    assert made.bars.frame(SLOTS[:1])["close"].to_list() == [11.0]


def test_a_bar_that_grows_is_complete_only_when_its_maker_says_so() -> None:
    made = feed(growing=True)
    made.put(bars(0, *SYMBOLS), end(0))
    assert made.due(end(0)) == []
    made.ended(GRID.ends(SLOTS[:1])[0])
    assert [one.complete for one in made.due(end(0))] == [True]


def test_replayed_bars_that_grow_are_not_cut_off_by_the_clock() -> None:
    made, late = feed(growing=True), end(0) + timedelta(days=9)
    made.put(bars(0, *SYMBOLS), late)
    assert made.due(late + timedelta(days=1)) == [], "how much is to come, only their maker knows"
    in_time = feed(growing=True)
    in_time.put(bars(0, *SYMBOLS), end(0))
    assert [one.complete for one in in_time.due(end(0) + DEADLINE)] == [False], "as they come, their end is awaited"


def test_bars_that_tables_bring_close_all_but_the_newest_section_silently() -> None:
    made = feed()
    for slot in range(4):
        made.bars.put(bars(slot, *SYMBOLS))
    made.read(SLOTS[:4], end(9), broadcast=False)
    assert made.closed == SLOTS[2]
    assert [(one.slot, one.broadcast) for one in made.due(end(9))] == [(SLOTS[3], False)]


def test_the_memory_moves_on_and_keeps_what_it_promises() -> None:
    made = LiveBars(GRID, SYMBOLS, (), 10)
    for slot in range(len(SLOTS)):
        made.put(bars(slot, "AAA", close=float(slot)))
    far = GRID.slots(date(2024, 4, 15), date(2024, 4, 15))[0]
    frame = bars(0, "BBB").with_columns(timestamp=pl.lit(far.item().replace(tzinfo=UTC)))
    before = made.frame(SLOTS[-11:])["close"].to_list()
    assert before == [float(slot) for slot in range(len(SLOTS) - 11, len(SLOTS))]
    made.put(frame)
    assert made.newest == far
    assert made.put(bars(0, "AAA")).old == 1, "what lies before the memory is not taken"


def test_a_slow_reader_is_dropped_and_the_others_hear_everything() -> None:
    hub = Hub(2, metrics := Metrics())
    slow, quick = (hub.join((frozenset(), frozenset())) for _ in range(2))
    heard = []
    for number in range(5):
        hub.broadcast("5m", lambda _, number=number: f"message {number}")
        heard.append(quick._queue.get_nowait())
    assert heard == [f"message {number}" for number in range(5)]
    assert slow.dropped.is_set()
    assert slow.code == SLOW
    assert not quick.dropped.is_set()
    assert b"tenor_stream_dropped_total 1.0" in metrics.text()


def test_readers_get_what_they_asked_for_and_alike_messages_are_encoded_once() -> None:
    hub = Hub(8, Metrics())
    wanted = [frozenset(), frozenset({"AAA"}), frozenset({"AAA"}), frozenset({"ZZZ"})]
    readers = [hub.join((frozenset({"5m"}), symbols)) for symbols in wanted]
    other = hub.join((frozenset({"1h"}), frozenset()))
    made = []

    def encode(symbols: frozenset[str]) -> str | None:
        made.append(symbols)
        return None if "ZZZ" in symbols else ",".join(sorted(symbols)) or "all"

    assert hub.broadcast("5m", encode) == 3
    assert len(made) == 3
    assert [reader._queue.qsize() for reader in (*readers, other)] == [1, 1, 1, 0, 0]
    assert np.all([readers[1]._queue.get_nowait() == "AAA", readers[0]._queue.get_nowait() == "all"])
