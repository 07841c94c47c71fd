"""The words an expression may use: every operator, by name."""

from quant import composites, elementwise, rolling, section
from quant.signature import Composite, Operator

OPERATORS: dict[str, Operator] = {
    operator.name: operator for operator in (*elementwise.OPERATORS, *rolling.OPERATORS, *section.OPERATORS)
}
COMPOSITES: dict[str, Composite] = {composite.name: composite for composite in composites.COMPOSITES}

# `raw(x)` names another column, so it has no arithmetic of its own.
CALLABLE: frozenset[str] = frozenset(name for name in (*OPERATORS, *COMPOSITES, "raw") if name.isidentifier())
