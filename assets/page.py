"""Self-contained HTML pages: text and tables, no script and nothing fetched."""

from collections.abc import Sequence
from html import escape

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


def document(title: str, sections: Sequence[str], *, heading: bool = True) -> str:
    """A whole page; heading: whether it begins with its title."""
    top = f"<h1>{escape(title)}</h1>" if heading else ""
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        '<meta name="viewport" content="width=device-width"><link rel="icon" href="data:,">'
        f"<style>{STYLE}</style></head>"
        f"<body>{top}{''.join(sections)}</body></html>"
    )


def section(title: str, about: str, content: str, anchor: str = "") -> str:
    """A titled part of a page, with a line about it; anchor: what links point to."""
    named = f' id="{anchor}"' if anchor else ""
    return f"<h2{named}>{escape(title)}</h2><p>{escape(about)}</p>{content}"


def text(value: object) -> str:
    """Anything as text that is safe inside HTML."""
    return escape(str(value))


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in header)
    body = "".join("<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def figure(value: float | None) -> str:
    """A number with four significant digits; a dash where it is undefined."""
    return "–" if value is None else f"{value:.4g}"
