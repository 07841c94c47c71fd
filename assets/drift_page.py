"""Drift as pages: one a session, and one of all sessions. Self-contained, small, made of the table alone."""

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from html import escape
from typing import Any

import polars as pl

from assets import names, page
from assets.chart import Plot, extent, legend, plain
from assets.drift_history import since
from assets.drift_rows import PREDICTION
from assets.page_style import STYLE
from assets.plan import Plan

Row = Mapping[str, Any]
Link = Callable[[date], str | None]
HISTORY = "drift.html"  # the page of all sessions
STEPS = (-math.inf, -0.5, 0.0, 0.5, 1.0)  # of a cell's shade: its excess in parts of the level, from these on
WHAT = "The furthest beyond training first. Bars: 10 to 90 % of values and the median; training above, now below."
LOOK = """<style>.cell { fill: none } .cell.c0 { stroke: var(--shade) } .cell.c1 { stroke: var(--train) }
.cell.c2 { stroke: var(--valid) } .cell.c3 { stroke: var(--embargo) } .cell.c4 { stroke: var(--down) }
.over { color: var(--down); font-weight: 600 } .key.k-c0 { background: var(--shade) }
.key.k-c1 { background: var(--train) } .key.k-c2 { background: var(--valid) } .key.k-c3 { background: var(--embargo) }
.key.k-c4 { background: var(--down) } td svg { width: 150px; display: inline-block; vertical-align: middle }</style>"""


def file(session: date) -> str:
    """The file of a session's page, beside the one of all sessions."""
    return f"drift-{session}.html"


def report(plan: Plan, rows: pl.DataFrame, past: pl.DataFrame) -> str:
    """The page of one session: rows of it, and of the sessions up to it."""
    whole = rows.row(0, named=True)
    config = plan.horizon.drift
    chips = (
        f"session {whole['session']} and the {config.window_sessions - 1} before it",
        f"champion {whole['champion']}",
        f"{config.method} distance",
        f"{whole['rows']:,} of {whole['of_rows']:,} rows now",
        f"{whole['reference_rows']:,} of {whole['of_reference_rows']:,} rows in training",
    )
    return _document(
        plan,
        f"drift, {whole['session']}",
        verdict(rows),
        chips,
        [
            page.section("Columns", WHAT, _columns(rows, since(past))),
            *_over_time(past),
            page.section("How the thresholds are made", "", _how(plan, whole) + _skipped(rows)),
            f'<p><a href="{HISTORY}">All sessions</a></p>',
        ],
    )


def overview(plan: Plan, past: pl.DataFrame, link: Link) -> str:
    """The page of all sessions: which columns drifted, since when, by how much."""
    newest = past.filter(pl.col("session") == pl.col("session").max())
    failed = past.unique("session").filter("failed").height
    sessions = past["session"].n_unique()
    chips = (f"{sessions} sessions up to {newest['session'][0]}", f"the check failed in {failed} of them")
    return _document(
        plan,
        "drift",
        verdict(newest),
        chips,
        [
            *_over_time(past, link),
            page.section("Now", WHAT, _columns(newest, since(past))),
            page.section("How the thresholds are made", "", _how(plan, newest.row(0, named=True)) + _skipped(newest)),
        ],
    )


def verdict(rows: pl.DataFrame) -> str:
    """The finding of a session in plain words."""
    whole, compared = rows.row(0, named=True), rows["statistic"].count()
    drifted = rows.filter("drifted").sort("excess", descending=True)["column"].to_list()
    what = "No longer looks like training" if whole["failed"] else "Looks like training"
    most = f": the furthest {', '.join(drifted[:5])}" if drifted else ""
    return (
        f"{what}: {len(drifted)} of {compared} columns drifted{most}. As training calibrates it, the check fails "
        f"falsely in {whole['rate']:.1%} of sessions."
    )


