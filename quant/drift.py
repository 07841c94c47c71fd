"""Drift of columns against a reference: Evidently's statistics, judged by what windows inside the reference reach.

A p-value assumes independent rows, which bars are not, and so it always fires. Here every window of the reference is
held against the rest of it, and so is the present one. Each column's statistic is standardised, in logs, by those of
the windows; the whole drifts when more than a share of the columns exceed one level, which is set so that windows of
the reference itself do so at a stated rate.

Windows that overlap, or lie in one spell of a market, are no independent witnesses. The level is therefore counted in
windows that do not overlap: with b of them in the reference, of which a may exceed it, a window to come does so with
probability (a + 1) / (b + 1), as a new draw among b exchangeable ones. The largest such rate up to the one asked for is
used; 1 / (b + 1) is the lowest that the reference can promise, and is used, and told, where a lower one is asked for.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from quant.distances import Distance, distance
from quant.false_alarms import rate_of

Floats = npt.NDArray[np.float64]

ENOUGH = 2  # windows that a column must have values in, and that must fit the reference


@dataclass(frozen=True)
class Calibration:
    """What windows inside a reference reach against the rest of it."""

    columns: tuple[str, ...]
    statistics: Floats  # [windows, columns]; NaN: no values in that window, or none in the rest
    independent: int  # windows among them that do not overlap
    sessions: int  # of the reference

    @property
    def windows(self) -> int:
        return len(self.statistics)


@dataclass(frozen=True)
class Column:
    """One column's statistic against its threshold.

    excess: how many standard deviations of its log the statistic lies above what windows of the reference reach.
    """

    name: str
    statistic: float
    threshold: float
    excess: float
    drifted: bool


@dataclass(frozen=True)
class Compared:
    """Statistics of two frames, and how many rows of how many were compared."""

    statistics: Floats  # [columns]; inf: no values now; NaN: none in the reference
    current_rows: tuple[int, int]
    reference_rows: tuple[int, int]


@dataclass(frozen=True)
class Drift:
    """What was found, and how surely."""

    columns: list[Column]
    skipped: dict[str, str]  # columns that could not be compared, and why
    share: float  # of the compared columns that drifted
    drifted: bool
    reached: float  # the excess that more than the allowed share of the columns have
    level: float  # beyond which that is drift
    rate: float  # of false alarms, a window


def calibrate(
    reference: pl.DataFrame,
    columns: Sequence[str],
    *,
    window_sessions: int,
    windows: int,
    method: str,
    sample_rows: int,
    seed: int = 0,
) -> Calibration:
    """Statistics of windows inside a reference: numeric `columns`, and `session`, a date.

    Up to `windows` windows of `window_sessions` sessions, evenly spread, are each compared with the rest. `method` is a
    distance of Evidently's (wasserstein, jensenshannon, psi, kl_div, hellinger, ed). At most `sample_rows` rows of
    either side are compared, drawn with `seed`. ValueError if the reference holds fewer than two windows.
    """
    measure = distance(method)
    then = _Table.of(reference, columns)
    sessions = np.unique(then.session)
    spare = len(sessions) - window_sessions
    if spare < window_sessions:
        raise ValueError(
            f"drift: the reference has {len(sessions)} sessions, too few for two windows of "
            f"{window_sessions}: lower drift.window_sessions or train on more sessions"
        )
    sampled = then.sample(sample_rows, seed)
    firsts = np.unique(np.linspace(0, spare, windows).round().astype(int))
    found = np.empty((len(firsts), len(columns)))
    for row, first in enumerate(firsts):
        ends = sessions[first], sessions[first + window_sessions - 1]
        now = then.within(*ends).sample(sample_rows, seed)
        found[row] = _compare(measure, now, sampled.without(*ends))
    found[np.isinf(found)] = np.nan  # a window without values says nothing of how far one with values may go
    return Calibration(tuple(columns), found, min(len(sessions) // window_sessions, len(firsts)), len(sessions))


def compare(
    current: pl.DataFrame,
    reference: pl.DataFrame,
    columns: Sequence[str],
    *,
    method: str,
    sample_rows: int,
    seed: int = 0,
) -> Compared:
    """The statistics of numeric columns of two frames with `session`, sampled as `calibrate` samples."""
    now, then = _Table.of(current, columns), _Table.of(reference, columns)
    few, some = now.sample(sample_rows, seed), then.sample(sample_rows, seed)
    found = _compare(distance(method), few, some)
    return Compared(found, (len(few.session), len(now.session)), (len(some.session), len(then.session)))


def judge(compared: Compared, calibration: Calibration, *, rate: float, share: float) -> Drift:
    """Hold what was compared, the columns of a calibration, against it.

    The whole drifts when more than `share` of the columns exceed the level that `rate` sets. A column without values
    now, which had some in the reference, exceeds any level. ValueError if no column can be compared.
    """
    found = compared.statistics
    skipped: dict[str, str] = {}
    for name, value, reached in zip(calibration.columns, found, calibration.statistics.T, strict=True):
        if math.isnan(value):
            skipped[name] = "it had no values in the reference"
        elif np.isfinite(reached).sum() < ENOUGH:
            skipped[name] = "it has no threshold: too few calibration windows held values"
    kept = np.array([name not in skipped for name in calibration.columns])
    if not kept.any():
        raise ValueError(f"drift: none of {len(kept)} columns can be compared: {skipped}")
    inside = calibration.statistics[:, kept]
    scale = _Scale.of(inside)
    promised, exceed = rate_of(calibration.independent, rate)
    over = int(exceed * len(inside) / calibration.independent)
    level = float(np.sort(scale.whole(inside, share))[len(inside) - 1 - over])
    reached = float(scale.whole(found[None, kept], share)[0])
    names = [name for name in calibration.columns if name not in skipped]
    columns = [
        Column(name, float(value), float(edge), float(excess), bool(excess > level))
        for name, value, edge, excess in zip(
            names, found[kept], scale.thresholds(level), scale.excess(found[kept]), strict=True
        )
    ]
    drifted = sum(column.drifted for column in columns)
    return Drift(
        columns=columns,
        skipped=skipped,
        share=drifted / len(columns),
        drifted=reached > level,
        reached=reached,
        level=level,
        rate=promised,
    )


@dataclass(frozen=True)
class _Scale:
    """How the columns' statistics are made comparable: by mean and deviation of their logs over the windows.

    A column whose statistic never varies over the windows is beyond any level as soon as it exceeds its highest.
    """

    floor: Floats  # [columns] the least positive statistic: zeros count as that
    mean: Floats
    deviation: Floats
    highest: Floats

    @classmethod
    def of(cls, statistics: Floats) -> "_Scale":
        finite = np.where(np.isfinite(statistics), statistics, np.nan)
        floor = np.nan_to_num(np.nanmin(np.where(finite > 0, finite, np.inf), axis=0), posinf=1.0)
        logs = np.log(np.maximum(finite, floor))
        varies = np.nanmax(finite, axis=0) > np.nanmin(finite, axis=0)
        deviation = np.where(varies, np.nanstd(logs, axis=0, ddof=1), 0.0)
        return cls(floor, np.nanmean(logs, axis=0), deviation, np.nanmax(finite, axis=0))

    def excess(self, statistics: Floats) -> Floats:
        """In standard deviations; ±inf where a column never varied, inf for inf, -inf for NaN."""
        with np.errstate(divide="ignore", invalid="ignore"):
            varied = (np.log(np.maximum(statistics, self.floor)) - self.mean) / self.deviation
        fixed = np.where(statistics > self.highest, np.inf, -np.inf)
        found: Floats = np.where(np.isinf(statistics), np.inf, np.where(self.deviation > 0, varied, fixed))
        return np.where(np.isnan(statistics), -np.inf, found)

    def whole(self, statistics: Floats, share: float) -> Floats:
        """Of each window [n, columns], the excess that more than `share` of the columns have that it has values of."""
        most = np.floor(share * (~np.isnan(statistics)).sum(axis=1) + 1e-9).astype(int)  # columns that may
        ordered = np.sort(self.excess(statistics), axis=1)
        found: Floats = np.take_along_axis(ordered, -1 - most[:, None], axis=1)[:, 0]
        return found

    def thresholds(self, level: float) -> Floats:
        """The statistics at a level."""
        with np.errstate(invalid="ignore"):  # an infinite level times no deviation
            varied = np.exp(self.mean + self.deviation * level)
        return np.where(self.deviation > 0, varied, self.highest)


@dataclass(frozen=True)
class _Table:
    """values: float64 [N, columns]; session: dates [N]."""

    values: Floats
    session: npt.NDArray[np.datetime64]

    @classmethod
    def of(cls, frame: pl.DataFrame, columns: Sequence[str]) -> "_Table":
        values = frame.select(pl.col(columns).cast(pl.Float64)).to_numpy()
        return cls(values, frame["session"].to_numpy())

    def sample(self, rows: int, seed: int) -> "_Table":
        if len(self.session) <= rows:
            return self
        chosen = np.sort(np.random.default_rng(seed).choice(len(self.session), rows, replace=False))
        return _Table(self.values[chosen], self.session[chosen])

    def within(self, first: np.datetime64, last: np.datetime64) -> "_Table":
        return self._where((self.session >= first) & (self.session <= last))

    def without(self, first: np.datetime64, last: np.datetime64) -> "_Table":
        return self._where((self.session < first) | (self.session > last))

    def _where(self, kept: npt.NDArray[np.bool_]) -> "_Table":
        return _Table(self.values[kept], self.session[kept])


def _compare(measure: Distance, now: _Table, then: _Table) -> Floats:
    """The statistic of each column; inf: no values now, NaN: none in the reference."""
    found = np.empty(now.values.shape[1])
    for at, (one, other) in enumerate(zip(now.values.T, then.values.T, strict=True)):
        one, other = one[np.isfinite(one)], other[np.isfinite(other)]
        found[at] = math.nan if not len(other) else math.inf if not len(one) else measure(one, other)
    return found
