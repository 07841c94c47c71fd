"""`tenor verify`: an audit of a horizon's own feature and factor sets on its own bars, with a verdict to act on."""

import shlex
import time
from collections.abc import Iterator, Sequence

from rich.console import Console

from conf.compose import asked, compose
from conf.errors import ConfigError
from conf.schema import Horizon
from defs.look import root_of
from quant.audit import Finding, verdict

STYLES = {"pass": "green", "hint": "cyan", "warn": "yellow", "skip": "dim", "fail": "bold red"}
INDENT = " " * 6


def verify(overrides: Sequence[str]) -> int:
    """Audit each horizon that is asked for; 1 when one is broken, else 0."""
    console = Console(highlight=False, markup=False, emoji=False)
    horizons = compose(overrides)
    broken = [_audit(console, horizons[name], overrides) for name in asked(overrides)]
    return 1 if any(broken) else 0


def _audit(console: Console, horizon: Horizon, overrides: Sequence[str]) -> bool:
    """Print the findings of one horizon as they come, then the verdict; whether it is broken."""
    from assets.audit import Audit
    from assets.names import table
    from assets.plan import Plan
    from resources.lake import Lake

    began, run = time.monotonic(), shlex.join(["tenor", "run", *overrides])
    lake = Lake(f"{root_of(horizon)}/lake")
    if not lake.exists(table("bars", horizon.name)):
        fix = f"`{run}` brings them"
        raise ConfigError(f"horizon {horizon.name}", f"there are no bars in {root_of(horizon)} to verify on", fix=fix)
    plan = Plan(horizon)
    audit = Audit(plan, lake)
    console.print(f"{horizon.name}: {len(plan.feature_entries)} features and {len(plan.factor_entries)} factors")
    findings = []
    for finding in _findings(console, audit, run):
        _print(console, finding)
        findings.append(finding)
    found = verdict(findings)
    style = "bold red" if found.broken else "bold green" if found.text.startswith("OK") else "bold yellow"
    console.print(f"verdict for {horizon.name}: {found.text}", style=style, soft_wrap=True)
    for advice in found.advice:
        console.print(f"{INDENT}{advice}.", soft_wrap=True)
    console.print(f"{INDENT}{time.monotonic() - began:.0f} s", style="dim")
    return found.broken


def _findings(console: Console, audit, run: str) -> Iterator[Finding]:  # type: ignore[no-untyped-def]
    from assets.audit_parity import parity
    from quant.audit_columns import judge, scale
    from quant.audit_laws import examine

    for subject in audit.subjects():
        time_, symbols = subject.panel.time, len(subject.panel.symbols)
        wanted = len(time_) - subject.program.lookback
        _head(console, f"laws of {subject.title}, bit for bit, on {wanted} bars of {symbols} symbols after a look-back")
        yield from examine(subject)
    spans = ", ".join(f"{first}" if first == last else f"{first} to {last}" for first, last in audit.stretches)
    _head(console, f"parity of tables, bars and serving, on {len(audit.symbols)} symbols in sessions {spans}")
    yield from parity(audit, run)
    columns = audit.columns()
    sections, rows = columns.rows["time"].n_unique(), columns.rows.height
    _head(
        console, f"the model's columns, on the newest {sections:,} sections, {rows:,} rows; nothing is fitted on them"
    )
    yield from judge(columns)
    yield scale(columns, *audit.doubled())


def _head(console: Console, text: str) -> None:
    console.print(text, style="bold", soft_wrap=True)


def _print(console: Console, finding: Finding) -> None:
    console.print(f"{finding.status:<4}", style=STYLES[finding.status], end="  ")
    console.print(f"{finding.check}: {finding.number}", soft_wrap=True)
    for line in finding.details:
        console.print(f"{INDENT}{line}", soft_wrap=True)
