"""What predictions would have earned: a book of overlapping tranches, net of costs.

At each section one tranche of 1/h of the capital trades into its weights and holds them for the label's h sections.
So h tranches are open at a time, and each label's return is earned once, on the capital it had; it is booked at the
section that opened it. Capital is constant: nothing is reinvested.

A tranche earns from its label's entry to its end and nothing in between two labels: what ends is set off against what
begins only where both trade at the same price, or, in one session, at prices next to each other. A position carried
from a close to the next session's open would earn a gap that no label has, so it is sold and bought anew, at full cost.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from quant.sharpe import sharpe

Floats = npt.NDArray[np.float64]
Weighting = Literal["rank", "deciles", "proportional"]
SetOff = Literal["always", "in session", "never"]


@dataclass(frozen=True)
class Terms:
    """How predictions become positions, and what trading them costs."""

    holding: int  # sections from a signal to the end of its label
    cost_bps: float  # basis points of what is traded, a side
    weighting: Weighting = "rank"
    overnight: bool = True  # False: no position is held from one session into the next
    sets_off: SetOff = "always"  # where the end of one tranche meets the beginning of the next, see above

    def __post_init__(self) -> None:
        if self.holding < 1:
            raise ValueError(f"holding is {self.holding}: an outcome lies at least one section ahead")


@dataclass(frozen=True)
class Book:
    """A book by section, [T]: shares of the capital."""

    time: npt.NDArray[np.datetime64]
    gross: Floats  # earned before costs
    net: Floats
    traded: Floats  # bought and sold
    exposure: Floats  # long plus short, all open tranches together
    overlap: int  # sections a return shares its holdings with
    per_year: float  # sections a year

    def equity(self) -> Floats:
        """What has been earned up to each section, net."""
        return np.cumsum(self.net)

    def drawdown(self) -> Floats:
        """How far the equity lies below its highest point so far, 0 or above."""
        equity = self.equity()
        return np.maximum(np.maximum.accumulate(equity), 0.0) - equity

    def summary(self, taken: npt.NDArray[np.bool_] | slice = slice(None)) -> dict[str, Any]:
        """Annualised figures of all sections or of those taken; NaN where nothing was held."""
        net = self.net[taken]
        found = sharpe(net, self.overlap)
        year = math.sqrt(self.per_year)
        if not len(net):
            return {"annual_return": np.nan, "sharpe": np.nan, "sharpe_error": np.nan, "sections": 0}
        return {
            "annual_return": float(net.mean() * self.per_year),
            "annual_return_before_costs": float(self.gross[taken].mean() * self.per_year),
            "sharpe": found.ratio * year,
            "sharpe_error": found.error * year,
            "sharpe_before_costs": sharpe(self.gross[taken], self.overlap).ratio * year,
            "skew": found.skew,
            "kurtosis": found.kurtosis,
            "max_drawdown": float(self.drawdown()[taken].max()),
            "turnover": float(self.traded[taken].mean()),
            "exposure": float(self.exposure[taken].mean()),
            "invested": float((self.exposure[taken] > 0).mean()),  # share of sections with any position
            "sections": len(net),
        }


def book(frame: pl.DataFrame, prediction: str, terms: Terms) -> Book:
    """Trade on `prediction`.

    frame: one row per (`time`, `symbol`), `outcome` (return over the next `holding` sections), the prediction; where
    nothing is held overnight also `crosses` (the label spans a session's end), where tranches are set off in session
    `closes` (the section is the last of its session). A missing return earns nothing. With one symbol there is no
    section to be neutral in: the book is long or short of it, by the prediction's sign. ValueError where a key comes
    twice or a column is absent.
    """
    needed = ["time", "symbol", "outcome", prediction, *_flags(terms)]
    if lacking := [name for name in needed if name not in frame.columns]:
        raise ValueError(f"the frame lacks {', '.join(lacking)}; it has {', '.join(frame.columns)}")
    times, symbols = frame["time"].unique().sort(), frame["symbol"].unique().sort()
    row, column = (keys.search_sorted(frame[keys.name]).to_numpy() for keys in (times, symbols))
    if len(np.unique(row * len(symbols) + column)) < frame.height:
        raise ValueError("a symbol comes twice at one time: score each path of combinatorial folds apart")
    weights, outcome = np.zeros((2, len(times), len(symbols)))
    weights[row, column] = weigh(frame, prediction, terms.weighting).to_numpy()
    outcome[row, column] = frame["outcome"].fill_null(0).fill_nan(0).to_numpy()
    if not terms.overnight:
        weights[row[frame["crosses"].to_numpy()], column[frame["crosses"].to_numpy()]] = 0.0
    h = terms.holding
    before = np.vstack([np.zeros_like(weights[:h]), weights[:-h]])[: len(weights)]
    traded = np.abs(weights - before).sum(axis=1)
    if terms.sets_off != "always":
        apart = slice(None) if terms.sets_off == "never" else row[frame["closes"].to_numpy()]
        traded[apart] = np.abs(weights[apart]).sum(axis=1) + np.abs(before[apart]).sum(axis=1)
    gross = (weights * outcome).sum(axis=1) / h
    return Book(
        times.to_numpy(),
        gross,
        gross - traded * terms.cost_bps / 1e4 / h,
        traded / h,
        np.abs(np.cumsum(weights - before, axis=0)).sum(axis=1).round(12) / h,
        h - 1,
        sections_per_year(times),
    )


def _flags(terms: Terms) -> list[str]:
    """The columns of truth values that these terms need."""
    return [*([] if terms.overnight else ["crosses"]), *(["closes"] if terms.sets_off == "in session" else [])]


def weigh(frame: pl.DataFrame, prediction: str, weighting: Weighting = "rank") -> pl.Series:
    """Weights within each section: they sum to 0 and their sizes to 1, or are all 0 where predictions are alike.

    rank: by the prediction's rank, ties shared; deciles: the highest tenth long and the lowest short, each name
    alike (at least one a side; ties by the order of rows); proportional: by the distance from the section's mean.
    Where no section has two symbols: 1, 0 or -1 by sign, or, proportional, the prediction by the mean size of those
    made so far, at most 1.
    """
    value = pl.col(prediction).fill_nan(None)
    if frame["symbol"].n_unique() < 2:
        return _alone(frame, prediction, weighting)
    if weighting == "deciles":
        place = value.rank("ordinal")
        tenth = (value.count() // 10).clip(1, None)
        sides = (place > value.count() - tenth).cast(pl.Float64) - (place <= tenth).cast(pl.Float64)
        centred = pl.when(value.max() > value.min()).then(sides).otherwise(0.0)
    else:
        placed = value.rank("average") if weighting == "rank" else value
        centred = placed - placed.mean()
    size = centred.abs().sum()
    weight = pl.when(size > 0).then(centred / size).otherwise(0.0).fill_null(0.0)
    return frame.select(weight.over("time").alias("weight"))["weight"]


def _alone(frame: pl.DataFrame, prediction: str, weighting: Weighting) -> pl.Series:
    """Weights of a single symbol in the frame's order of rows."""
    order = frame["time"].arg_sort().to_numpy()
    values = np.nan_to_num(frame[prediction].cast(pl.Float64).fill_null(0.0).to_numpy()[order])
    if weighting == "proportional":
        made = np.cumsum(values != 0)
        typical = np.cumsum(np.abs(values)) / np.maximum(made, 1)
        values = np.clip(np.divide(values, typical, out=np.zeros_like(values), where=typical > 0), -1, 1)
    else:
        values = np.sign(values)
    weights = np.empty(len(values))
    weights[order] = values
    return pl.Series("weight", weights)


def sections_per_year(times: pl.Series) -> float:
    if len(times) < 2:
        return np.nan
    seconds = (times[-1] - times[0]).total_seconds()
    return (len(times) - 1) * 365.25 * 86400 / seconds