def markdown(rows: pl.DataFrame) -> str:
    """The columns as a table for Dagster's UI."""
    ordered = rows.sort("excess", descending=True, nulls_last=True)
    lines = [
        (row["column"], row["kind"], _number(row["statistic"]), _number(row["threshold"]),
         "drifted" if row["drifted"] else row["skipped"] or "–")
        for row in ordered.iter_rows(named=True)
    ]  # fmt: skip
    return names.markdown_table(("column", "kind", "statistic", "threshold", "drift"), lines)


def finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _document(plan: Plan, title: str, said: str, chips: Sequence[str], sections: Sequence[str]) -> str:
    shown = "".join(f"<span>{escape(chip)}</span>" for chip in chips)
    top = (
        f'<header><p class="eyebrow">Tenor · drift</p><h1>{escape(plan.horizon.name)}</h1><p class="verdict">'
        f'{escape(said)}</p><div class="chips">{shown}</div></header>'
    )
    return page.document(f"{plan.horizon.name} · {title}", [STYLE, LOOK, top, *sections], heading=False)


def _columns(rows: pl.DataFrame, drifting: Mapping[str, date]) -> str:
    head = ("column", "kind", "share of gain", "statistic", "threshold", "times", "since", "training, now")
    lines = []
    for row in rows.sort("excess", "importance", descending=True, nulls_last=True).iter_rows(named=True):
        if row["statistic"] is None:
            continue
        times = row["statistic"] / row["threshold"] if row["threshold"] else math.inf
        look = ' class="over"' if row["drifted"] else ""
        cells = (
            f"<span{look}>{page.text(row['column'])}</span>",
            row["kind"],
            "–" if row["importance"] is None else f"{row['importance']:.1%}",
            _number(row["statistic"]),
            _number(row["threshold"]),
            f"<span{look}>{'∞' if math.isinf(times) else f'{times:.2f}'}</span>",
            str(drifting.get(row["column"], "–")),
            _ranges(row),
        )
        lines.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    heads = "".join(f"<th>{name}</th>" for name in head)
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{''.join(lines)}</tbody></table>"


def _ranges(row: Row) -> str:
    """Two bars on one scale: from the 10th to the 90th part of a hundred, with the median."""
    if row["now"] is None or row["then"] is None:
        return "no values now" if row["now"] is None else "–"
    low, high = min(row["now"][1], row["then"][1]), max(row["now"][3], row["then"][3])
    scale = 148 / (high - low) if high > low else 0.0
    drawn = []
    for top, look, (_, p10, middle, p90, _) in ((2, "f-none", row["then"]), (9, "f-model", row["now"])):
        left, width, at = 1 + (p10 - low) * scale, max(1.0, (p90 - p10) * scale), 1 + (middle - low) * scale
        drawn.append(f'<rect class="{look}" x="{left:.0f}" y="{top}" width="{width:.0f}" height="5"/>')
        drawn.append(f'<rect x="{at:.0f}" y="{top}" width="1" height="5" fill="var(--ink)"/>')
    told = f"median {row['then'][2]:.4g} in training, {row['now'][2]:.4g} now"
    return f'<svg viewBox="0 0 150 16"><title>{told}</title>{"".join(drawn)}</svg>'


def _over_time(past: pl.DataFrame, link: Link | None = None) -> list[str]:
    whole = past.unique("session").sort("session")
    about = "How far the check's statistic lies beyond training's own windows, and the level at which it fails."
    return [
        page.section("The check over time", about, _line(whole, link)),
        page.section("Column by session", "Each column's excess, as a part of the level that is drift.", _heat(past)),
    ]


def _line(whole: pl.DataFrame, link: Link | None) -> str:
    days = whole["session"].to_list()
    bound = max([4.0, *(2 * abs(level) for level in whole["level"] if math.isfinite(level))])
    reached = [min(max(value, -bound), bound) for value in whole["reached"]]
    level = [value if math.isfinite(value) else math.nan for value in whole["level"]]
    plot = Plot((-0.5, len(days) - 0.5), extent(reached, level), height=220)
    plot.y_axis(plain, 4)
    plot.x_labels(_labels(days))
    plot.line(range(len(days)), level, "s-last dashed")
    plot.line(range(len(days)), reached, "s-model")
    for at, (day, failed, value, share) in enumerate(zip(days, whole["failed"], reached, whole["share"], strict=True)):
        target = link(day) if link else None
        if target:
            plot.add(f'<a href="{escape(target)}">')
        told = f"{day}: {share:.0%} of columns drifted"
        plot.dot(at, value, "f-down" if failed else "f-model", told, 5 if failed else 2.5)
        if target:
            plot.add("</a>")
    keys = legend([("k-model", "reached"), ("k-down", "failed"), ("k-last", "level")])
    return keys + plot.svg("the check over sessions")


