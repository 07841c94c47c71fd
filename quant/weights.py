"""Sample weights: labels that share their bars with others count less, and so do old ones."""

import numpy as np
import numpy.typing as npt


def uniqueness(
    symbol: npt.NDArray[np.generic], first: npt.NDArray[np.integer], last: npt.NDArray[np.integer]
) -> npt.NDArray[np.float64]:
    """Average uniqueness of each label: [N], above 0 and at most 1.

    López de Prado, Advances in Financial Machine Learning, ch. 4: the mean, over the slots that a label spans, of one
    over the number of labels of the same symbol that span the slot. first, last: the slots it spans, both included;
    ValueError where one ends before it begins.
    """
    if (last < first).any():
        raise ValueError(f"{int((last < first).sum())} labels end before they begin")
    made = np.empty(len(first))
    _, of = np.unique(symbol, return_inverse=True)
    order = np.argsort(of, kind="stable")
    for rows in np.split(order, np.cumsum(np.bincount(of))[:-1]):
        begin, end = first[rows] - first[rows].min(), last[rows] - first[rows].min() + 1
        size = int(end.max(initial=0))
        concurrent = np.cumsum(np.bincount(begin, minlength=size + 1) - np.bincount(end, minlength=size + 1))[:size]
        shares = np.concatenate([[0.0], np.cumsum(1 / np.maximum(concurrent, 1))])
        made[rows] = (shares[end] - shares[begin]) / (end - begin)
    return made


def recency(time: npt.NDArray[np.datetime64], half_life_days: float) -> npt.NDArray[np.float64]:
    """Half as much for every `half_life_days` that a row is older than the newest: [N], 1 for the newest."""
    days = (time.max() - time) / np.timedelta64(1, "D")
    return 0.5 ** (days / half_life_days)
