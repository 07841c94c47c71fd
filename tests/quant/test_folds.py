"""The purged hold-out and folds against their definitions, written out row by row."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quant.folds import combinatorial, holdout, paths, walk_forward


def rows(sections: int, symbols: int, ahead: int) -> tuple[np.ndarray, np.ndarray]:
    time = np.repeat(np.arange(sections), symbols)
    return time, time + ahead


@settings(max_examples=60)
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


# -- walk-forward and combinatorial folds: the definition, row by row and pair by pair ---------------------------


def account(fold, total):
    """Each row is in one part, and the counts say how many."""
    parts = {"train": fold.train, "valid": fold.valid, "test": fold.test}
    assert all((np.diff(part) > 0).all() for part in parts.values())
    kept = np.concatenate(list(parts.values()))
    assert len(set(kept.tolist())) == len(kept)
    assert {name: fold.counts[name] for name in parts} == {name: len(part) for name, part in parts.items()}
    assert fold.counts["rows"] == total == sum(count for name, count in fold.counts.items() if name != "rows")


@st.composite
def labelled(draw):
    """Rows of symbols on clocks of their own, their labels of different lengths, in any order."""
    rows = [
        (time, time + draw(st.integers(0, 8)))
        for start, step in draw(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 4)), min_size=1, max_size=4))
        for time in range(start, 80, step)
    ]
    rows = draw(st.permutations(rows)) if draw(st.booleans()) else rows
    return tuple(np.array(column) for column in zip(*rows, strict=True))


@settings(max_examples=60)
@given(labelled(), st.integers(1, 4), st.integers(0, 5), st.one_of(st.none(), st.integers(5, 40)))
def test_every_row_of_a_walk_forward_fold_is_where_the_definition_puts_it(rows, folds, embargo, window):
    time, end = rows
    sections = sorted(set(time.tolist()))
    tested = sections[len(sections) - int(np.ceil(0.5 * len(sections))) :]

    def learned(first: int) -> list[int]:
        place = sections.index(first)
        near = sections[max(0, place - embargo)]
        oldest = sections[max(0, place - window)] if window else sections[0]
        return [
            row
            for row, (s, e) in enumerate(zip(time, end, strict=True))
            if oldest <= s < first and e < near and e < first
        ]

    try:
        made = walk_forward(
            time, end, folds=folds, share=0.5, embargo=embargo, expanding=window is None, train_sections=window
        )
    except ValueError as error:
        assert "nothing left to learn from" in str(error)  # noqa: PT017
        assert not all(learned(tested[number * len(tested) // folds]) for number in range(folds))
        return
    assert sorted({t for fold in made for t in time[fold.test].tolist()}) == tested
    assert sum(len(set(time[fold.test].tolist())) for fold in made) == len(tested)  # no section twice
    for fold in made:
        account(fold, len(time))
        first = min(time[fold.test])
        oldest = sections[max(0, sections.index(first) - window)] if window else sections[0]
        assert fold.train.tolist() == learned(first)
        assert fold.counts["purged"] == sum(oldest <= s < first <= e for s, e in zip(time, end, strict=True))
        assert not len(fold.valid)
    sizes = [len(set(time[fold.test].tolist())) for fold in made]
    assert max(sizes) - min(sizes) <= 1


@settings(max_examples=60)
@given(labelled(), st.integers(2, 5), st.integers(1, 3), st.integers(0, 5))
def test_no_training_label_of_a_combinatorial_fold_shares_a_moment_with_a_tested_one(rows, groups, tested, embargo):
    time, end = rows
    if tested >= groups:
        return
    try:
        made = combinatorial(time, end, groups=groups, test_groups=tested, embargo=embargo)
    except ValueError as error:
        assert "nothing left to learn from" in str(error)  # noqa: PT017
        return
    sections = np.unique(time)
    at = np.searchsorted(sections, time)
    block = np.searchsorted(np.arange(1, groups) * len(sections) // groups, at, side="right")
    assert len(made) == math.comb(groups, tested)
    for fold, chosen in zip(made, itertools.combinations(range(groups), tested), strict=True):
        account(fold, len(time))
        assert fold.groups == chosen
        assert fold.counts["outside"] == 0
        assert fold.test.tolist() == np.flatnonzero(np.isin(block, chosen)).tolist()
        kept, purged, embargoed = [], 0, 0
        for row in np.flatnonzero(~np.isin(block, chosen)):
            touches = near = False
            for group in chosen:
                rows_of = np.flatnonzero(block == group)
                # López de Prado's three cases of overlap, in one: the closed intervals share a moment. A row before the
                # block is held against the block's first section, which may be another symbol's.
                if block[row] < group:
                    touches |= end[row] >= time[rows_of].min()
                    near |= end[row] >= sections[max(0, at[rows_of].min() - embargo)]
                else:
                    touches |= bool(((time[rows_of] <= end[row]) & (end[rows_of] >= time[row])).any())
                    beyond = sections[sections > end[rows_of].max()][:embargo]
                    near |= bool(time[row] in beyond)
            kept += [] if touches or near else [row]
            purged, embargoed = purged + touches, embargoed + (near and not touches)
        assert fold.train.tolist() == kept
        assert (fold.counts["purged"], fold.counts["embargoed"]) == (purged, embargoed)


@settings(max_examples=40)
@given(labelled(), st.integers(0, 4), st.booleans())
def test_the_rows_that_stop_training_early_are_the_latest_and_share_no_moment_with_the_others(rows, embargo, forward):
    time, end = rows
    try:
        if forward:
            plain = walk_forward(time, end, folds=3, share=0.4, embargo=embargo)
            made = walk_forward(time, end, folds=3, share=0.4, embargo=embargo, valid=0.2)
        else:
            plain = combinatorial(time, end, groups=4, test_groups=1, embargo=embargo)
            made = combinatorial(time, end, groups=4, test_groups=1, embargo=embargo, valid=0.2)
    except ValueError as error:
        assert "nothing left to learn from" in str(error)  # noqa: PT017
        return
    sections = np.unique(time)
    for whole, fold in zip(plain, made, strict=True):
        account(fold, len(time))
        learned = np.unique(time[whole.train])
        first = learned[-int(np.ceil(0.2 * len(learned)))]
        near = sections[max(0, np.searchsorted(sections, first) - embargo)]
        assert fold.valid.tolist() == [row for row in whole.train if time[row] >= first]
        assert fold.train.tolist() == [row for row in whole.train if time[row] < first and end[row] < min(first, near)]


def test_a_label_that_ends_exactly_at_the_test_start_is_purged_and_one_that_ends_a_moment_earlier_is_not():
    time = np.arange(10)
    end = time.copy()
    end[2], end[3] = 5, 4
    [fold] = walk_forward(time, end, folds=1, share=0.5, embargo=0)
    assert fold.train.tolist() == [0, 1, 3, 4]
    assert fold.counts["purged"] == 1


def test_a_row_that_begins_exactly_where_the_last_tested_label_ends_is_purged():
    time = np.arange(12)
    end = time.copy()
    end[3], end[2] = 6, 7  # the longer label of the earlier row decides
    [fold] = [f for f in combinatorial(time, end, groups=3, test_groups=1, embargo=0) if f.groups == (0,)]
    assert fold.train.tolist() == [8, 9, 10, 11]
    assert fold.counts["purged"] == 4
    [fold] = [f for f in combinatorial(time, end, groups=3, test_groups=1, embargo=2) if f.groups == (0,)]
    assert fold.train.tolist() == [10, 11]
    assert fold.counts["embargoed"] == 2


def test_a_symbol_that_trades_rarely_is_purged_by_the_clock_and_not_by_its_own_rows():
    often, rarely = np.arange(0, 100), np.arange(0, 100, 10)
    time, end = np.concatenate([often, rarely]), np.concatenate([often + 1, rarely + 10])
    [fold] = walk_forward(time, end, folds=1, share=0.2, embargo=0)
    assert time[fold.test].min() == 80
    assert end[fold.train].max() == 79
    # Its label from 70 ends at 80, with the block's first section, ten rows of the other symbol away.
    assert set(rarely[fold.train[fold.train >= 100] - 100]) == {0, 10, 20, 30, 40, 50, 60}


def test_the_look_back_is_never_purged():
    time = np.arange(40)
    folds = combinatorial(time, time, groups=4, test_groups=1, embargo=0)
    assert [fold.counts["purged"] + fold.counts["embargoed"] for fold in folds] == [0, 0, 0, 0]


def test_each_path_of_combinatorial_folds_tests_every_block_once():
    time = np.arange(60)
    folds = combinatorial(time, time + 1, groups=6, test_groups=2, embargo=0)
    tested = [(path, group) for fold, of in zip(folds, paths(folds), strict=True) for group, path in of.items()]
    assert sorted(tested) == [(path, group) for path in range(5) for group in range(6)]  # C(5, 1) paths
    assert all((fold.starts == [10 * group for group in fold.groups]).all() for fold in folds)


@pytest.mark.parametrize(
    ("cut", "said"),
    [
        (lambda t, e: walk_forward(t, e, folds=0, share=0.5, embargo=0), "at least one fold"),
        (lambda t, e: walk_forward(t, e, folds=30, share=0.5, embargo=0), "20 sections are too few for 30 folds"),
        (lambda t, e: walk_forward(t, e, folds=1, share=0.5, embargo=0, expanding=False), "train_sections is None"),
        (lambda t, e: walk_forward(t, e + 40, folds=1, share=0.5, embargo=0), "nothing left.*'purged': 10"),
        (lambda t, e: walk_forward(t, e, folds=1, share=0.9, embargo=0, valid=0.9), "block 1 has nothing left"),
        (lambda t, e: combinatorial(t, e, groups=3, test_groups=3, embargo=0), "at least one group tested and one"),
        (lambda t, e: combinatorial(t, e, groups=30, test_groups=1, embargo=0), "20 sections are too few for 30"),
        (lambda t, e: walk_forward(t, e - 1, folds=1, share=0.5, embargo=0), "20 of 20 labels end before"),
    ],
)
def test_folds_that_cannot_be_cut_are_refused_with_the_numbers(cut, said):
    with pytest.raises(ValueError, match=said):
        cut(np.arange(20), np.arange(20))
