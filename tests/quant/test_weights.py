"""Sample weights against their published definitions, label by label."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quant.weights import recency, uniqueness

spans = st.lists(st.tuples(st.sampled_from("ab"), st.integers(-5, 30), st.integers(0, 9)), min_size=1, max_size=40)


def columns(labels):
    symbol, first, length = (np.array(column) for column in zip(*labels, strict=True))
    return symbol, first, first + length


@settings(max_examples=100)
@given(spans)
def test_uniqueness_is_the_mean_share_of_a_slot_that_a_label_has_to_itself(labels):
    symbol, first, last = columns(labels)
    expected = []
    for row in range(len(labels)):
        same = [other for other in range(len(labels)) if symbol[other] == symbol[row]]
        shares = [
            1 / sum(first[other] <= slot <= last[other] for other in same) for slot in range(first[row], last[row] + 1)
        ]
        expected.append(sum(shares) / len(shares))
    np.testing.assert_allclose(uniqueness(symbol, first, last), expected)


def test_the_published_matrix_of_concurrent_labels():
    """López de Prado, ch. 4.5.3: labels over the bars 0 to 2, 2 to 3 and 4 to 5."""
    symbol = np.array(["x"] * 3)
    found = uniqueness(symbol, np.array([0, 2, 4]), np.array([2, 3, 5]))
    np.testing.assert_allclose(found, [5 / 6, 3 / 4, 1])


def test_labels_of_every_bar_that_look_six_ahead_weigh_a_sixth():
    first = np.arange(100) + 1
    found = uniqueness(np.array(["x"] * 100), first, first + 5)
    np.testing.assert_allclose(found[10:-10], 1 / 6)


def test_a_label_that_ends_before_it_begins_is_refused():
    with pytest.raises(ValueError, match="1 labels end before"):
        uniqueness(np.array(["x", "x"]), np.array([1, 3]), np.array([2, 2]))


def test_a_row_one_half_life_older_weighs_half():
    time = np.array(["2024-01-01", "2024-01-11", "2024-01-21"], "datetime64[us]")
    np.testing.assert_allclose(recency(time, 10.0), [0.25, 0.5, 1.0])
