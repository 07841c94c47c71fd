"""Drift of columns against a reference: Evidently's statistics, thresholds that the reference itself sets.

A p-value assumes independent rows, which bars are not, and so it always fires. Here a column drifts when its
statistic exceeds what windows of the same length inside the reference reach against the rest of it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl


@dataclass(frozen=True)
class Column:
    """One column's statistic against its threshold; it drifts from the threshold on."""

    name: str
    statistic: float
    threshold: float
    drifted: bool


@dataclass(frozen=True)
class Drift:
    """A report: a self-contained HTML page, and the numbers that it was made of."""

    html: str
    columns: list[Column]
    skipped: dict[str, str]  # columns that could not be compared, and why
    share: float  # of the compared columns that drifted
    drifted: bool
    current_rows: tuple[int, int]  # compared, of
    reference_rows: tuple[int, int]


def report(
    current: pl.DataFrame,
    reference: pl.DataFrame,
    columns: Sequence[str],
    *,
    method: str,
    thresholds: Mapping[str, float],
    share: float,
    sample_rows: int,
    max_columns: int,
    seed: int = 0,
) -> Drift:
    """Compare the first `max_columns` of numeric `columns` (most important first) of two frames.

    `method` is a distance of Evidently's (wasserstein, jensenshannon, psi, kl_div, hellinger, ed) and
    `thresholds` are those of `calibrate`. At most `sample_rows` rows of either frame are compared, drawn with
    `seed`. The whole drifts when more than `share` of the compared columns do. ValueError if no column can be
    compared.
    """
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    now, then = _sample(current, sample_rows, seed), _sample(reference, sample_rows, seed)
    compared: list[str] = []
    skipped: dict[str, str] = {}
    for name in columns:
        if len(compared) == max_columns:
            skipped[name] = f"only the first {max_columns} columns are compared"
        elif name not in thresholds:
            skipped[name] = "it has no threshold: too few calibration windows held values"
        elif _values(now, name).len() == 0 or _values(then, name).len() == 0:
            skipped[name] = "it has no values now, or had none in the reference"
        else:
            compared.append(name)
    if not compared:
        raise ValueError(f"drift: none of {len(columns)} columns can be compared: {skipped}")
    definition = DataDefinition(numerical_columns=compared)
    preset = DataDriftPreset(
        columns=compared,
        method=method,
        per_column_threshold={name: thresholds[name] for name in compared},
        drift_share=float(np.nextafter(share, np.inf)),  # Evidently's is reached, ours is exceeded
    )
    with np.errstate(invalid="ignore"):  # it also correlates the columns, of which one may be constant
        snapshot = Report([preset]).run(
            Dataset.from_pandas(_pandas(now, compared), definition),
            Dataset.from_pandas(_pandas(then, compared), definition),
        )
    statistics = {
        metric["config"]["column"]: float(metric["value"])
        for metric in snapshot.dict()["metrics"]
        if "column" in metric["config"]
    }
    found = [
        Column(name, statistics[name], thresholds[name], statistics[name] >= thresholds[name]) for name in compared
    ]
    reached = sum(column.drifted for column in found) / len(found)
    return Drift(
        html=snapshot.get_html_str(as_iframe=False),
        columns=found,
        skipped=skipped,
        share=reached,
        drifted=reached > share,
        current_rows=(now.height, current.height),
        reference_rows=(then.height, reference.height),
    )


def calibrate(
    reference: pl.DataFrame,
    columns: Sequence[str],
    *,
    session: str,
    window_sessions: int,
    windows: int,
    quantile: float,
    method: str,
    sample_rows: int,
    seed: int = 0,
) -> dict[str, float]:
    """Thresholds by column: just above the `quantile` of what windows inside the reference reach.

    Up to `windows` windows of `window_sessions` sessions (values of column `session`), evenly spread, are
    each compared with the rest of the reference, sampled as `report` samples. A column with values in fewer
    than two windows gets no threshold. ValueError if the reference holds fewer than two windows.
    """
    from evidently.legacy.calculations.stattests.registry import get_registered_stattest
    from evidently.legacy.core import ColumnType

    sessions = reference[session].unique().sort()
    spare = sessions.len() - window_sessions
    if spare < window_sessions:
        raise ValueError(
            f"drift: the reference has {sessions.len()} sessions, too few for two windows of "
            f"{window_sessions}: lower drift.window_sessions or train on more sessions"
        )
    measure = get_registered_stattest(method, ColumnType.Numerical)
    statistics: dict[str, list[float]] = {name: [] for name in columns}
    for first in np.unique(np.linspace(0, spare, windows).round().astype(int)):
        inside = pl.col(session).is_between(sessions[int(first)], sessions[int(first) + window_sessions - 1])
        now = _sample(reference.filter(inside), sample_rows, seed)
        then = _sample(reference.filter(~inside), sample_rows, seed)
        for name in columns:
            one, other = _values(then, name), _values(now, name)
            if one.len() and other.len():
                result = measure(one.to_pandas(), other.to_pandas(), ColumnType.Numerical, None)
                statistics[name].append(float(result.drift_score))
    # The next number up: what training itself reached is no drift, even where that is 0.
    return {
        name: float(np.nextafter(np.quantile(reached, quantile), np.inf))
        for name, reached in statistics.items()
        if len(reached) > 1
    }


def _sample(frame: pl.DataFrame, rows: int, seed: int) -> pl.DataFrame:
    return frame.sample(rows, seed=seed) if frame.height > rows else frame


def _values(frame: pl.DataFrame, name: str) -> pl.Series:
    """The finite values of a column, in float64, as Evidently keeps them."""
    values = frame[name].cast(pl.Float64)
    return values.filter(values.is_finite())


def _pandas(frame: pl.DataFrame, columns: Sequence[str]) -> Any:
    return frame.select(pl.col(columns).cast(pl.Float64)).to_pandas()
