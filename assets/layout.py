"""What must not change under a table: where its bars come from and how it is cut."""

from typing import Any

from assets.plan import Plan


def layout_of(plan: Plan) -> dict[str, Any]:
    """Kept in the table's metadata; the lake refuses to mix a table with another layout."""
    horizon = plan.horizon
    return {
        "source": horizon.source.identity,
        "interval": horizon.interval,
        "bars": horizon.bars.from_,
        "calendar": horizon.calendar.spec(),
        "partition": horizon.partition,
    }
