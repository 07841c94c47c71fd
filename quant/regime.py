"""Was the market calm or turbulent: said at each section from what was known by then."""

import numpy as np
import numpy.typing as npt
import polars as pl

NAMES = ("calm", "normal", "turbulent")
WARM = 3  # windows of history before a regime is named


def volatility_regime(frame: pl.DataFrame, window: int) -> pl.DataFrame:
    """(time, regime) of every section of (time, last_return) rows, any symbols; sections in order.

    The volatility is the root mean square of the last `window` sections' mean return over symbols, the section's own
    included; the regime is the third of all volatilities seen so far, own included, in which it lies. Null for the
    first WARM windows. Nothing later than a section changes its regime.
    """
    if window < 2:
        raise ValueError(f"a window of {window} sections has no volatility: at least 2")
    market = (
        frame.filter(pl.col("last_return").is_finite())
        .group_by("time")
        .agg(pl.col("last_return").mean())
        .sort("time")
        .with_columns(volatility=(pl.col("last_return") ** 2).rolling_mean(window).sqrt())
    )
    standing = _standing(market["volatility"].to_numpy())
    place = np.minimum((standing * len(NAMES)).astype(int), len(NAMES) - 1)
    known = np.arange(len(market)) >= WARM * window
    named = [NAMES[at] if warm else None for at, warm in zip(place, known, strict=True)]
    return market.select("time", regime=pl.Series(named, dtype=pl.String))


def _standing(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Share of the earlier values that lie below each; NaN counts as never seen."""
    order = np.searchsorted(np.unique(values[np.isfinite(values)]), values)
    tree = np.zeros(len(values) + 2, np.int64)  # Fenwick's: how many of each rank were seen
    found = np.zeros(len(values))
    seen = 0
    for at, value in enumerate(values):
        if not np.isfinite(value):
            continue
        rank, below = int(order[at]), 0
        while rank > 0:
            below += int(tree[rank])
            rank &= rank - 1
        found[at] = below / seen if seen else 0.0
        rank = int(order[at]) + 1
        while rank < len(tree):
            tree[rank] += 1
            rank += rank & -rank
        seen += 1
    return found
