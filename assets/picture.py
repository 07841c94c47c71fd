"""The picture of a set: how its columns go together and where their values are missing, as a page."""

from collections.abc import Mapping, Sequence
from html import escape
from itertools import groupby

import numpy as np

from assets import page
from assets.sample import Sample
from quant.sets import Entry

STRONGEST = 20  # pairs in the table
MOST_TITLED = 200  # columns: beyond it cells have no tooltips, which would make the page too heavy

STYLE = """<style>
.wide { width: min(94vw, 1560px); margin-left: 50%; transform: translateX(-50%); overflow-x: auto }
.wide svg { width: auto; max-width: none; display: block; margin: .6rem auto }
.wide svg text.n { fill: var(--ink) }
.wide svg text.g { fill: var(--ink); font-weight: 600; font-size: 12px }
.p rect { fill: #c8553d } .m rect { fill: #2f6f9f } .c rect { fill: var(--up) }
@media (prefers-color-scheme: dark) { .p rect { fill: #f08a6c } .m rect { fill: #6db3e0 } }
rect:hover { stroke: var(--ink); stroke-width: 1.5 }
.frame { fill: none; stroke: var(--line) } .rule { stroke: var(--line) }
.none { fill: var(--line); fill-opacity: .45 }
</style>"""


def render(title: str, about: str, entries: Mapping[str, Entry], sample: Sample, symbols: int) -> str:
    """The page of one run of one step: self-contained HTML. symbols: of the horizon."""
    order = grouped(entries)
    ordered = [sample.names[at] for at in order]
    found = sample.correlation()[np.ix_(order, order)]
    groups = [entries[name].group for name in ordered]
    rows = int(sample.rows.sum())
    drawn = (
        f"all {rows:,} rows"
        if sample.size == rows
        else f"{sample.size:,} of {rows:,} rows, drawn by a hash of their keys"
    )
    sections = [
        STYLE,
        f"<p>{escape(about)}</p>",
        page.section(
            "What goes together",
            f"Spearman's rank correlation between {len(ordered)} columns over {drawn}. Red goes together, blue goes "
            "against, faint means neither; a grey cell has too few rows or a constant column.",
            _wide(correlation(ordered, groups, found)),
        ),
        page.section(
            "Nearly the same",
            "The pairs that go together most, either way: a model learns little from the second of them.",
            page.table(("column", "column", "rank correlation"), strongest(ordered, found)),
        ),
        page.section(
            "Where values are missing",
            f"Share of rows that have a value, over {len(sample.starts)} spans of equally many bars; the stronger the "
            f"colour the more, and grey is none. The first line is the share of {symbols} symbols that have a row.",
            _wide(coverage(ordered, groups, sample, sample.present[:, order], symbols)),
        ),
    ]
    return page.document(title, sections)


def grouped(entries: Mapping[str, Entry]) -> list[int]:
    """Places of the entries with those of a group together, groups in the order of their first entry."""
    groups = list(dict.fromkeys(entry.group for entry in entries.values()))
    return sorted(range(len(entries)), key=lambda at: groups.index([*entries.values()][at].group))


def strongest(names: Sequence[str], found: np.ndarray) -> list[tuple[str, str, str]]:
    """The pairs with the largest correlation, either way."""
    first, second = np.tril_indices(len(names), -1)
    values = found[first, second]
    known = np.flatnonzero(~np.isnan(values))
    best = known[np.argsort(-np.abs(values[known]), kind="stable")][:STRONGEST]
    return [(names[second[at]], names[first[at]], f"{values[at]:+.3f}") for at in best]


