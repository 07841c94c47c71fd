"""The top of the evaluation page: what was found in one sentence, in cards, and beside the baselines."""

from collections.abc import Mapping
from html import escape
from typing import Any

from assets import page
from assets.chart import Plot, extent, plain
from assets.findings import Findings

NAMES = {"model": "model", "linear": "linear (ridge)", "last_return": "last return", "zero": "zero"}
LOOK = {"model": "model", "linear": "linear", "last_return": "last", "zero": "none"}
OF_TASK: dict[str, dict[str, str]] = {  # measures of one kind of prediction alone, and what they are called
    "binary": {"auc": "AUC", "log_loss": "log-loss"},
    "regression": {"calibration_slope": "slope"},
    "ranking": {},
}
BOUND = 1.96  # standard errors either side


def header(found: Findings) -> str:
    bundle, manifest = found.bundle, found.bundle.manifest
    label, trees = manifest["label"], manifest["best_iteration"]
    shown = (
        f"bundle {bundle.id}",
        f"label {label['text']}",
        f"{label['lookahead']} bars ahead",
        f"{manifest['objective']}, {trees} {'tree' if trees == 1 else 'trees'}",
        f"{len(bundle.factors)} factors, look-back {manifest['lookback']} bars",
        *_abstaining(found),
    )
    chips = "".join(f"<span>{escape(text)}</span>" for text in shown)
    return (
        f'<header><p class="eyebrow">Tenor · evaluation</p><h1>{escape(bundle.horizon)}</h1>'
        f'<p class="verdict">{escape(verdict(found))}</p><div class="chips">{chips}</div></header>'
    )


def _abstaining(found: Findings) -> list[str]:
    """What share of the out-of-fold rows no figure of the model is of; nothing of a model that never abstains."""
    above = found.bundle.abstains_above
    if above is None:
        return []
    left = float(found.past.rows["model"].is_nan().mean())  # type: ignore[arg-type]
    return [f"abstains from {left:.1%} of rows, those with a novelty above {above:g}"]


def verdict(found: Findings) -> str:
    """The finding in plain words, with its uncertainty."""
    scores, net = found.past.scores["model"], found.past.scores["model"]["net"]
    if scores["rank_ic"] is None:
        return "The model's predictions never differ within a section: there is nothing to score."
    sure = abs(scores["rank_ic_t"] or 0) > BOUND
    over = "over time" if scores["over_time"] else f"over {scores['rank_ic_sections']:,} sections"
    parts = [
        f"Out of fold, rank IC {_signed(scores['rank_ic'], 4)} ± {scores['rank_ic_error']:.4f} {over}: "
        + ("told apart from zero at the 5 % level." if sure else "not told apart from zero.")
    ]
    if net["sharpe"] is not None:
        parts.append(
            f"After {net['cost_bps']:g} bp a side the book's Sharpe ratio is {_signed(net['sharpe'], 2)} ± "
            f"{net['sharpe_error']:.2f}, {_signed(net['sharpe_before_costs'], 2)} before costs."
        )
    if found.trials.deflated is not None:
        parts.append(f"Deflated by {found.trials.count} trials, the chance of skill is {found.trials.deflated:.3f}.")
    rivals = {name: found.past.scores[name]["rank_ic"] for name in ("linear", "last_return")}
    best = max((name for name in rivals if rivals[name] is not None), key=lambda name: rivals[name], default=None)
    if best is not None:
        word = "above" if scores["rank_ic"] > rivals[best] else "not above"
        parts.append(f"It is {word} the best baseline, {NAMES[best]} at {_signed(rivals[best], 4)}.")
    return " ".join(parts)


def cards(found: Findings) -> str:
    """Eight figures, with their errors drawn where they have one."""
    scores, net, trials = found.past.scores["model"], found.past.scores["model"]["net"], found.trials
    count = len(scores["quantile_means"])
    lucky = trials.overfitting
    shown = [
        _card(
            "Rank IC", scores["rank_ic"], scores["rank_ic_error"], 4, f"t {maybe(scores['rank_ic_t'], 1)}, Newey–West"
        ),
        _card("Rank ICIR, a section", scores["rank_ic_ir"], None, 3, f"IC {maybe(scores['ic'], 4)}"),
        _card(
            f"Top less bottom {_part_name(count)}",
            _times(scores["quantile_spread"], 1e4),
            _times(scores["quantile_spread_error"], 1e4),
            2,
            "basis points a label",
        ),
        _card("Hit rate", scores["hit_rate"], None, 4, "share of signs that were right"),
        _card(
            "Net Sharpe, a year",
            net["sharpe"],
            net["sharpe_error"],
            2,
            f"{maybe(net['sharpe_before_costs'], 2)} before costs",
        ),
        _card(
            "Deflated Sharpe",
            trials.deflated,
            None,
            3,
            f"chance of skill after {trials.count} trials"
            if trials.deflated is not None
            else "single trial: none to deflate by",
        ),
        _card(
            "Probability of overfitting",
            lucky.probability if lucky else None,
            None,
            3,
            f"CSCV, {lucky.trials} trials" if lucky else "single trial: no choice was made",
        ),
        _card(
            "Maximum drawdown",
            _times(net.get("max_drawdown"), 100),
            None,
            2,
            f"% of capital; turnover {maybe(net.get('turnover'), 3)} a bar",
        ),
    ]
    return f'<div class="cards">{"".join(shown)}</div>'


def rivals(found: Findings) -> str:
    """The model beside its baselines: a table, and whiskers of two standard errors."""
    charts = (
        f'<div class="two"><div><h3>Rank IC</h3>{_whiskers(found, "rank_ic", None)}</div>'
        f"<div><h3>Net Sharpe ratio, a year</h3>{_whiskers(found, 'sharpe', 'net')}</div></div>"
    )
    return charts + page.table(*table(found)).replace("<tbody><tr>", '<tbody><tr class="first">', 1)


