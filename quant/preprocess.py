"""What happens to factors before a model reads them: learned from its training rows, done alike to all others.

Trees need none of it: missing stays missing, and only the order of values matters. It is there to hold a model back:
fewer factors, and no bin spent on one wild bar.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from quant.folds import Rows

BLOCK = 65_536  # rows changed at once


@dataclass(frozen=True)
class Steps:
    """What to do, in this order. Each is off by default.

    coverage: leave out factors that fewer of the training rows have; best: of the others, keep so many, those whose
    rank IC with the label is farthest from 0; winsorize: pull values to the quantiles of this share and of one less
    it; impute: missing values become the median; standardize: subtract the mean, divide by the deviation.
    """

    coverage: float | None = None
    best: int | None = None
    winsorize: float | None = None
    impute: bool = False
    standardize: bool = False

    @property
    def any(self) -> bool:
        """Whether anything is to be done."""
        return self != Steps()


@dataclass(frozen=True)
class Preprocess:
    """The steps as training rows made them: float32 [F] each; None where a step is off.

    kept: 1 or 0, a factor left out is missing in every row; low, high; fill; mean, scale: x becomes (x - mean) * scale.
    """

    kept: np.ndarray | None = None
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    fill: np.ndarray | None = None
    mean: np.ndarray | None = None
    scale: np.ndarray | None = None

    def apply(self, X: np.ndarray) -> np.ndarray:
        """The factors as the model reads them: float32 [N, F] of float32 [N, F], a row's values from that row alone."""
        if not any(part is not None for part in vars(self).values()):
            return X
        made = np.empty_like(X, order="C")
        for start in range(0, len(X), BLOCK):
            block = X[start : start + BLOCK]
            if self.low is not None and self.high is not None:
                block = np.clip(block, self.low, self.high)
            if self.fill is not None:
                block = np.where(np.isnan(block), self.fill, block)
            if self.mean is not None and self.scale is not None:
                block = (block - self.mean) * self.scale
            if self.kept is not None:
                block = np.where(self.kept > 0, block, np.float32(np.nan))
            made[start : start + BLOCK] = block
        return made

    def to_dict(self) -> dict[str, list[float | None]]:
        """As JSON holds it: the steps that are on, what is not finite as null."""
        return {
            name: [float(value) if np.isfinite(value) else None for value in part]
            for name, part in vars(self).items()
            if part is not None
        }

    @classmethod
    def from_dict(cls, told: Mapping[str, Sequence[float | None]]) -> "Preprocess":
        """Read what `to_dict` made, to the bit."""
        return cls(
            **{
                name: np.array([UNBOUNDED.get(name, np.nan) if value is None else value for value in part], np.float32)
                for name, part in told.items()
            }
        )


UNBOUNDED = {"low": -np.inf, "high": np.inf}  # of a factor without a value in training


def learned(X: np.ndarray, y: np.ndarray, section: np.ndarray | None, rows: Rows, steps: Steps) -> Preprocess:
    """What the training rows `rows` of X float32 [N, F] make of the steps; no other row is looked at.

    y: [N], what is learned; section: [N], for the rank IC (None: all rows are one section).
    """
    width = X.shape[1]
    made: dict[str, Any] = {}
    finite = np.array([np.isfinite(X[rows, column]).mean() for column in range(width)])
    kept = finite >= (steps.coverage or 0.0)
    if steps.best is not None:
        of = np.zeros(len(rows), int) if section is None else section[rows]
        strength = np.array(
            [abs(rank_ic(X[rows, column], y[rows], of)) if kept[column] else -1 for column in range(width)]
        )
        first = np.argsort(-strength, kind="stable")[: steps.best]
        kept &= np.isin(np.arange(width), first)
    if steps.coverage is not None or steps.best is not None:
        made["kept"] = kept.astype(np.float32)
    numbers = {name: np.full(width, np.nan, np.float32) for name in ("low", "high", "fill", "mean", "scale")}
    for column in np.flatnonzero(kept):
        x = X[rows, column]
        x = x[np.isfinite(x)].astype(np.float64)
        if not len(x):
            continue
        if steps.winsorize is not None:
            low, high = np.quantile(x, [steps.winsorize, 1 - steps.winsorize])
            numbers["low"][column], numbers["high"][column] = low, high
            x = np.clip(x, low, high)
        numbers["fill"][column] = np.median(x)
        deviation = x.std()
        numbers["mean"][column], numbers["scale"][column] = x.mean(), 1 / deviation if deviation > 0 else 1.0
    if steps.winsorize is not None:
        made |= {name: np.where(np.isnan(numbers[name]), UNBOUNDED[name], numbers[name]) for name in UNBOUNDED}
    made |= {"fill": numbers["fill"]} if steps.impute else {}
    if steps.standardize:
        made |= {"mean": np.nan_to_num(numbers["mean"]), "scale": np.nan_to_num(numbers["scale"], nan=1.0)}
    return Preprocess(**{name: part.astype(np.float32) for name, part in made.items()})


def rank_ic(x: np.ndarray, y: np.ndarray, section: np.ndarray) -> float:
    """Mean over sections of the rank correlation of x and y [N], where both are finite; 0 where there is none."""
    both = np.isfinite(x) & np.isfinite(y)
    x, y, section = x[both], y[both], section[both]
    if not len(x):
        return 0.0
    _, of, size = np.unique(section, return_inverse=True, return_counts=True)
    a, b = _ranks(x, of) - (size[of] + 1) / 2, _ranks(y, of) - (size[of] + 1) / 2
    products = [np.bincount(of, weights=product) for product in (a * b, a * a, b * b)]
    with np.errstate(divide="ignore", invalid="ignore"):
        found = products[0] / np.sqrt(products[1] * products[2])
    found = found[np.isfinite(found)]
    return float(found.mean()) if len(found) else 0.0


def _ranks(values: np.ndarray, of: np.ndarray) -> np.ndarray:
    """Rank of each value within its section, ties averaged: 1 is the lowest. of: number of each value's section."""
    order = np.lexsort((values, of))
    sorted_of, sorted_values = of[order], values[order]
    new_section = np.concatenate([[True], sorted_of[1:] != sorted_of[:-1]])
    new_value = new_section | np.concatenate([[True], sorted_values[1:] != sorted_values[:-1]])
    run = np.cumsum(new_value) - 1
    starts = np.flatnonzero(new_value)
    stops = np.append(starts[1:], len(values))
    middle = (starts + stops - 1) / 2
    section_start = np.maximum.accumulate(np.where(new_section, np.arange(len(values)), 0))
    made = np.empty(len(values))
    made[order] = middle[run] - section_start + 1
    return made
