"""Money on the evaluation page: the equity after costs beside the baselines, its drawdown, and what choosing did."""

import numpy as np
import polars as pl

from assets import page
from assets.chart import Plot, extent, legend, percent, plain, time_labels
from assets.findings import Findings, Part
from assets.page_summary import LOOK, NAMES


def equity(found: Findings) -> str:
    """Cumulated net return by predictor, out of fold and then over the judging window, and the model's drawdown."""
    parts = [found.past, found.held_out]
    times = np.concatenate([part.books["model"].time for part in parts])
    seam = len(parts[0].books["model"].time)
    x = np.arange(len(times))
    lines = {name: np.cumsum(_joined(parts, name, "net")) for name in found.past.books}
    before_costs = np.cumsum(_joined(parts, "model", "gross"))
    top = Plot((0, len(times) - 1), extent(*lines.values(), before_costs), height=340)
    _window(top, seam, len(times))
    top.y_axis(percent)
    for place in _starts(found.past):
        top.add(f'<path class="rule mark" d="M{top.at_x(place):.1f} {top.top}V{top.bottom}"/>')
    top.line(x, before_costs, "s-model thin dashed")
    for name in reversed(list(lines)):
        top.line(x, lines[name], f"s-{LOOK[name]}{'' if name == 'model' else ' thin'}")
    top.x_labels(time_labels(times))
    model = lines["model"]
    under = model - np.maximum(np.maximum.accumulate(model), 0)
    low = Plot((0, len(times) - 1), extent(under), height=130, top=6)
    _window(low, seam, len(times))
    low.y_axis(percent, 3)
    low.band(x, under, np.zeros(len(under)), "f-down strong")
    low.line(x, under, "s-down thin")
    low.x_labels(time_labels(times))
    keys = [(f"k-{LOOK[name]}", f"{NAMES[name]}, net") for name in lines]
    keys += [("dash", "model before costs"), ("block k-shade", "judging window, final model")]
    return (
        f"{legend(keys)}{top.svg('cumulated return after costs')}<h3>Drawdown of the model, net</h3>"
        f"{low.svg('drawdown')}{_table(found)}"
    )


def trials(found: Findings) -> str:
    """Every trial of the tuning, and what was left of the best one's Sharpe ratio."""
    told = found.bundle.manifest.get("tuning") or {}
    made = told.get("trials") or []
    known, lucky = found.trials, found.trials.overfitting
    rows = [("trials", f"{known.count}, of them {known.whole} to the end" if known.why == "" else str(known.count))]
    rows.append(
        ("chance that the true Sharpe ratio is above 0, were this the only trial", _figure(known.probabilistic))
    )
    if known.deflated is not None:
        rows.append(("Sharpe ratio a year of the luckiest of so many trials without skill", _figure(known.benchmark)))
        rows.append(("deflated Sharpe ratio: chance of skill after that", _figure(known.deflated)))
    if lucky is not None:
        rows.append(("probability of backtest overfitting (CSCV)", _figure(lucky.probability)))
        rows.append(("share of splits where the chosen trial lost outside", _figure(lucky.loss)))
    if found.siblings:
        rows.append(("other bundles of this horizon; choosing among them is counted nowhere", str(found.siblings)))
    why = f'<p class="empty">{known.why}.</p>' if known.why else ""
    charts = []
    if made:
        charts.append(f"<h3>Score of each trial ({told.get('metric', 'score')})</h3>{_scatter(made, told.get('best'))}")
    if lucky is not None:
        charts.append(f"<h3>Rank outside of what was best inside, logit</h3>{_logits(lucky.logits)}")
    drawn = f'<div class="two">{"".join(f"<div>{chart}</div>" for chart in charts)}</div>' if charts else ""
    return why + drawn + page.table(("measure", "value"), rows) + (_best(made, told) if made else "")


