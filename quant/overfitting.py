"""How likely it is that the best of many trials is best by luck alone.

Bailey, Borwein, López de Prado and Zhu (2015), "The Probability of Backtest Overfitting": combinatorially symmetric
cross-validation (CSCV).
"""

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
BLOCKS = 16  # as in the paper: 12,870 ways to halve the sample


@dataclass(frozen=True)
class Overfitting:
    """What CSCV found."""

    probability: float  # share of the splits in which the best trial inside is at or below the median outside
    logits: Floats  # [splits]: log(w / (1 - w)) of its relative rank w outside
    loss: float  # share of the splits in which the best trial inside loses outside
    trials: int
    blocks: int


def overfitting(returns: Floats, blocks: int = BLOCKS) -> Overfitting:
    """CSCV on the trials' returns [sections, trials], by their Sharpe ratios.

    The sections are cut into `blocks` runs of equal length (the first few sections are left out where it does not go
    up); each half of the blocks chooses a trial that is then judged on the other half. Trials that tie share their
    rank. ValueError for fewer than two trials, an odd number of blocks, or blocks shorter than two sections.
    """
    sections, trials = returns.shape
    if trials < 2:
        raise ValueError(f"{trials} trials: nothing was chosen, so nothing can be chosen by luck")
    if blocks < 2 or blocks % 2:
        raise ValueError(f"{blocks} blocks cannot be halved: an even number, 16 in the paper")
    length = sections // blocks
    if length < 2:
        raise ValueError(f"{sections} sections are too few for {blocks} blocks of at least 2")
    if not np.isfinite(returns).all():
        raise ValueError("the trials' returns hold values that are not finite: leave out sections a trial lacks")
    cut = returns[sections - length * blocks :].reshape(blocks, length, trials)
    total, square = cut.sum(axis=1), (cut**2).sum(axis=1)  # [blocks, trials]
    chosen = list(combinations(range(blocks), blocks // 2))
    halves = np.zeros((len(chosen), blocks))
    halves[np.arange(len(chosen))[:, None], np.array(chosen)] = 1.0
    inside = _ratios(halves @ total, halves @ square, length * blocks // 2)
    outside = _ratios((1 - halves) @ total, (1 - halves) @ square, length * blocks // 2)
    best = inside.argmax(axis=1)
    judged = outside[np.arange(len(best)), best][:, None]
    rank = (outside < judged).sum(axis=1) + ((outside == judged).sum(axis=1) + 1) / 2
    relative = rank / (trials + 1)
    logits = np.log(relative / (1 - relative))
    return Overfitting(float((logits <= 0).mean()), logits, float((judged < 0).mean()), trials, blocks)


def _ratios(total: Floats, square: Floats, count: int) -> Floats:
    """Sharpe ratios of samples given their sums; 0 where nothing moves."""
    mean = total / count
    deviation = np.sqrt(np.maximum(square / count - mean**2, 0))
    return np.divide(mean, deviation, out=np.zeros_like(mean), where=deviation > 0)
