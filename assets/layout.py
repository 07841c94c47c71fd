"""What must not change under a table: where its bars come from and how it is cut."""

from typing import Any

from assets.plan import Plan
from quant.attributes import coded
from quant.program import Program
from resources.formats import TABLE


def layout_of(plan: Plan, program: Program | None = None) -> dict[str, Any]:
    """Kept in the table's metadata; the lake refuses to mix a table with another layout.

    program: what makes the table's values. Where it passes on the codes of a text attribute, other categories would
    give the same value another meaning.
    """
    horizon = plan.horizon
    codes = coded(program, plan.attributes) if program else {}
    for other, part in (program.others if program else {}).items():
        codes |= {f"{other} {name}": told for name, told in coded(part, plan.others[other].attributes).items()}
    return {
        "format": TABLE,
        "source": horizon.source.identity,
        "interval": horizon.interval,
        "bars": horizon.bars.from_,
        "calendar": horizon.calendar.spec(),
        "partition": horizon.partition,
        **({"categories": codes} if codes else {}),
    }
