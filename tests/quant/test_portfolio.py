"""How predictions become positions, and what is held, traded and left flat."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quant.portfolio import Terms, book, weigh
from tests.quant.test_score import world

FLAT = Terms(holding=2, cost_bps=5.0, overnight=False, sets_off="in session")


@given(
    st.lists(st.one_of(st.integers(-3, 3).map(float), st.just(float("nan"))), min_size=2, max_size=30),
    st.sampled_from(["rank", "deciles", "proportional"]),
)
def test_whatever_is_predicted_a_section_is_neutral_and_its_gross_is_one_or_nothing(values, weighting):
    frame = pl.DataFrame({"time": 0, "symbol": [str(n) for n in range(len(values))], "p": values})
    weights = weigh(frame, "p", weighting).to_numpy()
    assert weights.sum() == pytest.approx(0, abs=1e-12)
    made = np.array(values)[~np.isnan(values)]
    assert np.abs(weights).sum() == pytest.approx(1.0 if len(set(made)) > 1 else 0.0)
    assert not weights[np.isnan(values)].any()


def test_deciles_hold_the_highest_tenth_against_the_lowest_alike():
    frame = world(3, 40)
    weighted = frame.with_columns(weight=weigh(frame, "prediction", "deciles"))
    for _, section in weighted.group_by("time"):
        ordered = section.sort("prediction")["weight"].to_numpy()
        np.testing.assert_allclose(ordered, [-1 / 8] * 4 + [0] * 32 + [1 / 8] * 4)


def test_two_symbols_are_a_pair_in_every_weighting():
    frame = world(5, 2)
    for weighting in ("rank", "deciles", "proportional"):
        np.testing.assert_allclose(np.abs(weigh(frame, "prediction", weighting)), 0.5)


def test_one_symbols_proportional_weight_never_knows_what_comes():
    frame = world(60, 1)
    later = frame.with_columns(
        prediction=pl.when(pl.int_range(60) > 30).then(pl.col("prediction") * 50).otherwise("prediction")
    )
    first, second = (weigh(f, "prediction", "proportional").to_numpy() for f in (frame, later))
    np.testing.assert_array_equal(first[:31], second[:31])
    assert np.abs(second).max() <= 1


def sessions(frame: pl.DataFrame, length: int, holding: int, entry: int = 1) -> pl.DataFrame:
    """Flags of sessions of `length` sections: a label is entered `entry` sections later and ends `holding` later."""
    at = (pl.col("time") - pl.col("time").min()).dt.total_days()
    crosses = (at + entry) // length != (at + holding) // length
    return frame.with_columns(crosses=crosses, closes=at // length != (at + 1) // length)


def test_a_flat_book_opens_nothing_that_would_be_held_overnight():
    frame = sessions(world(40, 6), 8, 2)
    found = book(frame, "prediction", FLAT)
    at = np.arange(40)
    # The tranche of a session's last bar but one would end after the close; that of the last bar starts the next day.
    untraded = at % 8 == 6
    assert (found.gross[untraded] == 0).all()
    assert (found.gross[~untraded] != 0).all()
    # What is open after the last bar but one's close is the tranche before it, which ends with the session.
    held = book(frame, "prediction", Terms(2, 5.0))
    assert found.summary()["exposure"] < held.summary()["exposure"]


def test_a_flat_book_pays_for_both_sides_of_a_close():
    frame = sessions(world(40, 6), 8, 2)
    weights = weigh(frame, "prediction").to_numpy().reshape(40, 6) * (np.arange(40) % 8 != 6)[:, None]
    before = np.vstack([np.zeros((2, 6)), weights[:-2]])
    traded = np.abs(weights - before).sum(axis=1)
    close = np.arange(40) % 8 == 7
    traded[close] = (np.abs(weights) + np.abs(before)).sum(axis=1)[close]
    np.testing.assert_allclose(book(frame, "prediction", FLAT).traded, traded / 2, atol=1e-15)


def test_a_position_kept_over_night_is_sold_and_bought_anew_for_its_gap_is_in_no_label():
    """Always the same weights: nothing is traded within a session, and everything twice at its end."""
    frame = sessions(world(40, 6), 8, 1).with_columns(prediction=pl.col("symbol").rank("dense").over("time"))
    found = book(frame, "prediction", Terms(1, 5.0, sets_off="in session"))
    close = np.arange(40) % 8 == 7
    np.testing.assert_allclose(found.traded[close], 2.0)
    np.testing.assert_allclose(found.traded[~close], [1.0, *[0.0] * 34], atol=1e-15)
    assert book(frame, "prediction", Terms(1, 5.0)).traded.sum() == pytest.approx(1.0)
    np.testing.assert_allclose(book(frame, "prediction", Terms(1, 5.0, sets_off="never")).traded[1:], 2.0)


def test_with_an_entry_at_the_close_a_flat_book_sells_at_the_last_one_and_buys_at_none():
    frame = sessions(world(40, 6), 8, 2, entry=0)
    found = book(frame, "prediction", Terms(2, 5.0, overnight=False))
    at = np.arange(40) % 8
    assert (found.gross[at >= 6] == 0).all()
    assert (found.gross[at < 6] != 0).all()
    weights = weigh(frame, "prediction").to_numpy().reshape(40, 6) * (at < 6)[:, None]
    before = np.vstack([np.zeros((2, 6)), weights[:-2]])
    np.testing.assert_allclose(found.traded, np.abs(weights - before).sum(axis=1) / 2, atol=1e-15)


def test_a_flat_book_asks_for_the_sessions():
    with pytest.raises(ValueError, match="lacks crosses, closes"):
        book(world(5, 3), "prediction", FLAT)


def test_a_row_that_comes_twice_is_refused():
    frame = world(5, 3)
    with pytest.raises(ValueError, match="twice"):
        book(pl.concat([frame, frame.head(1)]), "prediction", Terms(1, 0.0))


def test_the_order_of_rows_changes_nothing():
    frame = world(30, 5)
    shuffled = frame.sample(fraction=1, shuffle=True, seed=1)
    for weighting in ("rank", "proportional"):
        terms = Terms(3, 2.0, weighting)
        np.testing.assert_allclose(
            book(frame, "prediction", terms).net, book(shuffled, "prediction", terms).net, atol=1e-15
        )
