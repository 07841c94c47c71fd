"""Cut labelled rows into train | valid | test in time, so that no label of one part is known in the next.

Purge and embargo follow López de Prado, Advances in Financial Machine Learning, ch. 7.
Rows are purged by their label's interval, never by their features' look-back: the past is always known.
"""

from dataclasses import dataclass
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
    if len(time) != len(label_end):
        raise ValueError(f"{len(time)} times but {len(label_end)} label ends: one of each per row")
    open_ended = int((~(label_end >= time)).sum())  # NaT compares false
    if open_ended:
        raise ValueError(f"{open_ended} of {len(time)} labels end before their signal, or never: drop those rows")
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
