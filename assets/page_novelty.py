"""Novelty on the evaluation page: what abstaining from unfamiliar rows would leave, and how good that is."""

from typing import Any

import numpy as np

from assets import page
from assets.chart import Plot, extent, legend, plain
from assets.findings import Findings
from assets.page_summary import maybe, pair

UNITS = {"regression": ("root mean squared error, basis points", 1e4), "binary": ("log-loss", 1.0)}


def coverage(found: Findings) -> str:
    """Error against coverage as a line, rank IC beside it, and all of it in figures."""
    rows = found.coverage
    if rows is None:
        return '<p class="empty">The bundle was made before novelty was measured: train it again.</p>'
    chosen = found.bundle.abstains_above
    said = (
        f"This model abstains above {chosen:g}: such a prediction is told, and its weight is 0. Every other figure of "
        "this page is of its signals alone, what would have been traded; the trials, where parameters were searched, "
        "are compared on all rows."
        if chosen is not None
        else "This model never abstains: novelty.abstain_above is null."
    )
    unit, scale = UNITS.get(found.task, ("", 1.0))
    drawn = _error(rows, unit, scale, chosen) if unit else ""
    head = ("abstain above", "rows kept", "error", "error of those left out", "rank IC", "hit rate", "net Sharpe")
    listed = [
        [
            f"{row['above']:g}" + (" (chosen)" if row["above"] == chosen else ""),
            f"{row['coverage']:.1%}",
            page.figure(None if row["error"] is None else row["error"] * scale),
            page.figure(None if row["error_left"] is None else row["error_left"] * scale),
            pair(row["rank_ic"], row["rank_ic_error"], 4),
            maybe(row["hit_rate"], 3),
            pair(row["sharpe"], row["sharpe_error"], 2),
        ]
        for row in rows
    ]
    figure = f'<div class="two">{drawn}{_rank(rows, chosen)}</div>'
    note = (
        f"<p>{page.text(said)}{f' Error: {unit}.' if unit else ''} A book gives rows that are "
        "left out no weight. Of rows like training's a tenth lie above 0.9: where many more do, the market changed; "
        "where fewer do, it is calmer. Familiar rows are calmer ones, so their error is lower anyway: whether they are "
        "predicted better is what the rank IC says.</p>"
    )
    return figure + page.table(head, listed) + note


def _error(rows: list[dict[str, Any]], unit: str, scale: float, chosen: float | None) -> str:
    known = [row for row in rows if row["error"] is not None]
    x = np.array([row["coverage"] for row in known]) * 100
    kept = np.array([row["error"] for row in known]) * scale
    left = np.array([np.nan if row["error_left"] is None else row["error_left"] for row in known]) * scale
    plot = Plot((max(0.0, x.min() - 2), 102), extent(kept, left, zero=False, pad=0.1), width=500, height=300)
    plot.y_axis(plain)
    plot.x_axis(lambda value: f"{value:g}%", 5)
    plot.line(x, kept, "s-model")
    plot.line(x, left, "s-none dashed")
    for row, px, py in zip(known, x, kept, strict=True):
        strong = row["above"] == chosen
        plot.dot(px, py, "f-model", f"above {row['above']:g}: {px:.1f} % kept, error {plain(py)}", 7 if strong else 4)
    keys = legend([("k-model", "rows kept"), ("", "rows left out")])
    return f"<div><h3>Error by coverage: {unit}</h3>{keys}{plot.svg('error by coverage')}</div>"


def _rank(rows: list[dict[str, Any]], chosen: float | None) -> str:
    known = [row for row in rows if row["rank_ic"] is not None and row["rank_ic_error"] is not None]
    if not known:
        return '<p class="empty">No section has rows enough for a rank IC.</p>'
    x = np.array([row["coverage"] for row in known]) * 100
    mean = np.array([row["rank_ic"] for row in known])
    error = 1.96 * np.array([row["rank_ic_error"] for row in known])
    plot = Plot((max(0.0, x.min() - 2), 102), extent(mean - error, mean + error), width=500, height=300)
    plot.y_axis(plain)
    plot.x_axis(lambda value: f"{value:g}%", 5)
    plot.line(x, mean, "s-model")
    for row, px, py, pe in zip(known, x, mean, error, strict=True):
        plot.whisker(px, py - pe, py + pe)
        strong = row["above"] == chosen
        plot.dot(px, py, "f-model", f"above {row['above']:g}: rank IC {py:+.4f}", 7 if strong else 4)
    return f"<div><h3>Rank IC by coverage, two standard errors</h3>{plot.svg('rank IC by coverage')}</div>"