def table(found: Findings) -> tuple[list[str], list[list[str]]]:
    """Header and rows: a predictor each, the model first."""
    rows = []
    for name, scores in found.past.scores.items():
        net = scores["net"]
        figures = (
            pair(scores["rank_ic"], scores["rank_ic_error"], 4),
            maybe(scores["rank_ic_t"], 1),
            maybe(scores["ic"], 4),
            maybe(scores["rank_ic_ir"], 3),
            maybe(scores["hit_rate"], 3),
            maybe(_times(scores["quantile_spread"], 1e4), 2),
            *(maybe(scores.get(key), 3) for key in OF_TASK[found.task]),
            pair(net["sharpe"], net["sharpe_error"], 2),
            maybe(_times(net["annual_return"], 100), 2),
        )
        rows.append([NAMES[name], *figures])
    head = ["predictor", "rank IC", "t", "IC", "ICIR", "hit rate", "spread, bp", *OF_TASK[found.task].values()]
    return [*head, "net Sharpe", "net % a year"], rows


def held_out(found: Findings) -> str:
    """The folds' models on their test rows, each path of them, and the final model on the judging window."""
    rows = []
    for part, name in ((found.past, "out of fold"), (found.held_out, "judging window")):
        first, last = (str(moment)[:10] for moment in (part.rows["time"].min(), part.rows["time"].max()))
        rows.append([name, f"{first} to {last}", *_row(part.scores["model"])])
    rows += [[f"out of fold, path {at + 1}", "", *_row(scores)] for at, scores in enumerate(found.paths)]
    return page.table(["rows", "span", "count", "rank IC", "hit rate", "net Sharpe", "net % a year"], rows)


def _row(scores: Mapping[str, Any]) -> list[str]:
    net = scores["net"]
    return [
        f"{scores['rows']:,}",
        pair(scores["rank_ic"], scores["rank_ic_error"], 4),
        maybe(scores["hit_rate"], 3),
        pair(net["sharpe"], net["sharpe_error"], 2),
        maybe(_times(net["annual_return"], 100), 2),
    ]


def _card(name: str, value: float | None, error: float | None, digits: int, note: str) -> str:
    figure = (
        "–"
        if value is None
        else _signed(value, digits)
        if error is not None
        else f"{value:.{digits}f}".replace("-", "−")
    )
    told = "" if error is None else f' <small class="name">± {error:.{digits}f}</small>'
    return (
        f'<div class="card"><span class="name">{escape(name)}</span><b>{figure}{told}</b>'
        f'<span class="note">{escape(note)}</span>{_interval(value, error)}</div>'
    )


def _interval(value: float | None, error: float | None) -> str:
    """A line from two errors below to two above, with zero marked; nothing of a figure without an error."""
    if value is None or error is None:
        return '<svg viewBox="0 0 220 12"></svg>'
    low, high = value - BOUND * error, value + BOUND * error
    plot = Plot(extent([low, high], pad=0.1), (0, 1), width=220, height=12, left=4, right=4, top=0, bottom=0)
    look = "up" if low > 0 else "down" if high < 0 else "none"
    plot.add(f'<path class="rule" d="M4 6H216"/><path class="rule zero" d="M{plot.at_x(0):.1f} 1V11"/>')
    left, right = plot.at_x(low), plot.at_x(high)
    plot.rect(left, 4, right - left, 4, f"f-{look} soft", f"{plain(low)} to {plain(high)}", 2)
    plot.add(f'<circle class="f-{look}" cx="{plot.at_x(value):.1f}" cy="6" r="4.5"/>')
    return plot.svg("the figure with two standard errors either side")


def _whiskers(found: Findings, measure: str, inside: str | None) -> str:
    """A dot and two standard errors for each predictor that has the measure."""
    values = {}
    for name, scores in found.past.scores.items():
        of = scores[inside] if inside else scores
        values[name] = (of[measure], of[f"{measure}_error"])
    edges = [v + sign * BOUND * e for v, e in values.values() if v is not None and e is not None for sign in (-1, 1)]
    plot = Plot(extent(edges), (0, len(values)), width=500, height=36 * len(values) + 34, left=110, top=4)
    plot.upright(5)
    for at, (name, (value, error)) in enumerate(values.items()):
        y = plot.top + 36 * at + 18
        plot.text(plot.left - 10, y + 4, NAMES[name], anchor="end", look="n")
        if value is None or error is None:
            right = plot.at_x(0) > plot.right - 80
            plot.text(plot.at_x(0) + (-8 if right else 8), y + 4, "undefined", anchor="end" if right else "start")
            continue
        low, high = plot.at_x(value - BOUND * error), plot.at_x(value + BOUND * error)
        plot.rect(low, y - 3, high - low, 6, f"f-{LOOK[name]} soft", f"{plain(value)} ± {plain(error)}", 3)
        plot.add(f'<circle class="f-{LOOK[name]}" cx="{plot.at_x(value):.1f}" cy="{y:.1f}" r="6"/>')
    return plot.svg(f"{measure} of each predictor with its error")


def _part_name(count: int) -> str:
    return {10: "decile", 5: "quintile", 4: "quartile", 3: "third", 2: "half"}.get(count, f"of {count} parts")


def _signed(value: float, digits: int) -> str:
    return f"{value:+.{digits}f}".replace("-", "−")


def maybe(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}".replace("-", "−")


def pair(value: float | None, error: float | None, digits: int) -> str:
    return "–" if value is None else f"{maybe(value, digits)} ± {maybe(error, digits)}"


def _times(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor
