"""Triple-barrier labels against a walk along each path, bar by bar, and against paths made by hand."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quant.barriers import triple_barrier


@st.composite
def paths(draw):
    """open, high, low, close [T, S] of a few symbols, with bars missing; prices on a lattice, so that ties occur."""
    slots, symbols = draw(st.integers(1, 14)), draw(st.integers(1, 2))
    quarter = st.integers(38, 42).map(lambda n: n / 4)
    bars = np.full((4, slots, symbols), np.nan)
    for slot in range(slots):
        for symbol in range(symbols):
            if draw(st.integers(0, 7)):
                opened, closed = draw(quarter), draw(quarter)
                high, low = max(opened, closed) + draw(st.sampled_from([0, 0.25])), min(opened, closed)
                bars[:, slot, symbol] = opened, high, low, closed
    return bars


def walk(bars, width, at, symbol, *, profit, loss, count, entry, tie):
    """(value, ahead, side) of one label, or None: the definition."""
    opens, highs, lows, closes = bars[:, :, symbol]
    if at + count >= len(closes):
        return None
    start = opens[at + 1] if entry == "next_open" else closes[at]
    unit = width[at, symbol]
    if math.isnan(start) or not unit > 0:
        return None
    upper = math.inf if profit is None else start * (1 + profit * unit)
    lower = -math.inf if loss is None else start * (1 - loss * unit)
    for ahead in range(1, count + 1):
        opened, high, low = opens[at + ahead], highs[at + ahead], lows[at + ahead]
        if math.isnan(opened):
            continue
        if opened >= upper:
            return opened / start - 1, ahead, 1
        if opened <= lower:
            return opened / start - 1, ahead, -1
        reached = [side for side, there in (("profit", high >= upper), ("loss", low <= lower)) if there]
        if reached:
            side = tie if len(reached) == 2 else reached[0]
            return (
                ((upper, 1) if side == "profit" else (lower, -1))[0] / start - 1,
                ahead,
                1 if side == "profit" else -1,
            )
    last = closes[at + count]
    return None if math.isnan(last) else (last / start - 1, count, 0)


@settings(max_examples=300)
@given(
    paths(),
    st.data(),
    st.sampled_from([None, 0.5, 1.0, 2.0]),
    st.sampled_from([None, 0.5, 1.0, 2.0]),
    st.integers(1, 5),
    st.sampled_from(["next_open", "this_close"]),
    st.sampled_from(["loss", "profit"]),
)
def test_each_label_is_what_walking_along_its_path_gives(bars, data, profit, loss, count, entry, tie):
    unit = st.sampled_from([0.02, 0.04, 0.05, 0.0, math.nan])
    shape = bars.shape[1:]
    width = np.array(data.draw(st.lists(unit, min_size=shape[0] * shape[1], max_size=shape[0] * shape[1]))).reshape(
        shape
    )
    found = triple_barrier(*bars, width, profit=profit, loss=loss, bars=count, entry=entry, tie=tie)
    for at, symbol in np.ndindex(*shape):
        expected = walk(bars, width, at, symbol, profit=profit, loss=loss, count=count, entry=entry, tie=tie)
        told = found.value[at, symbol], found.ahead[at, symbol], found.side[at, symbol]
        if expected is None:
            assert math.isnan(told[0])
            assert told[1:] == (0, 0)
        else:
            assert told == pytest.approx(expected)


def label(*bars, **changes):
    """The label of the first bar, whose close is 100; bars: (open, high, low, close) of those after it."""
    columns = np.array([(100.0, 100.0, 100.0, 100.0), *bars]).T[:, :, None]
    given = {"profit": 1.0, "loss": 1.0, "bars": len(bars)} | changes
    made = triple_barrier(*columns, np.full(columns.shape[1:], 0.02), **given)
    return round(float(made.value[0, 0]), 12), int(made.ahead[0, 0]), int(made.side[0, 0])


QUIET = (100.0, 101.0, 99.0, 100.5)


@pytest.mark.parametrize(
    ("bars", "changes", "told"),
    [
        ([QUIET, (100, 102.5, 99, 101)], {}, (0.02, 2, 1)),  # a profit is taken at the barrier
        ([QUIET, (100, 101, 97, 99)], {}, (-0.02, 2, -1)),
        ([QUIET, (103, 104, 102, 103)], {}, (0.03, 2, 1)),  # a gap, at the open
        ([QUIET, (95, 103, 94, 102)], {}, (-0.05, 2, -1)),  # whatever the bar reached later
        ([QUIET, (100, 103, 97, 100)], {}, (-0.02, 2, -1)),  # both in one bar: the careful guess
        ([QUIET, (100, 103, 97, 100)], {"tie": "profit"}, (0.02, 2, 1)),
        ([QUIET, QUIET], {}, (0.005, 2, 0)),  # time
        ([(100, 102, 98, 100)], {"profit": None}, (-0.02, 1, -1)),
        ([(100, 102, 98, 101)], {"profit": None, "loss": None}, (0.01, 1, 0)),
        ([(101, 102.5, 101, 102.5)], {}, (round(102.5 / 101 - 1, 12), 1, 0)),  # 1.5 % from the open at 101
        ([(101, 102.5, 101, 102.5)], {"entry": "this_close"}, (0.02, 1, 1)),  # 2 % from the close at 100
        ([(100, 102, 99, 100)], {}, (0.02, 1, 1)),  # a high exactly at the barrier touches it
    ],
)
def test_paths_made_by_hand(bars, changes, told):
    assert label(*bars, **changes) == told


def test_without_barriers_it_is_the_forward_return():
    close = np.exp(np.cumsum(np.random.default_rng(0).normal(0, 0.01, (50, 3)), axis=0))
    opened = close * 1.001
    made = triple_barrier(
        opened, close + 1, close - 1, close, np.full(close.shape, 0.01), profit=None, loss=None, bars=4
    )
    np.testing.assert_allclose(made.value[:-4], close[4:] / opened[1:-3] - 1)
    assert np.isnan(made.value[-4:]).all()
    assert (made.ahead[:-4] == 4).all()


def test_no_label_of_the_last_bars_stands_because_it_was_touched_early():
    """They alone would be the volatile ones."""
    flat = np.full((5, 1), 100.0)
    made = triple_barrier(flat, flat * 2, flat, flat, flat * 0 + 0.01, profit=1.0, loss=1.0, bars=3)
    assert np.isfinite(made.value[:, 0]).tolist() == [True, True, False, False, False]


@settings(max_examples=50)
@given(paths(), st.integers(1, 5), st.integers(0, 13))
def test_a_label_is_known_at_its_end_whatever_happens_afterwards(bars, count, cut):
    width = np.full(bars.shape[1:], 0.03)
    rules = {"profit": 1.0, "loss": 1.0, "bars": count}
    before = triple_barrier(*bars, width, **rules)
    changed = bars.copy()
    changed[:, cut:] = changed[:, cut:] * 3
    after = triple_barrier(*changed, width, **rules)
    known = np.arange(bars.shape[1])[:, None] + before.ahead < cut
    np.testing.assert_array_equal(
        after.value[known & np.isfinite(before.value)], before.value[known & np.isfinite(before.value)]
    )
