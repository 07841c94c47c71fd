"""The model on the evaluation page: what it uses (SHAP, gain) and how it learned."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from html import escape

import numpy as np

from assets import page
from assets.chart import Plot, extent, legend, plain
from assets.findings import Explained, Findings

SHOWN = 20  # factors
DOTS = 260  # rows drawn per factor
UNITS = {"regression": ("basis points", 1e4), "binary": ("log-odds", 1.0), "ranking": ("the score’s own unit", 1.0)}
SHADES = 9  # steps from a low value of the factor to a high one


def importance(found: Findings) -> str:
    """A beeswarm of SHAP values of the factors that move predictions most, and the gain of each beside it."""
    names = list(found.bundle.factors)
    unit, scale = UNITS[found.task]
    explained = replace(found.explained, values=found.explained.values * scale)
    size = np.abs(explained.values).mean(axis=0)
    order = np.argsort(-size, kind="stable")[:SHOWN]
    gains = found.bundle.manifest["importance"]
    total = sum(gains.values()) or 1.0
    drawn = _swarm(explained, names, order, size, {name: gain / total for name, gain in gains.items()})
    rows = [
        [names[at], page.figure(float(size[at])), f"{gains[names[at]] / total:.1%}"]
        for at in np.argsort(-size, kind="stable")
    ]
    listed = (
        f"<details><summary>All {len(names)} factors in figures</summary>"
        f"{page.table(('factor', 'mean |SHAP|', 'share of gain'), rows)}</details>"
    )
    keys = (
        '<div class="legend"><span>value of the factor: low <i class="ramp"></i> high</span>'
        f"<span>grey: missing</span><span>SHAP values in {unit}</span></div>"
    )
    return keys + drawn + listed


def curves(found: Findings) -> str:
    """Loss by iteration on the rows learned from and on those that stop it."""
    curve: Mapping[str, Mapping[str, Sequence[float]]] = found.bundle.manifest["curve"]
    best = found.bundle.manifest["best_iteration"]
    metrics = list(dict.fromkeys(metric for values in curve.values() for metric in values))
    charts = []
    for metric in metrics:
        lines = {part: np.array(values[metric], float) for part, values in curve.items() if metric in values}
        if not lines or max(map(len, lines.values())) < 2:
            continue
        count = max(map(len, lines.values()))
        plot = Plot((1, count), extent(*lines.values(), zero=False), height=270, left=76)
        plot.y_axis(lambda value: f"{value:.5g}")
        plot.x_axis(lambda value: f"{value:g}", 5)
        if 1 <= best <= count:
            x = plot.at_x(best)
            plot.add(f'<path class="rule mark" d="M{x:.1f} {plot.top}V{plot.bottom}"/>')
            side = "end" if best > count / 2 else "start"
            plot.text(x + (-6 if side == "end" else 6), plot.top + 12, f"stopped at {best}", anchor=side)
        for part, values in lines.items():
            plot.line(np.arange(1, len(values) + 1), values, f"s-{part}")
        charts.append(f"<h3>{escape(metric)} by iteration</h3>{plot.svg(metric)}")
    if not charts:
        return '<p class="empty">The model has a single iteration: there is no curve.</p>'
    keys = legend([("", "rows learned from"), ("k-model", "rows that stop it, purged and never learned from")])
    return keys + "".join(charts)


def _swarm(
    explained: Explained, names: Sequence[str], order: np.ndarray, size: np.ndarray, gains: Mapping[str, float]
) -> str:
    pitch = 30
    values = explained.values[:, order]
    low, high = extent(np.quantile(values, 0.002, axis=0), np.quantile(values, 0.998, axis=0))
    plot = Plot((low, high), (0, 1), height=pitch * len(order) + 36, left=230, right=210, top=4)
    plot.x_axis(plain, 6)
    plot.add(f'<path class="rule zero" d="M{plot.at_x(0):.1f} {plot.top}V{plot.bottom}"/>')
    largest = max((gains[names[at]] for at in order), default=0.0) or 1.0
    rng = np.random.default_rng(0)
    for row, at in enumerate(order):
        y = plot.top + pitch * (row + 0.5)
        taken = np.sort(rng.choice(len(values), min(DOTS, len(values)), replace=False))
        plot.add(f'<path class="rule" d="M{plot.left} {y:.1f}H{plot.right}"/>')
        plot.text(plot.left - 10, y + 4, names[at], anchor="end", look="n")
        plot.add(_dots(plot, values[taken, row], explained.X[taken, at], y, pitch))
        plot.text(plot.right + 12, y + 4, plain(float(size[at])))
        width = 90 * gains[names[at]] / largest
        plot.rect(plot.right + 106, y - 5, width, 10, "f-model soft", f"{gains[names[at]]:.1%} of the gain", 2)
    plot.text(plot.right + 12, plot.bottom + 19, "mean |SHAP|")
    plot.text(plot.right + 106, plot.bottom + 19, "share of gain")
    return plot.svg("SHAP values of the factors that matter most")


def _dots(plot: Plot, shap: np.ndarray, x: np.ndarray, y: float, pitch: int) -> str:
    """Dots of one factor, stacked where they would lie on each other, by colour of the factor's value."""
    across = np.clip([plot.at_x(value) for value in shap], plot.left, plot.right)
    stacked: dict[int, int] = {}
    offset = np.zeros(len(across))
    for at in np.argsort(across, kind="stable"):
        level = stacked.get(int(across[at] // 4), 0)
        stacked[int(across[at] // 4)] = level + 1
        offset[at] = (level + 1) // 2 * (1 if level % 2 else -1)
    tallest = max(1.0, float(np.abs(offset).max()))
    offset *= min(3.2, (pitch / 2 - 3) / tallest)
    rank = np.full(len(x), -1)
    known = np.isfinite(x)
    if known.any():
        standing = np.searchsorted(np.sort(x[known]), x[known], side="left") / max(1, known.sum() - 1)
        rank[known] = np.minimum((standing * SHADES).astype(int), SHADES - 1)
    parts = []
    for shade in np.unique(rank):
        marks = "".join(f"M{across[at]:.1f} {y + offset[at]:.1f}h0" for at in np.flatnonzero(rank == shade))
        mix = "" if shade < 0 else f' style="--mix:{shade / (SHADES - 1) * 100:.0f}%"'
        parts.append(f'<path class="dots{" unknown" if shade < 0 else ""}"{mix} d="{marks}"/>')
    return "".join(parts)