def correlation(names: Sequence[str], groups: Sequence[str], found: np.ndarray) -> str:
    """The lower triangle as cells, red for positive and blue for negative, groups named along the diagonal."""
    pitch, letter, left = _sizes(names)
    side = pitch * len(names)
    titled = len(names) <= MOST_TITLED
    shown = [escape(name) for name in names]
    cells: dict[str, list[str]] = {"p": [], "m": []}
    unknown = []
    for row in range(len(names)):
        for column in range(row):
            value = found[row, column]
            where = f'x="{left + column * pitch}" y="{row * pitch}"'
            if np.isnan(value):
                unknown.append(f'<rect class="none" {where} width="{pitch}" height="{pitch}"/>')
            elif titled or abs(value) >= 0.05:
                about = f"<title>{shown[row]} × {shown[column]}: {value:+.2f}</title>" if titled else ""
                cells["p" if value >= 0 else "m"].append(
                    f'<rect {where} width="{pitch}" height="{pitch}" opacity="{_shade(value)}">{about}</rect>'
                )
    parts = [f'<g class="{sign}">{"".join(drawn)}</g>' for sign, drawn in cells.items()] + unknown
    parts += [_label(name, left, row * pitch, pitch, letter) for row, name in enumerate(names)]
    for group, start, stop in _runs(groups):
        at, width = left + start * pitch, (stop - start) * pitch
        parts.append(
            f'<path class="frame" d="M{at} {start * pitch}V{stop * pitch}H{at + width}"/>'
            f'<path class="rule" d="M{left} {stop * pitch}H{at + width}M{at + width} {stop * pitch}V{side}"/>'
            f'<text class="g" x="{at + width / 2 + 10:.0f}" y="{start * pitch + width / 2 - 2:.0f}" '
            f'font-size="12">{escape(group)}</text>'
        )
    parts.append(_legend(left + max(side // 2, 150), 8))
    return _svg(left + side + 120, side + 4, parts)


def coverage(names: Sequence[str], groups: Sequence[str], sample: Sample, present: np.ndarray, symbols: int) -> str:
    """A line of cells per column over time, as dark as the share of rows with a value; present: [spans, F]."""
    pitch, letter, left = _sizes(names)
    width, top = 1000 / max(1, len(sample.starts)), 34
    days = [_minute(stamp) for stamp in sample.starts]
    parts = []
    there = sample.rows / np.maximum(sample.sizes * symbols, 1)
    bottom = top + len(names) * pitch
    parts.append(f'<path class="none" d="M{left} 10h1000v17h-1000zM{left} {top}h1000v{bottom - top}h-1000z"/>')
    parts.append(f'<text class="g" x="{left - 6}" y="24" text-anchor="end">rows</text>')
    parts.append(f'<g class="c">{_strip("rows", "symbols", there, days, left, 10, 18, width)}</g>')
    parts.append(_share(there @ sample.sizes / max(1, sample.sizes.sum()), 24, left + width * len(days), 11))
    shares = np.where(sample.rows[:, None] > 0, present / np.maximum(sample.rows, 1)[:, None], np.nan)
    total = present.sum(axis=0) / max(1, sample.rows.sum())
    lines = []
    for row, name in enumerate(names):
        y = top + row * pitch
        lines.append(_strip(name, "rows", shares[:, row], days, left, y, pitch, width))
        parts.append(_label(name, left, y, pitch, letter))
        parts.append(_share(total[row], y + pitch - (pitch - letter) / 2 - 1, left + width * len(days), letter))
    parts.append(f'<g class="c">{"".join(lines)}</g>')
    for group, start, stop in _runs(groups):
        y = top + stop * pitch
        parts.append(
            f'<path class="rule" d="M{left} {y}H{left + 1090}"/><text class="g" x="{left + 1060}" '
            f'y="{top + (start + stop) / 2 * pitch + 4:.0f}">{escape(group)}</text>'
        )
    if days:
        parts.append(f'<text x="{left}" y="{bottom + 16}">{days[0]}</text>')
        last = _minute(sample.slots[-1])
        parts.append(f'<text x="{left + 1000}" y="{bottom + 16}" text-anchor="end">{last}</text>')
    return _svg(left + 1180, bottom + 24, parts)


def _strip(
    name: str, of: str, shares: np.ndarray, days: Sequence[str], left: int, y: float, height: float, width: float
) -> str:
    """Cells of one line; neighbours of the same share are one cell."""
    cells, at = [], 0
    for share, run in groupby(["" if np.isnan(share) else f"{share:.1%}" for share in shares]):
        length = len(list(run))
        value = float(shares[at])
        if share:
            when = days[at] if length == 1 else f"{days[at]} to {days[at + length - 1]}"
            # Light still tells a few values from none.
            shade = 0.06 + 0.84 * value**2 if value > 0 else 0
            cells.append(
                f'<rect x="{left + at * width:.1f}" y="{y}" width="{length * width:.1f}" height="{height - 1}" '
                f'opacity="{shade:.2f}"><title>{escape(name)}, {when}: {share} of {of}</title></rect>'
            )
        at += length
    return "".join(cells)


def _sizes(names: Sequence[str]) -> tuple[int, int, int]:
    """Pixels from one column to the next, of its name's height, and for all names: smaller where there are many."""
    pitch = int(np.clip(1240 // max(1, len(names)), 8, 26))
    letter = min(12, pitch - 1)
    return pitch, letter, 50 + int(max(map(len, names), default=0) * letter * 0.62)


def _label(name: str, left: int, top: float, pitch: int, letter: int) -> str:
    at = f'x="{left - 6}" y="{top + pitch - (pitch - letter) / 2 - 1:g}"'
    return f'<text class="n" {at} text-anchor="end" style="font-size:{letter}px">{escape(name)}</text>'


def _share(share: float, y: float, x: float, letter: int) -> str:
    return f'<text x="{x + 50:.0f}" y="{y:g}" text-anchor="end" style="font-size:{letter}px">{share:.1%}</text>'


def _legend(x: float, y: float) -> str:
    """Shades from -1 to 1 with their figures."""
    parts = []
    for at in range(21):
        value = at / 10 - 1
        parts.append(
            f'<g class="{"p" if value >= 0 else "m"}"><rect x="{x + at * 10}" y="{y}" width="10" height="12" '
            f'opacity="{_shade(value)}"/></g>'
        )
    for end, place in (("−1", 0), ("0", 105), ("1", 210)):
        parts.append(f'<text x="{x + place}" y="{y + 28}" text-anchor="middle">{end}</text>')
    return "".join(parts)


def _shade(value: float) -> str:
    return f"{abs(value):.2f}"


def _runs(groups: Sequence[str]) -> list[tuple[str, int, int]]:
    """(group, first place, place after the last) of each run of equal groups."""
    runs, at = [], 0
    for group, members in groupby(groups):
        length = len(list(members))
        runs.append((group, at, at + length))
        at += length
    return runs


def _minute(stamp: np.datetime64) -> str:
    return str(stamp)[:16].replace("T", " ")


def _svg(width: float, height: float, parts: Sequence[str]) -> str:
    size = f'width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}"'
    return f'<svg {size} role="img">{"".join(parts)}</svg>'


def _wide(content: str) -> str:
    return f'<div class="wide">{content}</div>'
