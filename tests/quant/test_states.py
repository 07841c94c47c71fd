"""Market states of symbols and of the market, against numpy's own words for them; and states that are apart."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from quant.known import NEVER
from quant.states import KEYS, MARKET, apart, of_market, of_symbols

SLOTS = np.datetime64("2024-01-02T14:30", "us") + np.arange(4) * np.timedelta64(5, "m")
SYMBOLS = ("A", "B", "C")
NUMBERS = st.floats(-5, 5, width=32) | st.just(float("nan"))
VALUES = arrays(np.float32, (2, 4, 3), elements=NUMBERS)
PRESENT = arrays(np.bool_, (4, 3))
ENDS = SLOTS.astype(np.int64) + 300_000_000


def known(present: np.ndarray) -> np.ndarray:
    """Symbol n's bar is known n seconds after its end."""
    return np.where(present, ENDS[:, None] + np.arange(3) * 1_000_000, NEVER)


def named(values: np.ndarray) -> dict[str, np.ndarray]:
    return {"first": values[0], "second": values[1]}


@given(VALUES, PRESENT)
def test_a_symbol_has_a_state_where_it_has_a_bar_with_missing_numbers_as_zero(
    values: np.ndarray, present: np.ndarray
) -> None:
    made = of_symbols(SLOTS, SYMBOLS, named(values), known(present), present)
    assert dict(made.keys.schema) == KEYS
    assert len(made.keys) == len(made.vectors) == present.sum()
    rows = zip(made.keys.iter_rows(named=True), made.vectors, strict=True)
    for (t, s), (key, vector) in zip(np.argwhere(present), rows, strict=True):
        numbers = values[:, t, s]
        assert (key["symbol"], key["timestamp"].replace(tzinfo=None)) == (SYMBOLS[s], SLOTS[t].item())
        assert key["known_at"].timestamp() * 1e6 == known(present)[t, s]
        assert key["coverage"] == np.isfinite(numbers).mean()
        np.testing.assert_array_equal(vector, np.nan_to_num(numbers))


@given(VALUES, PRESENT)
def test_the_market_s_state_is_mean_and_spread_of_the_members_that_have_a_number(
    values: np.ndarray, present: np.ndarray
) -> None:
    made = of_market(SLOTS, named(values), known(present), present)
    kept = np.flatnonzero(present.any(axis=1))
    assert made.keys["symbol"].to_list() == [MARKET] * len(kept)
    for row, t in enumerate(kept):
        members = values[:, t, present[t]].astype(float)
        expected = []
        for what in (np.mean, np.std):
            for numbers in members:
                there = numbers[np.isfinite(numbers)]
                expected.append(what(there) if len(there) else 0.0)
        np.testing.assert_allclose(made.vectors[row], expected, atol=1e-6)
        assert made.keys["known_at"][row].timestamp() * 1e6 == known(present)[t].max()
        assert made.keys["coverage"][row] == pytest.approx(np.isfinite(members).mean())


def test_who_is_absent_changes_nothing_in_the_market_s_state() -> None:
    values = np.random.default_rng(0).normal(size=(2, 4, 3)).astype(np.float32)
    present = np.ones((4, 3), bool)
    present[:, 1] = False
    other = values.copy()
    other[:, :, 1] = 99
    first, second = (of_market(SLOTS, named(one), known(present), present) for one in (values, other))
    np.testing.assert_array_equal(first.vectors, second.vectors)


def test_no_bars_give_no_states() -> None:
    nothing = np.zeros((4, 3), bool)
    values = named(np.zeros((2, 4, 3), np.float32))
    for made in (
        of_symbols(SLOTS, SYMBOLS, values, known(nothing), nothing),
        of_market(SLOTS, values, known(nothing), nothing),
    ):
        assert made.keys.height == len(made.vectors) == 0
        assert dict(made.keys.schema) == KEYS


@given(st.lists(st.integers(0, 200), max_size=60), st.integers(1, 30), st.integers(1, 10))
def test_chosen_states_are_apart_and_each_left_out_is_near_a_nearer_one(
    slots: list[int], least: int, most: int
) -> None:
    taken = apart(slots, least, most)
    chosen = [slots[place] for place in taken]
    assert all(abs(a - b) >= least for i, a in enumerate(chosen) for b in chosen[:i])
    assert len(taken) <= most
    until = taken[-1] if len(taken) == most else len(slots)
    for place in range(until):
        if place not in taken:
            assert any(abs(slots[place] - slots[nearer]) < least for nearer in taken if nearer < place)


def test_the_nearest_state_is_always_chosen() -> None:
    assert apart([7, 8, 30, 9, 50], 5, 3) == [0, 2, 4]
