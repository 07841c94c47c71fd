"""Realized scores over time as one small page: what was served against what judging promised."""

import numpy as np
import polars as pl

from assets import page
from assets.chart import Plot, extent, legend, plain
from assets.page_style import STYLE
from assets.plan import Plan


def render(plan: Plan, past: pl.DataFrame) -> str:
    """The page of a horizon; past: the table's rows, in order."""
    newest, config = past.row(-1, named=True), plan.horizon.drift.realized
    about = (
        f"Rank IC of the champion's newest {config.sessions} sessions, with two standard errors. It fails where less "
        f"than {config.kept:g} of the promised one is kept, at level {config.level:g} a look."
    )
    return page.document(
        f"{plan.horizon.name} · realized scores",
        [
            STYLE,
            f'<header><p class="eyebrow">Tenor · realized scores</p><h1>{page.text(plan.horizon.name)}</h1>'
            f'<p class="verdict">{page.text(newest["why"])}</p></header>',
            page.section("Over time", about, _line(past)),
            page.section("In figures", "The newest first.", _table(past)),
        ],
        heading=False,
    )


def _line(past: pl.DataFrame) -> str:
    days = past["session"].to_list()
    mean, error, promised = (past[name].fill_null(np.nan).to_numpy() for name in ("rank_ic", "error", "promised"))
    plot = Plot((-0.5, len(days) - 0.5), extent(mean - 2 * error, mean + 2 * error, promised), height=240)
    plot.y_axis(plain)
    places = sorted({round(part * (len(days) - 1) / 5) for part in range(6)})
    plot.x_labels([(float(at), str(days[at])) for at in places])
    plot.line(range(len(days)), promised, "s-last dashed")
    for at, (day, failed) in enumerate(zip(days, past["failed"], strict=True)):
        if np.isfinite(mean[at]):
            if np.isfinite(error[at]):
                plot.whisker(at, mean[at] - 2 * error[at], mean[at] + 2 * error[at])
            plot.dot(at, mean[at], "f-down" if failed else "f-model", f"{day}: {mean[at]:+.4f}")
    keys = legend([("k-model", "realized"), ("k-down", "failed"), ("k-last", "promised")])
    return keys + plot.svg("realized rank IC over sessions")


def _table(past: pl.DataFrame) -> str:
    head = ("session", "champion", "sections", "rank IC", "± error", "promised", "p", "check")
    rows = [
        (
            row["session"],
            row["champion"],
            row["sections"],
            *(page.figure(row[name]) for name in ("rank_ic", "error", "promised", "p")),
            "failed" if row["failed"] else "passed",
        )
        for row in past.tail(60).reverse().iter_rows(named=True)
    ]
    return page.table(head, rows)
