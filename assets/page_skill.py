"""Skill on the evaluation page: IC over time, outcomes by decile, calibration, and where the edge is."""

from typing import Any

import numpy as np
import polars as pl

from assets import page
from assets.chart import Plot, extent, legend, percent, plain, stamp, time_labels
from assets.findings import Findings
from assets.page_summary import maybe, pair
from quant.breakdown import rolling_ic
from quant.score import ic_series, quantile_count, quantile_series
from quant.stats import lags_for, mean_of

BOUND = 1.96
MOST_SYMBOLS = 60  # in the chart by symbol


def ic_over_time(found: Findings) -> str:
    """Rolling rank IC with two standard errors, spans of sections as bars behind, and the cumulated IC."""
    series = ic_series(found.past.rows.with_columns(prediction="model"), "spearman")
    count = series.height
    if count < 20:
        return f'<p class="empty">{count} sections have a correlation: too few to draw over time.</p>'
    window = int(np.clip(count // 10, 10, 250))
    rolled = rolling_ic(series, window, found.terms.holding - 1)
    values, times = series["ic"].to_numpy(), series["time"].dt.replace_time_zone(None).to_numpy()
    bins = np.array_split(np.arange(count), min(60, count // 5))
    means = [float(values[run].mean()) for run in bins]
    middle, error = rolled["mean"].to_numpy(), rolled["error"].to_numpy()
    low, high = middle - BOUND * error, middle + BOUND * error
    ends = np.searchsorted(times, rolled["time"].dt.replace_time_zone(None).to_numpy())
    plot = Plot((0, count - 1), extent(low, high, np.array(means) * 0.8), height=300)
    plot.y_axis(plain)
    for run, mean in zip(bins, means, strict=True):
        shown = float(np.clip(mean, *plot.y))
        about = f"{stamp(times[run[0]])} to {stamp(times[run[-1]])}: {mean:+.4f} over {len(run)} sections"
        plot.bar((run[0] + run[-1]) / 2, len(run), shown, "f-shade behind", about)
    plot.band(ends, low, high, "f-model")
    plot.line(ends, middle, "s-model")
    whole = found.past.scores["model"]["rank_ic"]
    plot.add(f'<path class="line s-none thin dashed" d="M{plot.left} {plot.at_y(whole):.1f}H{plot.right}"/>')
    plot.x_labels(time_labels(times))
    total = np.cumsum(values)
    lower = Plot((0, count - 1), extent(total), height=150, top=6)
    lower.y_axis(plain, 3)
    lower.line(np.arange(count), total, "s-model")
    lower.x_labels(time_labels(times))
    keys = [("k-model", f"mean of the last {window} sections, band of two standard errors (Newey–West)")]
    keys += [("block k-shade", f"mean of {len(bins[0])} sections"), ("", "mean of all")]
    return f"{legend(keys)}{plot.svg('rank IC over time')}<h3>Cumulated rank IC</h3>{lower.svg('cumulated rank IC')}"


def deciles(found: Findings) -> str:
    """Mean outcome by part of the prediction, and what each part has cumulated."""
    frame = found.past.rows.with_columns(prediction="model")
    count = quantile_count(frame)
    series = quantile_series(frame, count)
    if series.is_empty():
        return '<p class="empty">Predictions never differ within a section.</p>'
    together = found.past.scores["model"]["over_time"]
    if not together:
        series = series.with_columns(pl.col("outcome") - pl.col("outcome").mean().over("time"))
    known = {
        part["quantile"][0]: mean_of(part["outcome"].to_numpy(), lags_for(part.height, found.terms.holding - 1))
        for part in series.partition_by("quantile")
    }
    means = np.array([known[at].mean if at in known else 0.0 for at in range(count)]) * 1e4
    errors = np.nan_to_num([known[at].error if at in known else 0.0 for at in range(count)]) * 1e4
    bars = Plot((0.4, count + 0.6), extent(means - BOUND * errors, means + BOUND * errors), width=500, height=300)
    bars.y_axis(plain)
    for at, (mean, error) in enumerate(zip(means, errors, strict=True)):
        bars.bar(
            at + 1, 0.72, mean, "f-up" if mean >= 0 else "f-down", f"{at + 1} of {count}: {mean:+.3g} bp ± {error:.2g}"
        )
        bars.whisker(at + 1, mean - BOUND * error, mean + BOUND * error)
    bars.x_labels([(at + 1, str(at + 1)) for at in range(count)])
    times = series["time"].unique().sort()
    place = times.search_sorted(series["time"]).to_numpy()
    earned = np.zeros((len(times), count))
    earned[place, series["quantile"].to_numpy()] = series["outcome"].to_numpy() / found.terms.holding
    total = earned.cumsum(axis=0)
    lines = Plot((0, len(times) - 1), extent(total), width=500, height=300, right=30)
    lines.y_axis(percent)
    for at in sorted(range(count), key=lambda at: abs(at - (count - 1) / 2)):
        away = abs(2 * at / max(1, count - 1) - 1)
        lines.add(f'<g style="--mix:{(1 - away) * 70:.0f}%">')
        lines.line(np.arange(len(times)), total[:, at], "lower" if at < count / 2 else "upper")
        lines.add("</g>")
    for at in (0, count - 1):
        lines.text(lines.right + 6, lines.at_y(total[-1, at]) + 4, str(at + 1), look="n")
    lines.x_labels(time_labels(times.dt.replace_time_zone(None).to_numpy(), 3))
    less = "" if together else ", less its section’s mean"
    return (
        f'<div class="two"><div><h3>Mean outcome{less}, basis points a label</h3>'
        f"{bars.svg('mean outcome by decile')}</div><div><h3>Cumulated outcome{less}</h3>"
        f"{lines.svg('cumulated outcome by decile')}</div></div>"
        f"<p>{count} parts by prediction, {'of all rows together' if together else 'within each section'}; 1 the "
        "lowest, whose line is the strongest red, as the highest’s is the strongest green.</p>"
    )


def calibration(found: Findings) -> str:
    """Predicted against what came, with the line on which both agree."""
    scores = found.past.scores["model"]
    bins = scores.get("reliability")
    if not bins:
        return '<p class="empty">A ranking predicts an order only: there is no unit to calibrate.</p>'
    chance = found.task == "binary"
    unit = 1.0 if chance else 1e4
    x = np.array([b["predicted"] for b in bins]) * unit
    y = np.array([b["outcome"] for b in bins]) * unit
    error = np.array([b["error"] or 0.0 for b in bins]) * unit
    plot = Plot(
        extent(x, zero=False, pad=0.12),
        extent(y - BOUND * error, y + BOUND * error, x, zero=False),
        width=500,
        height=340,
    )
    plot.y_axis(plain)
    plot.x_axis(plain, 5)
    low, high = plot.x
    plot.line([low, high], [low, high], "s-none thin dashed")
    plot.line(x, y, "s-model thin")
    for px, py, pe, b in zip(x, y, error, bins, strict=True):
        plot.whisker(px, py - BOUND * pe, py + BOUND * pe)
        plot.dot(px, py, "f-model", f"predicted {plain(px)}, came {plain(py)} ± {plain(pe)}, {b['rows']:,} rows", 5)
    if chance:
        told = [
            ("AUC", "auc"),
            ("log-loss", "log_loss"),
            ("Brier score", "brier"),
            ("calibration error", "calibration_error"),
        ]
        told.append(("share of rows above 0", "base_rate"))
    else:
        told = [("slope of outcome on prediction (1: neither too bold nor too shy)", "calibration_slope")]
    rows = [(name, page.figure(scores.get(key))) for name, key in told]
    what = "Chance predicted → share above 0" if chance else "Predicted → mean outcome, basis points"
    return (
        f'<div class="two"><div><h3>{what}</h3>{plot.svg("calibration")}</div><div><h3>How often what is predicted</h3>'
        f"{_histogram(found.past.rows['model'].to_numpy() * unit)}</div></div>{page.table(('measure', 'value'), rows)}"
    )


def _histogram(values: np.ndarray) -> str:
    values = values[np.isfinite(values)]
    counts, edges = np.histogram(values, bins=41, range=tuple(np.quantile(values, [0.002, 0.998])))
    plot = Plot((edges[0], edges[-1]), (0, counts.max() * 1.06), width=500, height=340)
    plot.y_axis(lambda value: f"{value:,.0f}", 4)
    plot.x_axis(plain, 5)
    width = edges[1] - edges[0]
    for count, left in zip(counts, edges[:-1], strict=True):
        plot.bar(left + width / 2, width * 0.92, float(count), "f-model soft", f"{count:,} rows from {plain(left)}")
    return plot.svg("distribution of predictions")


def breakdown(found: Findings) -> str:
    """By year, by volatility regime and by symbol: rank IC with two errors, and the book's Sharpe ratio."""
    head = ("", "rows", "rank IC", "t", "hit rate", "net Sharpe")
    tables = []
    for title, groups in (
        ("By year", found.years),
        (f"By volatility of the last {found.window} bars, known at the time", found.regimes),
    ):
        rows = [[*_cells(row), pair(row["sharpe"], row["sharpe_error"], 2)] for row in groups]
        drawn = _dots(groups, 500, 26)
        tables.append(f"<div><h3>{title}</h3>{drawn}{page.table(head, rows)}</div>")
    symbols = sorted(found.symbols, key=lambda row: -(row["rank_ic"] if row["rank_ic"] is not None else -9))
    if len(symbols) > MOST_SYMBOLS:
        half = MOST_SYMBOLS // 2
        symbols = symbols[:half] + symbols[-half:]
    note = (
        f"the {MOST_SYMBOLS // 2} best and worst of {len(found.symbols)}"
        if len(found.symbols) > MOST_SYMBOLS
        else "all"
    )
    mean = [row["rank_ic"] for row in found.symbols if row["rank_ic"] is not None]
    above = f"{sum(value > 0 for value in mean)} of {len(mean)} above zero"
    rows = [_cells(row) for row in sorted(found.symbols, key=lambda row: str(row["group"]))]
    listed = f"<details><summary>Every symbol in figures</summary>{page.table(head[:5], rows)}</details>"
    return (
        f'<div class="two">{"".join(tables)}</div><h3>By symbol, rank correlation over time ({note}; {above})</h3>'
        f"{_upright(symbols)}{listed}"
    )


def _cells(row: dict[str, Any]) -> list[str]:
    correlation = pair(row["rank_ic"], row["rank_ic_error"], 4)
    return [str(row["group"]), f"{row['rows']:,}", correlation, maybe(row["rank_ic_t"], 1), maybe(row["hit_rate"], 3)]


def _dots(groups: list[dict[str, Any]], width: int, pitch: int) -> str:
    """A line per group: rank IC as a dot with two standard errors."""
    known = [row for row in groups if row["rank_ic"] is not None and row["rank_ic_error"] is not None]
    if not known:
        return '<p class="empty">No group has sections enough.</p>'
    edges = [row["rank_ic"] + sign * BOUND * row["rank_ic_error"] for row in known for sign in (-1, 1)]
    plot = Plot(extent(edges), (0, 1), width=width, height=pitch * len(known) + 30, left=84, top=2)
    plot.upright(5)
    for at, row in enumerate(known):
        y = plot.top + pitch * (at + 0.5)
        low, high = (plot.at_x(row["rank_ic"] + sign * BOUND * row["rank_ic_error"]) for sign in (-1, 1))
        plot.text(plot.left - 10, y + 4, str(row["group"]), anchor="end", look="n")
        plot.rect(
            low, y - 2.5, high - low, 5, "f-model soft", f"{row['rank_ic']:+.4f} ± {row['rank_ic_error']:.4f}", 2.5
        )
        plot.add(f'<circle class="f-model" cx="{plot.at_x(row["rank_ic"]):.1f}" cy="{y:.1f}" r="5"/>')
    return plot.svg("rank IC by group")


def _upright(symbols: list[dict[str, Any]]) -> str:
    """An upright error bar per symbol, best first."""
    known = [row for row in symbols if row["rank_ic"] is not None and row["rank_ic_error"] is not None]
    if not known:
        return '<p class="empty">No symbol has rows enough.</p>'
    edges = [row["rank_ic"] + sign * BOUND * row["rank_ic_error"] for row in known for sign in (-1, 1)]
    plot = Plot((-0.7, len(known) - 0.3), extent(edges), height=240, bottom=62)
    plot.y_axis(plain)
    for at, row in enumerate(known):
        plot.whisker(at, row["rank_ic"] - BOUND * row["rank_ic_error"], row["rank_ic"] + BOUND * row["rank_ic_error"])
        look = "f-up" if row["rank_ic"] >= 0 else "f-down"
        plot.dot(at, row["rank_ic"], look, f"{row['group']}: {row['rank_ic']:+.4f} ± {row['rank_ic_error']:.4f}", 4.5)
        x = plot.at_x(at)
        plot.add(
            f'<text x="{x + 4:.1f}" y="{plot.bottom + 8}" text-anchor="end" '
            f'transform="rotate(-60 {x + 4:.1f} {plot.bottom + 8})">{page.text(row["group"])}</text>'
        )
    return plot.svg("rank correlation by symbol")
