"""The formats of Tenor's tables, and how a table of an older one becomes one of today's.

A table's layout names its format. Tables of an older format are read as they are, and not written before `tenor
migrate` has brought them here; those of a newer format are refused.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from deltalake import DeltaTable, Field
from deltalake.schema import PrimitiveType

from quant.formats import newer

TABLE: Final = "table-2"  # of the steps that compute; 1 had no name, and Delta cut its log short
CURRENT: Final = (TABLE, "predictions-2", "outcomes-1", "drift-1", "drift-windows-1", "realized-1")
KEPT_LOG: Final = {"delta.enableExpiredLogCleanup": "false"}


@dataclass(frozen=True)
class Step:
    """One step from a format to the next. of: whether a layout has the older one; do: brings the table there."""

    about: str
    of: Callable[[Mapping[str, Any]], bool]
    to: str
    do: Callable[[DeltaTable], None]


def from_newer(layout: Mapping[str, Any]) -> str | None:
    """Our format where the layout's is a newer one of that name, else None."""
    return next((ours for ours in CURRENT if newer(layout.get("format"), ours)), None)


def pending(layout: Mapping[str, Any]) -> list[Step]:
    """The steps that bring a table of this layout to today's format, in their order."""
    found, now = [], dict(layout)
    while (step := next((step for step in STEPS if step.of(now)), None)) is not None:
        found.append(step)
        now["format"] = step.to
    return found


def migrate(table: DeltaTable) -> list[Step]:
    """Bring a table to today's format, and say by which steps; a crash in between is made good by the next call."""
    steps = pending(layout_of(table))
    for step in steps:
        step.do(table)
        # Last, so that a step that was interrupted is done again.
        table.alter.set_table_description(json.dumps({**layout_of(table), "format": step.to}, sort_keys=True))
    return steps


def layout_of(table: DeltaTable) -> dict[str, Any]:
    """The layout that a table was made with."""
    found: dict[str, Any] = json.loads(table.metadata().description or "{}")
    return found


def _keep_log(table: DeltaTable) -> None:
    table.alter.set_table_properties(dict(KEPT_LOG))


def _with_novelty(table: DeltaTable) -> None:
    there = {field.name for field in table.schema().fields}
    columns = {"novelty": "float", "abstained": "boolean"}
    if absent := [Field(name, PrimitiveType(kind)) for name, kind in columns.items() if name not in there]:
        table.alter.add_columns(absent)


STEPS: Final = (
    Step(
        "its log is kept, so that the versions that bundles were made from stay readable",
        lambda layout: "format" not in layout and "interval" in layout,
        TABLE,
        _keep_log,
    ),
    Step(
        "answers say how novel their inputs were to the model, and whether it abstained",
        lambda layout: layout.get("format") == "predictions-1",
        "predictions-2",
        _with_novelty,
    ),
)