def _scatter(made: list[dict], best: int | None) -> str:
    scored = [(trial["number"], trial["value"]) for trial in made if trial.get("value") is not None]
    if not scored:
        return '<p class="empty">No trial ran to its end.</p>'
    numbers, values = (np.array(column, float) for column in zip(*scored, strict=True))
    plot = Plot((-0.5, numbers.max() + 0.5), extent(values, zero=False), width=500, height=240)
    plot.y_axis(plain)
    plot.x_axis(lambda value: f"{value:g}", min(8, len(numbers)))
    for trial in made:
        if trial.get("value") is None:
            continue
        look = "f-model" if trial["number"] == best else "f-none" if trial["state"] != "complete" else "f-model soft"
        about = f"trial {trial['number']}, {trial['state']}: {plain(trial['value'])}"
        plot.dot(trial["number"], trial["value"], look, about, 7 if trial["number"] == best else 4)
    return plot.svg("score by trial")


def _logits(logits: np.ndarray) -> str:
    counts, edges = np.histogram(logits, bins=31)
    plot = Plot((edges[0], edges[-1]), (0, counts.max() * 1.08), width=500, height=240, left=24)
    width = edges[1] - edges[0]
    for count, left in zip(counts, edges[:-1], strict=True):
        middle = left + width / 2
        if not count:
            continue
        plot.bar(
            middle, width * 0.9, float(count), "f-down" if middle <= 0 else "f-up", f"{count} splits near {middle:.2f}"
        )
    plot.add(f'<path class="rule zero" d="M{plot.at_x(0):.1f} {plot.top}V{plot.bottom}"/>')
    plot.x_axis(plain)
    return plot.svg("logits of the rank outside")


def _best(made: list[dict], told: dict) -> str:
    """The ten trials with the best scores, the chosen one first."""
    scored = [trial for trial in made if trial.get("value") is not None]
    names = list(dict.fromkeys(name for trial in made for name in trial["params"]))
    sign = 1 if told.get("metric") == "loss" else -1
    ordered = sorted(scored, key=lambda trial: (trial["number"] != told.get("best"), sign * trial["value"]))[:10]
    rows = [
        [trial["number"], trial["state"], plain(trial["value"])]
        + [
            f"{value:.4g}" if isinstance(value, float) else value
            for value in (trial["params"].get(name, "") for name in names)
        ]
        for trial in ordered
    ]
    return page.table(["trial", "state", "score", *names], rows)


def _table(found: Findings) -> str:
    rows = []
    for name in found.past.books:
        net = found.past.scores[name]["net"]
        shares = [net.get(key) for key in ("annual_return", "annual_return_before_costs", "max_drawdown")]
        rows.append(
            [
                NAMES[name],
                *("–" if share is None else percent(share) for share in shares),
                *(page.figure(net.get(key)) for key in ("sharpe", "sharpe_error", "skew", "kurtosis")),
                *(page.figure(net.get(key)) for key in ("exposure", "invested", "turnover")),
            ]
        )
    head = ["out of fold", "net a year", "before costs", "max drawdown", "net Sharpe", "±", "skew", "kurtosis"]
    return page.table([*head, "exposure", "share of bars invested", "turnover a bar"], rows)


def _window(plot: Plot, seam: int, count: int) -> None:
    """Shade the judging window."""
    left = plot.at_x(seam)
    plot.rect(left, plot.top, plot.at_x(count - 1) - left, plot.bottom - plot.top, "shade")


def _joined(parts: list[Part], name: str, which: str) -> np.ndarray:
    return np.concatenate([getattr(part.books[name], which) for part in parts])


def _starts(part: Part) -> list[int]:
    """Places of the sections at which another fold's model takes over."""
    folds = part.rows.group_by("time").agg(pl.col("fold").first()).sort("time")["fold"].to_numpy()
    return (np.flatnonzero(np.diff(folds)) + 1).tolist()


def _figure(value: float | None) -> str:
    return page.figure(value)
