"""An expression graph becomes steps: every operator written out as the elementwise operations it stands for."""

from collections.abc import Sequence

from quant import section
from quant.graph import Node
from quant.kernels import Windows
from quant.operators import OPERATORS
from quant.primitive import Series, apply, column, constant

_ACROSS = frozenset(operator.name for operator in section.OPERATORS)


def lowered(nodes: Sequence[Node]) -> dict[Node, Series]:
    """The series of each node. nodes: arguments before what reads them."""
    made: dict[Node, Series] = {}
    windows: dict[tuple[Node, ...], Windows] = {}
    for node in nodes:
        if node.op == "constant":
            made[node] = constant(float(node.values[0]))
        elif node.op == "column":
            made[node] = column(str(node.values[0]))
        elif node.op in _ACROSS:
            made[node] = apply("section", *(made[arg] for arg in node.args), fixed=(node.op, *node.values))
        elif OPERATORS[node.op].rolling:
            if node.args not in windows:
                windows[node.args] = Windows(*(made[arg] for arg in node.args))
            made[node] = OPERATORS[node.op].compute(windows[node.args], *node.values)
        else:
            made[node] = OPERATORS[node.op].compute(*(made[arg] for arg in node.args), *node.values)
    return made
