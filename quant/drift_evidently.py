"""Evidently's own page of two windows: 7 MB of charts, for whoever asks for it."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl


def page(
    current: pl.DataFrame,
    reference: pl.DataFrame,
    thresholds: Mapping[str, float],
    *,
    method: str,
    share: float,
    sample_rows: int,
    seed: int = 0,
) -> str:
    """Evidently's drift preset over the columns that have a threshold, as self-contained HTML.

    At most `sample_rows` rows of either frame, drawn with `seed`.
    """
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    columns = list(thresholds)
    definition = DataDefinition(numerical_columns=columns)
    preset = DataDriftPreset(
        columns=columns,
        method=method,
        per_column_threshold=dict(thresholds),
        drift_share=float(np.nextafter(share, np.inf)),  # Evidently's is reached, ours is exceeded
    )
    now, then = (_pandas(frame, columns, sample_rows, seed) for frame in (current, reference))
    with np.errstate(invalid="ignore"):  # it also correlates the columns, of which one may be constant
        snapshot = Report([preset]).run(Dataset.from_pandas(now, definition), Dataset.from_pandas(then, definition))
    return str(snapshot.get_html_str(as_iframe=False))


def _pandas(frame: pl.DataFrame, columns: list[str], rows: int, seed: int) -> Any:
    chosen = frame.sample(rows, seed=seed) if frame.height > rows else frame
    return chosen.select(pl.col(columns).cast(pl.Float64)).to_pandas()