def _heat(past: pl.DataFrame) -> str:
    """A line of cells a column, the most often drifted first; one path a shade and column."""
    days = past["session"].unique().sort().to_list()
    place = {day: at for at, day in enumerate(days)}
    order = (
        past.filter(pl.col("excess").is_not_null())
        .group_by("column")
        .agg(pl.col("drifted").sum(), pl.col("excess").clip(-9, 9).mean())
        .sort("drifted", "excess", "column", descending=[True, True, False])["column"]
        .to_list()
    )
    pitch, left = 13, 190
    plot = Plot((-0.5, len(days) - 0.5), (0, 1), height=pitch * len(order) + 34, left=left, top=4)
    width = plot.at_x(1) - plot.at_x(0)
    for line, name in enumerate(order):
        y = plot.top + pitch * (line + 0.5)
        label = name if len(name) < 30 else f"{name[:28]}…"
        plot.text(left - 8, y + 4, label, anchor="end", look="n" if name == PREDICTION else "")
        paths: dict[int, list[str]] = {}
        for row in past.filter(pl.col("column") == name, pl.col("excess").is_not_null()).iter_rows(named=True):
            x = plot.at_x(place[row["session"]] - 0.5)
            paths.setdefault(_shade(row), []).append(f"M{x:.1f} {y:.0f}h{max(width - 0.6, 0.6):.1f}")
        for shade, parts in paths.items():
            plot.add(f'<path class="cell c{shade}" stroke-width="{pitch - 2}" d="{"".join(parts)}"/>')
    plot.x_labels(_labels(days))
    texts = ("far below", "below training's mean", "above it", "above half of the level", "drifted")
    return legend([(f"block k-c{at}", text) for at, text in enumerate(texts)]) + plot.svg("columns by session")


def _shade(row: Row) -> int:
    if row["drifted"]:
        return len(STEPS) - 1
    part = row["excess"] / row["level"] if row["level"] > 0 else row["excess"]
    return max(at for at, edge in enumerate(STEPS[:-1]) if part >= edge or at == 0)


def _labels(days: Sequence[date]) -> list[tuple[float, str]]:
    places = sorted({round(part * (len(days) - 1) / 5) for part in range(6)}) if days else []
    return [(float(at), str(days[at])) for at in places]


def _how(plan: Plan, whole: Row) -> str:
    config = plan.horizon.drift
    least = math.ceil(1 / config.rate) - 1
    more = (
        f" drift.rate asks for {config.rate:.2%}: that takes {least}, in {least * config.window_sessions} sessions."
        if whole["rate"] > config.rate + 1e-9
        else ""
    )
    return "".join(
        f"<p>{escape(text)}</p>"
        for text in (
            f"Windows of {config.window_sessions} sessions inside training are held against the rest of it; each "
            "column's statistic is standardised, in logs, by what they reach. The check fails when more than "
            f"{config.share:.0%} of the columns exceed one level.",
            f"{whole['independent']} windows stand side by side in training; the level is set so that a window like "
            f"them exceeds it with probability {whole['rate']:.2%}.{more} A market that changes for good fails more "
            "often: that is what the check is for.",
            "Predictions are held against what the same model says of the rows that it learned from.",
        )
    )


def _skipped(rows: pl.DataFrame) -> str:
    left = rows.filter(pl.col("skipped").is_not_null())
    if left.is_empty():
        return ""
    return page.table(("not compared", "because"), list(left.select("column", "skipped").iter_rows()))


def _number(value: float | None) -> str:
    return "–" if value is None else "no values now" if math.isinf(value) else f"{value:.4g}"
