"""Cut labelled rows into train | valid | test in time, so that no label of one part is known in the next.

Purge and embargo follow López de Prado, Advances in Financial Machine Learning, ch. 7; combinatorial folds his ch. 12.
Rows are purged by their label's interval, never by their features' look-back: the past is always known. A label's
interval is closed: one that ends exactly where another part starts touches it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Split:
    """Row numbers of each part, ascending, and the account of every row."""

    train: Rows
    valid: Rows
    test: Rows
    counts: dict[str, int]  # rows = train + valid + test + purged + embargoed
    valid_start: np.generic  # time of the first section of valid, and of test
    test_start: np.generic


def holdout(
    time: npt.NDArray[Any],
    label_end: npt.NDArray[Any],
    *,
    valid: float,
    test: float,
    embargo: int,
) -> Split:
    """Split rows of all symbols at once by the time of their section.

    time: [N] when each row's signal is known; label_end: [N] when its label is known; one clock for both
    (datetime64 or integers). valid, test: shares of the *sections* (distinct times) at the end; embargo: in
    sections.

    A row of an earlier part is *purged* if its label ends at or after the first section of the next part, and
    *embargoed* if it ends within the last `embargo` sections before it. Raises ValueError, with the counts,
    where a part would be empty.
    """
    _check(time, label_end)
    if not (valid > 0 and test > 0 and valid + test < 1 and embargo >= 0):
        raise ValueError(
            f"valid={valid}, test={test}, embargo={embargo}: shares must be above 0 and together below 1, "
            "the embargo 0 sections or more"
        )

    sections = np.unique(time)
    first_test = len(sections) - int(np.ceil(test * len(sections)))
    first_valid = first_test - int(np.ceil(valid * len(sections)))
    if first_valid < 1:
        raise ValueError(f"{len(sections)} sections are too few for valid={valid} and test={test}")

    part = np.searchsorted(sections[[first_valid, first_test]], time, side="right")  # 0 train, 1 valid, 2 test
    purged, embargoed = np.zeros(len(time), bool), np.zeros(len(time), bool)
    for before, first in enumerate((first_valid, first_test)):
        reaches = (part == before) & (label_end >= sections[first])
        near = (part == before) & (label_end >= sections[max(0, first - embargo)])
        purged |= reaches
        embargoed |= near & ~reaches
    kept = [np.flatnonzero((part == number) & ~purged & ~embargoed) for number in range(3)]
    counts = {
        "rows": len(time),
        **dict(zip(("train", "valid", "test"), map(len, kept), strict=True)),
        "purged": int(purged.sum()),
        "embargoed": int(embargoed.sum()),
    }
    if not all(map(len, kept)):
        raise ValueError(
            f"purge and embargo leave an empty part of {len(sections)} sections: {counts}; "
            "use more history or a shorter label"
        )
    train_rows, valid_rows, test_rows = kept
    return Split(train_rows, valid_rows, test_rows, counts, sections[first_valid], sections[first_test])


@dataclass(frozen=True)
class Fold:
    """Row numbers of each part, ascending, and the account of every row.

    train learns, valid (the latest sections of what may be learned from) stops it early, test is predicted. groups: the
    numbers of the blocks of sections that are tested.
    """

    train: Rows
    valid: Rows
    test: Rows
    counts: dict[str, int]  # rows = train + valid + test + purged + embargoed + outside
    groups: tuple[int, ...]
    starts: npt.NDArray[Any]  # time of the first section of each of them


def walk_forward(
    time: npt.NDArray[Any],
    label_end: npt.NDArray[Any],
    *,
    folds: int,
    share: float,
    embargo: int,
    expanding: bool = True,
    train_sections: int | None = None,
    valid: float = 0.0,
) -> list[Fold]:
    """Folds that learn from the past alone. time, label_end: as in `holdout`, of all symbols at once.

    The last `share` of the sections is cut into `folds` blocks of equally many, tested one after the other. A fold
    learns from all sections before its block, or unless `expanding` from the last `train_sections` of them; the
    others are *outside*. Of these rows, one is *purged* if its label ends at or after the block's first section,
    *embargoed* if it ends within the last `embargo` sections before. valid: the share of the training sections,
    the latest, that stops training early, kept apart in the same way. ValueError where a part would be empty.
    """
    _check(time, label_end)
    if not (folds >= 1 and 0 < share < 1 and embargo >= 0 and 0 <= valid < 1):
        raise ValueError(
            f"folds={folds}, share={share}, embargo={embargo}, valid={valid}: at least one fold, a share above 0 and "
            "below 1, an embargo of 0 sections or more, a share for valid below 1"
        )
    if not expanding and (train_sections is None or train_sections < 1):
        raise ValueError(f"train_sections is {train_sections}: rolling folds need at least one section to learn from")
    sections, at = np.unique(time, return_inverse=True)
    tested = int(np.ceil(share * len(sections)))
    if tested < folds or tested >= len(sections):
        raise ValueError(f"{len(sections)} sections are too few for {folds} folds over share={share} of them")
    edges = len(sections) - tested + _edges(tested, folds)
    made = []
    for number in range(folds):
        first = int(edges[number])
        oldest = 0 if expanding or train_sections is None else max(0, first - train_sections)
        pool = (at >= oldest) & (at < first)
        made.append(_fold(sections, at, label_end, edges, (number,), pool, embargo, valid))
    return made


def combinatorial(
    time: npt.NDArray[Any],
    label_end: npt.NDArray[Any],
    *,
    groups: int,
    test_groups: int,
    embargo: int,
    valid: float = 0.0,
) -> list[Fold]:
    """Every choice of `test_groups` out of `groups` blocks of equally many sections; the others are learned from.

    time, label_end, embargo, valid: as in `walk_forward`. A row *after* a tested block is purged if it begins at or
    before the end of the last label tested there, embargoed if it begins within `embargo` sections after that end.
    Each row is tested in C(groups - 1, test_groups - 1) folds: see `paths`.
    """
    _check(time, label_end)
    if not (1 <= test_groups < groups and embargo >= 0 and 0 <= valid < 1):
        raise ValueError(
            f"groups={groups}, test_groups={test_groups}, embargo={embargo}, valid={valid}: at least one group tested "
            "and one learned from, an embargo of 0 sections or more, a share for valid below 1"
        )
    sections, at = np.unique(time, return_inverse=True)
    if len(sections) < groups:
        raise ValueError(f"{len(sections)} sections are too few for {groups} groups")
    edges = _edges(len(sections), groups)
    everything = np.ones(len(time), bool)
    return [
        _fold(sections, at, label_end, edges, chosen, everything, embargo, valid)
        for chosen in combinations(range(groups), test_groups)
    ]


def paths(folds: Sequence[Fold]) -> list[dict[int, int]]:
    """For each fold, the path that each of its groups belongs to: one path tests every group once."""
    seen: dict[int, int] = {}
    found = []
    for fold in folds:
        found.append({group: seen.get(group, 0) for group in fold.groups})
        seen |= {group: path + 1 for group, path in found[-1].items()}
    return found


def _check(time: npt.NDArray[Any], label_end: npt.NDArray[Any]) -> None:
    if len(time) != len(label_end):
        raise ValueError(f"{len(time)} times but {len(label_end)} label ends: one of each per row")
    open_ended = int((~(label_end >= time)).sum())  # NaT compares false
    if open_ended:
        raise ValueError(f"{open_ended} of {len(time)} labels end before their signal, or never: drop those rows")


def _edges(sections: int, blocks: int) -> npt.NDArray[np.intp]:
    """Where blocks of equally many sections (to one) begin, and where the last one ends: [blocks + 1]."""
    return np.arange(blocks + 1) * sections // blocks


def _fold(
    sections: npt.NDArray[Any],
    at: npt.NDArray[np.intp],
    label_end: npt.NDArray[Any],
    edges: npt.NDArray[np.intp],
    groups: tuple[int, ...],
    pool: npt.NDArray[np.bool_],
    embargo: int,
    valid: float,
) -> Fold:
    """Test these blocks, learn from the rest of `pool`. at: the number of each row's section."""
    test, purged, near = (np.zeros(len(at), bool) for _ in range(3))
    for group in groups:
        first, stop = edges[group], edges[group + 1]
        block = (at >= first) & (at < stop)
        before, after = at < first, at >= stop
        test |= block
        purged |= before & (label_end >= sections[first])
        near |= before & (label_end >= sections[max(0, first - embargo)])
        # How many sections have begun when the last label of the block ends.
        begun = int(np.searchsorted(sections, label_end[block].max(), side="right"))
        purged |= after & (at < begun)
        near |= after & (at < begun + embargo)
    pool = pool & ~test
    purged, near = pool & purged, pool & near & ~purged
    train, stopping = pool & ~purged & ~near, np.zeros(len(at), bool)
    if valid and train.any():
        learned = np.unique(at[train])
        first = learned[-int(np.ceil(valid * len(learned)))]
        stopping = train & (at >= first)
        reaches = train & ~stopping & (label_end >= sections[first])
        close = train & ~stopping & (label_end >= sections[max(0, first - embargo)])
        purged, near = purged | reaches, near | (close & ~reaches)
        train = train & ~stopping & ~close & ~reaches
    kept = {"train": train, "valid": stopping, "test": test}
    rows = {part: np.flatnonzero(mask) for part, mask in kept.items()}
    counts = {
        "rows": len(at),
        **{part: len(found) for part, found in rows.items()},
        "purged": int(purged.sum()),
        "embargoed": int(near.sum()),
        "outside": int((~pool & ~test).sum()),
    }
    if not len(rows["train"]) or (valid and not len(rows["valid"])):
        tested = ", ".join(str(group + 1) for group in groups)
        raise ValueError(
            f"the fold that tests block {tested} has nothing left to learn from: {counts}; "
            "use more history, fewer folds or a shorter label"
        )
    return Fold(rows["train"], rows["valid"], rows["test"], counts, groups, sections[edges[list(groups)]])
