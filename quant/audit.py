"""What an audit of feature and factor sets finds: one line per check, and a verdict that a person can act on."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

Status = Literal["pass", "hint", "warn", "skip", "fail"]


@dataclass(frozen=True)
class Finding:
    """One check: how it ended, the number behind it, and for all but a pass what it saw.

    columns: those a reader should look at. advice: what to do, where that is not plain from the check.
    """

    check: str
    status: Status
    number: str
    details: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    advice: str = ""


@dataclass(frozen=True)
class Verdict:
    """broken: nothing built on these sets can be trusted before it is mended."""

    text: str
    broken: bool
    advice: tuple[str, ...] = ()


def verdict(findings: Iterable[Finding]) -> Verdict:
    """A failed check is broken; warned columns want a look; hints and skipped checks change nothing."""
    every = list(findings)
    failed = [finding for finding in every if finding.status == "fail"]
    warned = [finding for finding in every if finding.status == "warn"]
    skipped = [finding for finding in every if finding.status == "skip"]
    advice = tuple(dict.fromkeys(finding.advice for finding in (*failed, *warned, *skipped) if finding.advice))
    if failed:
        names = ", ".join(f"“{finding.check}”" for finding in failed)
        return Verdict(f"broken: {names} failed", True, advice)
    columns = sorted({column for finding in warned for column in finding.columns})
    if columns:
        many = f"these {len(columns)} columns" if len(columns) > 1 else "this column"
        return Verdict(f"look at {many}: {listed(columns)}", False, advice)
    if skipped:
        return Verdict(f"OK, with {len(skipped)} of {len(every)} checks skipped", False, advice)
    return Verdict("OK", False)


def listed(names: Sequence[str], most: int = 8) -> str:
    """Names in a row, the first few of many."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
