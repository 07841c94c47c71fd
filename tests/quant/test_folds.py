"""The purged hold-out against its definition, written out row by row."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quant.folds import holdout


def rows(sections: int, symbols: int, ahead: int) -> tuple[np.ndarray, np.ndarray]:
    time = np.repeat(np.arange(sections), symbols)
    return time, time + ahead


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_every_row_is_where_the_definition_puts_it(data):
    time = np.array(data.draw(st.lists(st.integers(0, 60), min_size=40, max_size=200)))
    length = np.array(data.draw(st.lists(st.integers(0, 9), min_size=len(time), max_size=len(time))))
    embargo = data.draw(st.integers(0, 6))
    try:
        split = holdout(time, time + length, valid=0.2, test=0.2, embargo=embargo)
    except ValueError as error:
        assert "rows" in str(error) or "few" in str(error)  # noqa: PT017
        return
    sections = sorted(set(time.tolist()))
    test = sections[len(sections) - int(np.ceil(0.2 * len(sections)))]
    valid = sections[sections.index(test) - int(np.ceil(0.2 * len(sections)))]
    found = {"train": [], "valid": [], "test": [], "purged": [], "embargoed": []}
    for row, (signal, end) in enumerate(zip(time.tolist(), (time + length).tolist(), strict=True)):
        if signal >= test:
            found["test"].append(row)
            continue
        part, following = ("valid", test) if signal >= valid else ("train", valid)
        near = sections[max(0, sections.index(following) - embargo)]
        found["purged" if end >= following else "embargoed" if end >= near else part].append(row)
    for part in ("train", "valid", "test"):
        assert getattr(split, part).tolist() == found[part]
    assert split.counts == {"rows": len(time), **{part: len(members) for part, members in found.items()}}


def test_a_label_that_ends_exactly_where_the_next_part_starts_is_purged():
    time, end = rows(10, 1, 0)
    end = end.copy()
    end[4] = 6  # signal 4: its label ends as the first valid section begins
    end[5] = 5
    split = holdout(time, end, valid=0.2, test=0.2, embargo=0)
    assert split.valid_start == 6
    assert split.train.tolist() == [0, 1, 2, 3, 5]
    assert split.counts["purged"] == 1


def test_no_kept_label_is_known_once_the_next_part_has_begun():
    time, end = rows(100, 3, 7)
    split = holdout(time, end, valid=0.2, test=0.2, embargo=0)
    assert end[split.train].max() < split.valid_start <= time[split.valid].min()
    assert end[split.valid].max() < split.test_start <= time[split.test].min()


def test_the_embargo_keeps_that_many_whole_sections_free_of_labels():
    time, end = rows(100, 2, 7)
    split = holdout(time, end, valid=0.2, test=0.2, embargo=5)
    assert end[split.train].max() == 54  # valid starts at 60: sections 55 .. 59 hold no training label
    assert split.counts["purged"] == 2 * 7 * 2
    assert split.counts["embargoed"] == 2 * 5 * 2


def test_the_counts_add_up_to_the_rows():
    time, end = rows(50, 4, 3)
    counts = holdout(time, end, valid=0.2, test=0.3, embargo=3).counts
    assert counts["rows"] == sum(count for name, count in counts.items() if name != "rows") == 200


def test_symbols_with_other_calendars_are_cut_at_the_same_time():
    a, b = np.arange(0, 100, 1), np.arange(0, 100, 7)
    time = np.concatenate([a, b])
    split = holdout(time, time + 2, valid=0.2, test=0.2, embargo=2)
    for part, other in (("train", "valid"), ("valid", "test")):
        assert time[getattr(split, part)].max() < time[getattr(split, other)].min()
    assert (split.train >= len(a)).any()
    assert (split.test >= len(a)).any()


def test_times_may_be_datetimes_and_the_order_of_rows_does_not_matter():
    time, end = rows(60, 2, 4)
    base = np.datetime64("2024-01-02T09:30", "us")
    shuffle = np.random.default_rng(0).permutation(len(time))
    plain = holdout(time, end, valid=0.2, test=0.2, embargo=4)
    step = np.timedelta64(5, "m")
    moved = holdout((base + time * step)[shuffle], (base + end * step)[shuffle], valid=0.2, test=0.2, embargo=4)
    assert moved.counts == plain.counts
    assert sorted(shuffle[moved.train]) == plain.train.tolist()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"label_end": np.arange(20) - 1}, "20 of 20 labels end before"),
        ({"label_end": np.arange(19)}, "20 times but 19"),
        ({"valid": 0.6, "test": 0.5}, "together below 1"),
        ({"embargo": -1}, "embargo"),
        ({"label_end": np.arange(20) + 30}, "'purged': 1"),
    ],
)
def test_what_cannot_be_split_is_refused_with_the_numbers(change, said):
    given = {
        "time": np.arange(20),
        "label_end": np.arange(20),
        "valid": 0.2,
        "test": 0.2,
        "embargo": 0,
    } | change
    with pytest.raises(ValueError, match=said):
        holdout(**given)


def test_an_unlabelled_row_is_refused():
    time = np.arange(20).astype("datetime64[us]")
    end = time.copy()
    end[3] = np.datetime64("NaT")
    with pytest.raises(ValueError, match="1 of 20 labels"):
        holdout(time, end, valid=0.2, test=0.2, embargo=0)
