"""Expression text becomes a graph: Python's syntax, read with `ast` against a whitelist, never `eval`."""

import ast
import difflib
import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NoReturn

from quant.folding import FOLDED, fold
from quant.graph import Node, column, constant, elsewhere, node, ordered
from quant.operators import CALLABLE, COMPOSITES, OPERATORS, WRITTEN
from quant.python_words import instead, kind
from quant.signature import Composite, Number, Operator

LONGEST_TEXT = 4_000
DEEPEST = 100
FARTHEST = 100_000  # slots that one expression may read back or ahead
BAR = ("open", "high", "low", "close", "volume")
OF_COMPOSITES = (*BAR, "bar_of_session")  # columns that an operator written in the language may read

_BINARY = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.Pow: "**"}
_COMPARE = {ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!="}


Names = Mapping[str, Node]
NO_OTHERS: Mapping[str, Names] = MappingProxyType({})


class ExpressionError(ValueError):
    """A mistake in an expression, told in one message: file, entry, column, what, nearest known name."""


class UnknownName(ExpressionError):
    """An expression names what is not there. name: what it names. horizon: where, inside at(…); else ""."""

    def __init__(self, message: str, name: str, horizon: str = "") -> None:
        super().__init__(message)
        self.name = name
        self.horizon = horizon


def parse(
    text: str,
    *,
    file: str = "",
    entry: str = "",
    names: Mapping[str, Node] | None = None,
    later: Collection[str] = (),
    others: Mapping[str, Names] | None = NO_OTHERS,
) -> Node:
    """The graph of an expression.

    names: what a name may stand for; without it any name is a column. later: entries further down, for the
    message to whoever names one. others: what names stand for in other horizons, for at("1h", x); None leaves x
    unread, for whom it is enough to see that there is one. Raises ExpressionError.
    """
    source = Source(text.strip(), file, entry)
    return _Reader(source, names, later, others).read(syntax(source))


@dataclass(frozen=True)
class Source:
    """A text and where it stands, for messages."""

    text: str
    file: str = ""
    entry: str = ""

    def error(self, problem: str, at: int | None = None) -> ExpressionError:
        place = ", ".join(part for part in (self.entry, "" if at is None else f"column {at + 1}") if part)
        where = ": ".join(part for part in (self.file, place) if part) or "expression"
        shown = self.text if len(self.text) <= 120 else f"{self.text[:117]}..."
        return ExpressionError(
            f"{where}: {problem}\n  {shown}" + ("" if at is None or at >= 120 else f"\n  {' ' * at}^")
        )

    def place(self, tree: ast.expr) -> int | None:
        """The character at which a part of the text begins; None where that is not in the first line."""
        # ast counts columns in UTF-8 bytes, readers count characters.
        at = len(self.text.encode().splitlines()[tree.lineno - 1][: tree.col_offset].decode())
        return at if tree.lineno == 1 else None


def syntax(source: Source) -> ast.expr:
    """The Python expression of a text; ExpressionError for one too long or too deeply nested to read."""
    text = source.text
    if not text.strip():
        raise source.error("the expression is empty")
    if len(text) > LONGEST_TEXT:
        raise source.error(
            f"the expression has {len(text)} characters, more than {LONGEST_TEXT}: split it into entries"
        )
    try:
        return ast.parse(text, mode="eval").body
    except SyntaxError as error:
        raise source.error(f"not an expression: {error.msg}", max(0, (error.offset or 1) - 1)) from None
    except (RecursionError, MemoryError, ValueError) as error:
        raise source.error(f"the expression cannot be read: {error or 'nested too deeply'}") from None


class _Reader:
    """Reads one syntax tree into nodes."""

    def __init__(
        self,
        source: Source,
        names: Names | None,
        later: Collection[str],
        others: Mapping[str, Names] | None,
        horizon: str = "",
    ) -> None:
        self.source = source
        self.names = names
        self.later = later
        self.others = others
        self.horizon = horizon  # the one whose names these are, where it is another than the entry's own

    def read(self, tree: ast.expr, depth: int = 0) -> Node:
        if depth > DEEPEST:
            self.fail(tree, f"nested deeper than {DEEPEST}: split it into entries")
        deeper = depth + 1
        match tree:
            case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
                return self.number(tree, value)
            case ast.Name(id=name):
                return self.name(tree, name)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                inner = self.read(operand, deeper)
                return constant(-_value(inner)) if inner.is_constant else node("negate", (inner,))
            case ast.UnaryOp(op=ast.UAdd(), operand=operand):
                return self.read(operand, deeper)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return self.varying(tree, "not", self.read(operand, deeper))
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
                return self.arithmetic(tree, _BINARY[type(op)], self.read(left, deeper), self.read(right, deeper))
            case ast.BoolOp(op=op, values=values):
                word = "and" if isinstance(op, ast.And) else "or"
                return self.chain(tree, word, [self.read(value, deeper) for value in values])
            case ast.Compare(left=left, ops=ops, comparators=others):
                sides = [self.read(side, deeper) for side in (left, *others)]
                return self.comparison(tree, ops, sides)
            case ast.IfExp(test=test, body=body, orelse=orelse):
                return self.varying(tree, "where", *(self.read(part, deeper) for part in (test, body, orelse)))
            case ast.Call():
                return self.call(tree, deeper)
            case ast.Constant(value=str() as text) if text.isidentifier():
                self.fail(tree, f"{text!r} is a text: write the name without quotes, {text}")
        return self.fail(tree, f"{kind(tree)} is not part of the language{instead(tree)}")

    def fail(self, tree: ast.expr, problem: str) -> NoReturn:
        raise self.source.error(problem, self.source.place(tree))

    # Names and numbers

    def number(self, tree: ast.expr, value: float) -> Node:
        try:
            finite = abs(float(value)) < 3.4e38
        except OverflowError:
            finite = False
        if not finite:
            self.fail(tree, "the number does not fit float32")
        return constant(value)

    def name(self, tree: ast.expr, name: str) -> Node:
        if self.names is None:
            if name.startswith("_"):
                self.fail(tree, f"{name} is not a column's name")
            return column(name)
        if name in self.names:
            return self.names[name]
        if name in self.later:
            self.fail(tree, f"{name} is declared here or further down: an entry may name earlier ones")
        if name in CALLABLE:
            problem = f"{name} is no column here; as an operator it needs arguments: {_signature(name)}"
        else:
            where = f" in horizon {self.horizon}" if self.horizon else ""
            nearest = _hint(name, self.names) or ": no column, no attribute of the universe, no earlier entry"
            problem = f"unknown name {name}{where}{nearest}"
        raise UnknownName(str(self.source.error(problem, self.source.place(tree))), name, self.horizon)

    # Arithmetic and logic

    def arithmetic(self, tree: ast.expr, op: str, x: Node, y: Node) -> Node:
        if x.is_constant and y.is_constant:
            return self.folded(tree, op, x, y)
        if op == "**" and y.is_constant and _value(y) == 2:
            return node("*", (x, x))  # exact, where a power is not
        if op == "**" and y.is_constant and _value(y) == 0.5:
            return node("sqrt", (x,))
        return node(op, (x, y))

    def folded(self, tree: ast.expr, op: str, *args: Node) -> Node:
        values = tuple(_value(arg) for arg in args)
        value = fold(op, values)
        if math.isnan(value):
            shown = [f"{value:g}" for value in values]
            text = f"{op}({', '.join(shown)})" if op.isidentifier() else f" {op} ".join(shown)
            self.fail(tree, f"{text} is not a finite number")
        return self.number(tree, value)

    def chain(self, tree: ast.expr, op: str, parts: list[Node]) -> Node:
        result = parts[0]
        for part in parts[1:]:
            result = self.varying(tree, op, result, part)
        return result

    def comparison(self, tree: ast.expr, ops: list[ast.cmpop], sides: list[Node]) -> Node:
        unknown = [op for op in ops if type(op) not in _COMPARE]
        if unknown:
            self.fail(tree, f"{type(unknown[0]).__name__.lower()} is not a comparison of numbers")
        links = [self.varying(tree, _COMPARE[type(op)], x, y) for op, x, y in zip(ops, sides, sides[1:], strict=False)]
        return self.chain(tree, "and", links)

    def varying(self, tree: ast.expr, op: str, *args: Node) -> Node:
        if all(arg.is_constant for arg in args):
            self.fail(tree, f"{op} of constants: name a column in it")
        return node(op, args)

    # Calls

    def call(self, tree: ast.Call, depth: int) -> Node:
        if not isinstance(tree.func, ast.Name):
            self.fail(tree, f"{kind(tree.func)} cannot be called: call an operator by its name")
        name = tree.func.id
        if name not in CALLABLE:
            self.fail(tree, f"unknown operator {name}{_hint(name, CALLABLE)}")
        if name == "raw":
            return self.raw(tree)
        if name == "of":
            return self.of(tree, depth)
        if name == "at":
            return self.at(tree, depth)
        if name in COMPOSITES:
            composite = COMPOSITES[name]
            return self.composite(tree, composite, self.bound(tree, composite.signature, composite.parameters, depth))
        operator = OPERATORS[name]
        return self.operation(tree, operator, self.bound(tree, operator.signature, operator.parameters, depth))

    def bound(
        self, tree: ast.Call, signature: str, defaults: Mapping[str, float | None], depth: int
    ) -> dict[str, Node]:
        """Arguments by parameter name: positions, then keywords, then defaults."""
        if len(tree.args) > len(defaults):
            self.fail(tree, f"{signature} takes {len(defaults)} arguments, {len(tree.args)} are given")
        given = dict(zip(defaults, (self.read(arg, depth) for arg in tree.args), strict=False))
        for keyword in tree.keywords:
            part = keyword.arg or "**"
            if part not in defaults:
                self.fail(keyword.value, f"{signature} has no argument {part}{_hint(part, defaults)}")
            if part in given:
                self.fail(keyword.value, f"{signature} is given {part} twice")
            given[part] = self.read(keyword.value, depth)
        for part, default in defaults.items():
            if part not in given and default is None:
                self.fail(tree, f"{signature} needs {part}")
        return {part: given.get(part) or constant(default or 0.0) for part, default in defaults.items()}

    def operation(self, tree: ast.Call, operator: Operator, given: Mapping[str, Node]) -> Node:
        series = tuple(given[part] for part in operator.series)
        if operator.rolling or operator.crosses or operator.numbers:
            for part, arg in zip(operator.series, series, strict=True):
                if arg.is_constant:
                    self.fail(
                        tree,
                        f"{operator.signature}: {part} is the constant {_value(arg):g}, it must be a series",
                    )
        elif all(arg.is_constant for arg in series):
            if operator.name in FOLDED:
                return self.folded(tree, operator.name, *series)
            self.fail(tree, f"{operator.name} of constants: name a column in it")
        numbers = tuple(self.checked(tree, operator, number, given[number.name]) for number in operator.numbers)
        made = node(operator.name, series, numbers, operator.reads(*numbers), operator.crosses)
        if made.lookback > FARTHEST or made.lookahead > FARTHEST:
            self.fail(
                tree,
                f"{operator.name} reaches {max(made.lookback, made.lookahead)} slots, more than {FARTHEST}",
            )
        return made

    def checked(self, tree: ast.Call, operator: Operator, number: Number, given: Node) -> int | float:
        if not given.is_constant:
            instead = {"max": "maximum(x, y)", "min": "minimum(x, y)"}.get(operator.name)
            hint = f"; for two series write {instead}" if instead else ""
            self.fail(tree, f"{operator.signature}: {number.name} must be a number{hint}")
        value = _value(given)
        if operator.name == "lag" and value < 0:
            self.fail(tree, f"lag(x, {value:g}) would look ahead: only a label may, and writes lead(x, {-value:g})")
        if not number.low <= value <= number.high or (number.whole and value != int(value)):
            wanted = "a whole number" if number.whole else "a number"
            allowed = f"{wanted} from {number.low:g} to {number.high:g}"
            self.fail(tree, f"{operator.signature}: {number.name} is {value:g}, not {allowed}")
        return int(value) if number.whole else value

    def composite(self, tree: ast.Call, composite: Composite, given: Mapping[str, Node]) -> Node:
        columns = [name for name in OF_COMPOSITES if self.names is None or name in self.names]
        scope = {name: column(name) for name in columns} | dict(given)
        try:
            return parse(composite.text, names=scope)
        except ExpressionError as error:
            self.fail(tree, f"{composite.signature}: {str(error).splitlines()[0]}")

    def raw(self, tree: ast.Call) -> Node:
        match tree:
            case ast.Call(args=[ast.Name(id=name)], keywords=[]) if name in BAR:
                return self.name(tree.args[0], f"raw_{name}")
        return self.fail(tree, f"raw takes one of {', '.join(BAR)}")

    def of(self, tree: ast.Call, depth: int) -> Node:
        match tree:
            case ast.Call(args=[ast.Constant(value=str() as symbol), x], keywords=[]) if symbol:
                series = self.read(x, depth)
                if series.is_constant:
                    self.fail(tree, f"of: x is the constant {_value(series):g}, it must be a series")
                return node("of", (series,), (symbol,), symbols=frozenset((symbol,)))
        return self.fail(tree, f"of takes a symbol in quotes and a series: {_signature('of')}")

    def at(self, tree: ast.Call, depth: int) -> Node:
        """A column by the text of the call; its value is read with the other horizon's names."""
        match tree:
            case ast.Call(args=[ast.Constant(value=str() as horizon), x], keywords=[]) if horizon:
                pass
            case _:
                self.fail(tree, f"at takes a horizon in quotes and a series: {_signature('at')}")
        if self.horizon:
            self.fail(tree, f'at inside at("{self.horizon}", …): one horizon reads another one, not a third')
        if self.others is not None and horizon not in self.others:
            known = f"the others are {', '.join(self.others)}" if self.others else "only features and factors read one"
            self.fail(tree, f"at: there is no horizon {horizon} here: {known}")
        names = None if self.others is None else self.others[horizon]
        value = _Reader(self.source, names, (), NO_OTHERS, horizon).read(x, depth)
        name = f'at("{horizon}", {ast.unparse(x)})'
        if self.others is not None:
            self.fits_elsewhere(tree, name, value)
        return elsewhere(name, horizon, value)

    def fits_elsewhere(self, tree: ast.Call, name: str, value: Node) -> None:
        if value.is_constant:
            self.fail(tree, f"{name}: x is the constant {_value(value):g}, it must be a series")
        if value.crosses:
            self.fail(tree, f"{name} mixes the symbols of a section: compare them outside, as in rank(at(…))")
        if value.lookahead:
            self.fail(tree, f"{name} looks {value.lookahead} slots ahead: only a label of its own horizon may")
        chained = [str(part.values[0]) for part in ordered([value]) if part.other]
        if chained:
            self.fail(tree, f"{name} reads {chained[0]} in turn: one horizon reads another one, not a third")


def _value(given: Node) -> float:
    value = given.values[0]
    assert isinstance(value, float)
    return value


def _hint(name: str, known: Iterable[str]) -> str:
    nearest = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {nearest[0]}?" if nearest else ""


def _signature(name: str) -> str:
    if name in WRITTEN:
        return WRITTEN[name]
    return (OPERATORS.get(name) or COMPOSITES[name]).signature
