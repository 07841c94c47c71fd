"""What Python has and the expressions lack, in the words of messages."""

import ast

OPERATORS: dict[type[ast.operator | ast.unaryop], tuple[str, str]] = {  # how it is written, what to write instead
    ast.BitAnd: ("&", "`x and y`"),
    ast.BitOr: ("|", "`x or y`"),
    ast.BitXor: ("^", "`x ** y` for a power"),
    ast.Invert: ("~", "`not x`"),
    ast.FloorDiv: ("//", "`x / y`"),
    ast.Mod: ("%", ""),
    ast.MatMult: ("@", ""),
    ast.LShift: ("<<", ""),
    ast.RShift: (">>", ""),
}


def kind(tree: ast.expr) -> str:
    """A piece of Python as people call it."""
    words = {
        ast.Attribute: "attribute access",
        ast.Subscript: "indexing",
        ast.Lambda: "a lambda",
        ast.Constant: "this constant",
        ast.List: "a list",
        ast.Tuple: "a tuple",
        ast.Dict: "a dictionary",
        ast.Set: "a set",
        ast.ListComp: "a list comprehension",
        ast.GeneratorExp: "a generator",
        ast.NamedExpr: ":=",
        ast.JoinedStr: "an f-string",
        ast.Starred: "*",
    }
    if isinstance(tree, ast.BinOp | ast.UnaryOp):
        return OPERATORS[type(tree.op)][0]
    return words.get(type(tree), type(tree).__name__)


def instead(tree: ast.expr) -> str:
    """What to write in the place of an operator of Python that the language lacks."""
    written = OPERATORS[type(tree.op)][1] if isinstance(tree, ast.BinOp | ast.UnaryOp) else ""
    return f": write {written}" if written else ""
