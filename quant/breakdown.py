"""The same scores by year, by regime and by symbol: whether an edge is everywhere or in one corner."""

from typing import Any

import numpy as np
import polars as pl

from quant.portfolio import Terms, book
from quant.score import Task, finite, hit_rate, ic_series, leaning, time_ic
from quant.stats import lags_for, mean_of


def by_sections(frame: pl.DataFrame, groups: pl.DataFrame, terms: Terms, task: Task) -> list[dict[str, Any]]:
    """Scores of each group of sections, groups in the order of their names.

    frame: (time, symbol, outcome, prediction); groups: (time, group), null = in none. The book is that of all
    sections: a group's figures are those of its sections in it, so that a tranche is not cut where a group ends.
    """
    name = groups.columns[1]
    whole = book(leaning(frame, task), "prediction", terms)
    placed = pl.DataFrame({"time": pl.Series(whole.time).cast(frame.schema["time"])}).join(
        groups, on="time", how="left", maintain_order="left"
    )
    found = []
    for group in placed[name].drop_nulls().unique().sort():
        taken = (placed[name] == group).fill_null(False).to_numpy()
        rows = frame.join(placed.filter(pl.col(name) == group), on="time", how="semi")
        net = whole.summary(taken)
        found.append(
            {
                "group": group,
                **_correlation(ic_series(rows, "spearman"), terms),
                "rows": rows.height,
                "hit_rate": hit_rate(leaning(rows, task)),
                **{key: net[key] for key in ("sharpe", "sharpe_error", "annual_return", "sections")},
            }
        )
    return finite(found)


def by_symbol(frame: pl.DataFrame, terms: Terms, task: Task) -> list[dict[str, Any]]:
    """Each symbol's rank correlation over time, and hit rate; symbols by name."""
    leant = leaning(frame, task)
    found = []
    for (symbol,), rows in frame.group_by("symbol"):
        mine = leant.filter(pl.col("symbol") == symbol)
        scores = _correlation(time_ic(rows, "spearman"), terms)
        found.append({"group": symbol, **scores, "rows": rows.height, "hit_rate": hit_rate(mine)})
    return finite(sorted(found, key=lambda row: str(row["group"])))


def _correlation(series: pl.DataFrame, terms: Terms) -> dict[str, Any]:
    values = series["ic"].to_numpy()
    found = mean_of(values, lags_for(len(values), terms.holding - 1))
    return {"rank_ic": found.mean, "rank_ic_error": found.error, "rank_ic_t": found.t}


def rolling_ic(series: pl.DataFrame, window: int, overlap: int) -> pl.DataFrame:
    """(time, mean, error) of an IC series (time, ic) over its last `window` sections, Newey-West errors.

    At most 400 windows, evenly spaced, the newest included; none where the series is shorter than a window.
    """
    values = series["ic"].to_numpy()
    ends = np.arange(window, len(values) + 1)
    if len(ends) > 400:
        ends = ends[np.unique(np.linspace(0, len(ends) - 1, 400).astype(int))]
    found = [mean_of(values[end - window : end], lags_for(window, overlap)) for end in ends]
    return pl.DataFrame(
        {
            "time": series["time"].gather(ends - 1),
            "mean": pl.Series([f.mean for f in found], dtype=pl.Float64),
            "error": pl.Series([f.error for f in found], dtype=pl.Float64),
        }
    )
