"""The words an expression may use: every operator, by name."""

from quant import composites, elementwise, rolling, section
from quant.signature import Composite, Operator

OPERATORS: dict[str, Operator] = {
    operator.name: operator for operator in (*elementwise.OPERATORS, *rolling.OPERATORS, *section.OPERATORS)
}
COMPOSITES: dict[str, Composite] = {composite.name: composite for composite in composites.COMPOSITES}

# Written in a way of their own: a column's name, a symbol or a horizon in quotes. `raw` and `at` read another column:
# they are no operators.
WRITTEN = {"raw": "raw(column)", "of": 'of("SYMBOL", x)', "at": 'at("HORIZON", x)'}
CALLABLE: frozenset[str] = frozenset(name for name in (*OPERATORS, *COMPOSITES, *WRITTEN) if name.isidentifier())
