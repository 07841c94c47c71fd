"""The status page at `/`: one self-contained HTML file, readable without scripts and offline."""

from datetime import datetime
from html import escape

from serving.messages import Health, HorizonHealth

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Tenor · {status}</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><meta http-equiv="refresh" content="5">
<style>
:root {{ color-scheme: light dark; --line: light-dark(#e3e5ea, #2b2f38); --dim: light-dark(#687080, #98a1b3);
  --good: light-dark(#13795b, #4cc9a0); --warn: light-dark(#a15c00, #f0b458); }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 4rem auto; padding: 0 1.5rem;
  background: light-dark(#fff, #14161b); color: light-dark(#16181d, #e8eaf0); }}
h1 {{ font-size: 1.6rem; letter-spacing: -.02em; margin: 0; }}
p, th {{ color: var(--dim); }}
table {{ width: 100%; border-collapse: collapse; margin: 2rem 0; font-variant-numeric: tabular-nums; }}
th, td {{ text-align: left; padding: .6rem .5rem; border-bottom: 1px solid var(--line); }}
th {{ font-weight: 500; font-size: .85rem; }}
code {{ font: .85rem ui-monospace, monospace; }}
.serving {{ color: var(--good); }} .refused, .degraded {{ color: var(--warn); }}
a {{ color: inherit; }} nav a {{ margin-right: 1.2rem; }} small {{ color: var(--warn); display: block; }}
</style></head><body>
<h1>Tenor <span class="{status}">{status}</span></h1><p>inference service, up {uptime}</p>
<table><tr><th>horizon<th>status<th>bundle<th>ledger<th>since<th>model age</tr>
{rows}
</table>
<nav><a href="docs">API</a><a href="models">models</a><a href="health">health</a></nav>
</body></html>
"""


def render(health: Health) -> str:
    """The page for one health answer."""
    rows = "\n".join(_row(name, horizon) for name, horizon in health.horizons.items())
    none = '<tr><td colspan="6">No horizon yet: train one with <code>tenor run horizon=5m</code></tr>'
    return _PAGE.format(status=health.status, uptime=_span(health.uptime_seconds), rows=rows or none)


def _row(name: str, horizon: HorizonHealth) -> str:
    problem = f"<small>{escape(horizon.problem)}</small>" if horizon.problem else ""
    return (
        f'<tr><td>{escape(name)}<td class="{horizon.status}">{horizon.status}{problem}'
        f"<td><code>{escape(horizon.bundle or '–')[:16]}</code><td>{horizon.number or '–'}"
        f"<td>{_moment(horizon.since)}<td>{_span(horizon.model_age_seconds)}</tr>"
    )


def _moment(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC" if moment else "–"


def _span(seconds: float | None) -> str:
    """90061.0 as `1 d 1 h`: the two largest units."""
    if seconds is None:
        return "–"
    parts: list[str] = []
    rest = int(seconds)
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s")):
        count, rest = divmod(rest, size)
        if count or (unit == "s" and not parts):
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2])
