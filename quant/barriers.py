"""Triple-barrier labels: the return of a position that ends at a profit, at a loss, or when its time is up.

López de Prado, Advances in Financial Machine Learning, ch. 3. On bars: the path between two closes is known by its
high and low only, so which of two barriers inside one bar came first is a rule, not a fact.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]
Entry = Literal["next_open", "this_close"]
Tie = Literal["loss", "profit"]


@dataclass(frozen=True)
class Touched:
    """Of each slot and symbol [T, S]; where there is no label, value is NaN and the others are 0."""

    value: npt.NDArray[np.float64]  # return from the entry to the exit
    ahead: npt.NDArray[np.int32]  # slots from the signal's bar to the exit's
    side: npt.NDArray[np.int8]  # 1 profit, -1 loss, 0 time


def triple_barrier(
    open: Floats,
    high: Floats,
    low: Floats,
    close: Floats,
    width: Floats,
    *,
    profit: float | None,
    loss: float | None,
    bars: int,
    entry: Entry = "next_open",
    tie: Tie = "loss",
) -> Touched:
    """Label the bar of each slot by what happens in the `bars` slots after it.

    open, high, low, close: prices [T, S], NaN = no bar; width: the unit of the barriers as a share of the price, known
    at the slot's close; profit, loss: barriers in that unit above and below the entry price (None: no such barrier);
    entry: at the next bar's open, or at this bar's close.

    A bar that opens at or beyond a barrier ends the position at its open. Else, one whose high or low reaches a barrier
    ends it at the barrier; where both are reached, `tie` says which. Else the position ends at the close of the last
    of the `bars`. A slot without a bar touches nothing. There is no label without an entry price or a width above 0,
    without a close where the time is up, nor where the panel ends before the time is up, touched or not: the touched
    ones alone would be the volatile ones.
    """
    slots = len(close)
    start = _ahead(open, 1) if entry == "next_open" else close.astype(np.float64)
    wide = np.where(width > 0, width, np.nan).astype(np.float64)
    upper = np.full(close.shape, np.inf) if profit is None else start * (1 + profit * wide)
    lower = np.full(close.shape, -np.inf) if loss is None else start * (1 - loss * wide)
    live = np.isfinite(start * wide)
    live[max(0, slots - bars) :] = False
    last = np.full(close.shape, np.nan)
    ahead, side = np.zeros(close.shape, np.int32), np.zeros(close.shape, np.int8)
    labelled = live.copy()
    for step in range(1, bars + 1):
        if not live.any():
            break
        opened, highest, lowest = (_ahead(prices, step) for prices in (open, high, low))
        gap_up, gap_down = opened >= upper, opened <= lower
        up, down = highest >= upper, lowest <= lower
        won = gap_up | (up & ~gap_down & (~down | (tie == "profit")))
        lost = (gap_down | down) & ~won
        for hit, barrier, gap, sign in ((won, upper, gap_up, 1), (lost, lower, gap_down, -1)):
            new = live & hit
            last[new] = np.where(gap, opened, barrier)[new]
            ahead[new], side[new] = step, sign
            live &= ~new
    ended = _ahead(close, bars)
    last[live], ahead[live] = ended[live], bars
    value = np.where(labelled, last, np.nan) / start - 1
    none = ~np.isfinite(value)
    value[none], ahead[none], side[none] = np.nan, 0, 0
    return Touched(value, ahead, side)


def _ahead(prices: Floats, slots: int) -> npt.NDArray[np.float64]:
    """The prices of `slots` later, NaN beyond the end."""
    found = np.full(prices.shape, np.nan)
    found[: max(0, len(prices) - slots)] = prices[slots:]
    return found
