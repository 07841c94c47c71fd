"""The table at the end of `tenor run`: rows per step, scores, reports, and the prediction that was served."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from assets.names import STEPS

if TYPE_CHECKING:
    from defs.run import Outcome

SHOWN = 5  # predictions
REJECTED = "rejected: "  # begins the names of the counts in the metadata of bars, features and factors
SIZES = ("rows", "columns")  # of a table, in the metadata of its check
LEFT_OUT = ("rows restated", "rows no label", "rows coverage below the minimum", "rows purged", "rows embargoed")
SCORES = ("verdict", "promotion")


def print_summary(console: Console, outcomes: Sequence["Outcome"], *, seconds: float) -> None:
    """Print what the run came to, failures last."""
    rows = Table(title="rows per step", title_justify="left")
    rows.add_column("horizon")
    for step in STEPS[:4]:
        rows.add_column(step, justify="right")
    rows.add_column("rejected", justify="right")
    rows.add_column("model", justify="right")
    for outcome in outcomes:
        counts = [_rows(outcome, step) for step in STEPS[:4]]
        rows.add_row(outcome.horizon, *counts, _rejected(outcome), _rows(outcome, "model"))
    if any(outcome.metadata for outcome in outcomes):
        console.print(rows)
    for outcome in outcomes:
        _print_rejections(console, outcome)
        _print_warnings(console, outcome)
        _print_model(console, outcome)
        _print_prediction(console, outcome)
    for outcome in outcomes:
        for failure in outcome.failures:
            console.print(f"[bold red]{outcome.horizon} failed[/]  {failure}", highlight=False, soft_wrap=True)
    console.print(f"{seconds:.0f} s", style="dim")


def _print_rejections(console: Console, outcome: "Outcome") -> None:
    """What became of bars; the check of features and of factors names their columns and symbols."""
    bars = outcome.metadata.get("bars", {})
    told = [
        f"{_text(value)} {name.removeprefix(REJECTED)}" for name, value in bars.items() if name.startswith(REJECTED)
    ]
    if told:
        about = f"{outcome.horizon} bars rejected: {', '.join(told)}; kept in table rejected/{outcome.horizon}"
        console.print(about, style="yellow", highlight=False, soft_wrap=True)
    notes = _text(bars["notes"]) if "notes" in bars else "none"
    if notes != "none":
        console.print(f"{outcome.horizon} notes:\n{notes}", style="yellow", highlight=False, soft_wrap=True)


def _print_warnings(console: Console, outcome: "Outcome") -> None:
    """A line per check that did not pass, with the columns and symbols that its step named."""
    for name, check in outcome.warnings.items():
        told = "; ".join(f"{what}: {_text(value)}" for what, value in check.metadata.items() if what not in SIZES)
        about = f"{outcome.horizon} {check.asset_key.path[-1]} warns: check {name}; {told}"
        console.print(about, style="yellow", highlight=False, markup=False, soft_wrap=True)


def _print_model(console: Console, outcome: "Outcome") -> None:
    made = {**outcome.metadata.get("evaluation", {}), **outcome.metadata.get("model", {})}
    if not made:
        return
    bundle, trees = _text(made.get("bundle")), _text(made.get("trees"))
    console.print(f"\n[bold]{outcome.horizon}[/]  bundle {bundle}, {trees} trees", highlight=False)
    for title in SCORES:
        if title in made:
            console.print(f"  {title:<26} {_text(made[title])}", highlight=False, soft_wrap=True)
    left_out = [
        f"{int(str(made[name].value)):,} {name.removeprefix('rows ')}" for name in LEFT_OUT if _counted(made, name)
    ]
    if left_out:
        console.print(f"  {'rows left out':<26} {', '.join(left_out)}", highlight=False, soft_wrap=True)
    share = outcome.metadata.get("drift", {}).get("share drifted")
    if share is not None:
        console.print(f"  {'columns that drifted':<26} {float(str(share.value)):.0%}", highlight=False)
    for step in ("evaluation", "drift"):
        report = outcome.metadata.get(step, {}).get("report file")
        if report is not None:
            console.print(f"  {step + ' report':<26} {_text(report)}", highlight=False, soft_wrap=True)


def _counted(made: Mapping[str, Any], name: str) -> bool:
    return name in made and int(str(made[name].value)) > 0


def _print_prediction(console: Console, outcome: "Outcome") -> None:
    if outcome.predicted is None:
        return
    frame = outcome.predicted.frame.sort("prediction", descending=True)
    title = f"prediction served for {outcome.horizon}, bundle {outcome.predicted.bundle}"
    table = Table(title=title, title_justify="left")
    for column in frame.columns:
        table.add_column(column)
    for row in frame.head(SHOWN).iter_rows():
        table.add_row(*(f"{cell:+.6f}" if isinstance(cell, float) else str(cell) for cell in row))
    console.print(table)
    if frame.height > SHOWN:
        console.print(f"  … and {frame.height - SHOWN} more symbols", style="dim")


def _rows(outcome: "Outcome", step: str) -> str:
    value = outcome.metadata.get(step, {}).get("dagster/row_count")
    return "–" if value is None else f"{value.value:,}"


def _rejected(outcome: "Outcome") -> str:
    """Rejected rows of each table that has some: `3 bars, 6 features`."""
    told = []
    for step in STEPS[:3]:
        made = outcome.metadata.get(step, {})
        count = sum(int(str(value.value)) for name, value in made.items() if name.startswith(REJECTED))
        told += [f"{count:,} {step}"] if count else []
    return ", ".join(told) or "0"


def _text(value: Any) -> str:
    inner = getattr(value, "value", value)
    return f"{inner:.4f}" if isinstance(inner, float) else str(inner)
