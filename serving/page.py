"""The pages at `/` and `/docs`: files of ours alone, so that they work where the internet does not reach."""

from datetime import datetime
from html import escape
from pathlib import Path

from serving.messages import Health, HorizonHealth

FOLDER = Path(__file__).parent / "pages"
DOCS = (FOLDER / "docs.html").read_text(encoding="utf-8")

# The browser itself sees to it that a page loads nothing from elsewhere.
HEADERS = {"content-security-policy": "default-src 'self'; frame-ancestors 'none'", "cache-control": "no-cache"}

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Tenor · {status}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<noscript><meta http-equiv="refresh" content="5"></noscript>
<link rel="icon" href="pages/icon.svg"><link rel="stylesheet" href="pages/style.css">
</head><body>
<div id="status">
<h1>Tenor <span class="{status}">{status}</span></h1><p>inference service, up {uptime}</p>
<table><tr><th>horizon<th>status<th>bundle<th>ledger<th>since<th>age of model<th>newest bar<th>age of data</tr>
{rows}
</table>
</div>
<nav><a href="docs">API</a><a href="models">models</a><a href="health">health</a><a href="metrics">metrics</a></nav>
<h2>Signals <small id="stream">connecting</small></h2>
<p><label>API key, where the service has keys <input id="key" type="password" autocomplete="off"></label></p>
<div id="signals"></div>
<script src="pages/live.js"></script>
</body></html>
"""


def render(health: Health) -> str:
    """The status page for one health answer; readable without scripts, live with them."""
    rows = "\n".join(_row(name, horizon) for name, horizon in health.horizons.items())
    none = '<tr><td colspan="8">No horizon yet: train one with <code>tenor run</code></tr>'
    return _PAGE.format(status=health.status, uptime=_span(health.uptime_seconds), rows=rows or none)


def _row(name: str, horizon: HorizonHealth) -> str:
    problem = f"<small>{escape(horizon.problem)}</small>" if horizon.problem else ""
    return (
        f'<tr><td>{escape(name)}<td class="{horizon.status}">{horizon.status}{problem}'
        f"<td><code>{escape(horizon.bundle or '–')[:16]}</code><td>{horizon.number or '–'}"
        f"<td>{_moment(horizon.since)}<td>{_span(horizon.model_age_seconds)}"
        f"<td>{_moment(horizon.newest_bar)}<td>{_span(horizon.data_age_seconds)}</tr>"
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
