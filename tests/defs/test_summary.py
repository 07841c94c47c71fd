"""What `tenor run` prints at its end about rows that were rejected and checks that warn."""

from io import StringIO
from typing import Any

import dagster as dg
from rich.console import Console

from assets import names
from defs.run import Outcome
from defs.summary import print_summary


def outcome(step: str, metadata: dict[str, Any], passed: bool, told: dict[str, Any]) -> Outcome:
    """What a run of one step leaves, as Dagster reports it."""

    @dg.asset(key=names.key("5m", step), check_specs=[dg.AssetCheckSpec("values_fit", asset=names.key("5m", step))])
    def made():  # type: ignore[no-untyped-def]
        severity = dg.AssetCheckSeverity.WARN
        check = dg.AssetCheckResult(check_name="values_fit", passed=passed, severity=severity, metadata=told)
        return dg.MaterializeResult(metadata=metadata, check_results=[check])

    result = dg.materialize([made], instance=dg.DagsterInstance.ephemeral())
    [event] = result.get_asset_materialization_events()
    found = Outcome("5m", {step: event.step_materialization_data.materialization.metadata})
    found.warnings = {check.check_name: check for check in result.get_asset_check_evaluations() if not check.passed}
    return found


def printed(found: Outcome) -> str:
    console = Console(file=StringIO(), width=200)
    print_summary(console, [found], seconds=1)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_a_check_that_warns_is_a_line_with_its_columns_and_symbols() -> None:
    told = {
        "rows": 90,
        "columns": 3,
        "rejected": 6,
        "worst symbols": "S002 (6 rows)",
        "too many missing": "x [a] 34.0%",
    }
    text = printed(outcome("features", {"rejected: above_high": 6}, False, told))
    line = (
        "5m features warns: check values_fit; rejected: 6; worst symbols: S002 (6 rows); too many missing: x [a] 34.0%"
    )
    assert line in text.splitlines()


def test_a_check_that_passes_is_no_line() -> None:
    assert "warns" not in printed(outcome("features", {}, True, {"rows": 90}))


def test_rejected_rows_are_counted_for_each_table() -> None:
    found = outcome("features", {"rejected: above_high": 4, "rejected: below_low": 2, "rows in": 90}, True, {})
    bars = outcome("bars", {"rejected: duplicate": 3}, True, {})
    found.metadata |= bars.metadata
    text = printed(found)
    assert "3 bars, 6 features" in text
    assert "5m bars rejected: 3 duplicate; kept in table rejected/5m" in text
    assert " 0 │" in printed(outcome("features", {}, True, {}))
