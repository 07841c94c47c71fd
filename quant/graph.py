"""The expression graph. Nodes are hash-consed: equal sub-expressions are one node and are computed once."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar
from weakref import WeakValueDictionary


class HasArgs(Protocol):
    """What reads others of its kind."""

    @property
    def args(self) -> tuple[Any, ...]: ...


Reader = TypeVar("Reader", bound=HasArgs)


@dataclass(frozen=True, eq=False)
class Node:
    """One value per slot and symbol; make it with `node`, `column` or `constant`.

    op: an operator's name, "column" or "constant". values: an operator's numbers, or a column's name, or a
    constant.
    first, last: the slots that the value at slot t depends on are t + first … t + last.
    crosses: it depends on other symbols of its section. symbols: those it reads by name.
    other: of a column that is made from another horizon, that horizon and the value there.
    """

    op: str
    args: tuple["Node", ...]
    values: tuple[float | str, ...]
    first: int = 0
    last: int = 0
    crosses: bool = False
    symbols: frozenset[str] = frozenset()
    other: tuple[str, "Node"] | None = None
    __weakref__: object = field(init=False, repr=False)

    @property
    def lookback(self) -> int:
        """How many slots before its own the value reads."""
        return max(0, -self.first)

    @property
    def lookahead(self) -> int:
        """How many slots after its own the value reads."""
        return max(0, self.last)

    @property
    def is_constant(self) -> bool:
        return self.op == "constant"


_interned: WeakValueDictionary[tuple[object, ...], Node] = WeakValueDictionary()


def node(
    op: str,
    args: tuple[Node, ...],
    values: tuple[float | str, ...] = (),
    reads: tuple[int, int] = (0, 0),
    crosses: bool = False,
    symbols: frozenset[str] = frozenset(),
    other: tuple[str, Node] | None = None,
) -> Node:
    """The node of `op` over `args`; reads: first and last slot it reads of them, relative to its own."""
    key = (op, tuple(id(arg) for arg in args), values, other)
    found = _interned.get(key)
    if found is not None:
        return found
    varying = [arg for arg in args if not arg.is_constant]
    first = min((arg.first for arg in varying), default=0) + reads[0]
    last = max((arg.last for arg in varying), default=0) + reads[1]
    named = symbols.union(*(arg.symbols for arg in args))
    made = Node(op, args, values, first, last, crosses or any(arg.crosses for arg in args), named, other)
    _interned[key] = made
    return made


def column(name: str) -> Node:
    return node("column", (), (name,))


def elsewhere(name: str, horizon: str, value: Node) -> Node:
    """A column of the panel by `name` that is made from another horizon: `value` on that horizon's own grid."""
    return node("column", (), (name,), symbols=value.symbols, other=(horizon, value))


def constant(value: float) -> Node:
    return node("constant", (), (float(value),))


def ordered(roots: Iterable[Reader]) -> list[Reader]:
    """All that the roots need of a graph, each once, arguments before what reads them."""
    done: dict[Reader, None] = {}
    for root in roots:
        stack: list[tuple[Reader, Iterator[Reader]]] = [(root, iter(root.args))]
        while stack:
            current, rest = stack[-1]
            following = next((arg for arg in rest if arg not in done), None)
            if following is None:
                done[current] = None
                stack.pop()
            else:
                stack.append((following, iter(following.args)))
    return list(done)
