"""Self-contained HTML pages: text, tables and small SVG charts, no script and nothing fetched."""

from collections.abc import Sequence
from html import escape

WIDTH, HEIGHT = 720, 220

STYLE = """
:root { color-scheme: light dark; --ink: #1c2430; --soft: #6b7687; --line: #d8dde5; --paper: #fff;
  --up: #1f7a5c; --down: #b4443c }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8ebf0; --soft: #97a2b3; --line: #38414f; --paper: #151a21; --up: #58c39b; --down: #e98a82 } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 1040px; margin: 3rem auto; padding: 0 1.5rem }
h1 { font-size: 1.5rem; margin-bottom: .2rem }
h2 { font-size: 1.05rem; margin: 2.4rem 0 .2rem }
p { color: var(--soft); margin: 0 0 .8rem }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .85rem;
  display: block; overflow-x: auto }
th, td { padding: .3rem .7rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap }
th:first-child, td:first-child { text-align: left }
th { color: var(--soft); font-weight: 500 }
svg { width: 100%; height: auto }
svg text { fill: var(--soft); font-size: 11px }
"""


def document(title: str, sections: Sequence[str]) -> str:
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head>'
        f"<body><h1>{escape(title)}</h1>{''.join(sections)}</body></html>"
    )


def section(title: str, about: str, content: str) -> str:
    return f"<h2>{escape(title)}</h2><p>{escape(about)}</p>{content}"


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in header)
    body = "".join("<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def figure(value: float | None) -> str:
    """A number with four significant digits; a dash where it is undefined."""
    return "–" if value is None else f"{value:.4g}"


def line(values: Sequence[float], first: str, last: str) -> str:
    """A line over equally spaced points, with zero drawn; `first` and `last` label the ends."""
    if len(values) < 2:
        return "<p>Too few sections to draw.</p>"
    low, high = min(0.0, *values), max(0.0, *values)
    scale = (HEIGHT - 40) / ((high - low) or 1.0)
    points = " ".join(
        f"{at * (WIDTH - 60) / (len(values) - 1) + 50:.1f},{20 + (high - value) * scale:.1f}"
        for at, value in enumerate(values)
    )
    zero = 20 + high * scale
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">'
        f'<line x1="50" x2="{WIDTH - 10}" y1="{zero:.1f}" y2="{zero:.1f}" stroke="var(--line)"/>'
        f'<polyline points="{points}" fill="none" stroke="var(--up)" stroke-width="1.6"/>'
        f'<text x="0" y="24">{high:.2f}</text><text x="0" y="{HEIGHT - 20}">{low:.2f}</text>'
        f'<text x="50" y="{HEIGHT - 2}">{escape(first)}</text>'
        f'<text x="{WIDTH - 10}" y="{HEIGHT - 2}" text-anchor="end">{escape(last)}</text></svg>'
    )


def bars(values: Sequence[tuple[str, float | None]]) -> str:
    """Horizontal bars from a common zero, in the order given; an undefined value has none."""
    known = [value for _, value in values if value is not None]
    low, high = min([0.0, *known]), max([0.0, *known])
    scale = (WIDTH - 330) / ((high - low) or 1.0)
    zero = 230 + (0 - low) * scale
    rows = []
    for at, (name, value) in enumerate(values):
        top = at * 22
        rows.append(f'<text x="220" y="{top + 15}" text-anchor="end">{escape(name)}</text>')
        if value is not None:
            start, width = min(zero, zero + value * scale), abs(value) * scale
            colour = "var(--up)" if value >= 0 else "var(--down)"
            rows.append(f'<rect x="{start:.1f}" y="{top + 3}" width="{width:.1f}" height="15" rx="2" fill="{colour}"/>')
            rows.append(f'<text x="{WIDTH - 4}" y="{top + 15}" text-anchor="end">{figure(value)}</text>')
    return f'<svg viewBox="0 0 {WIDTH} {22 * len(values)}" role="img">{"".join(rows)}</svg>'
