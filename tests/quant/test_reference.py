"""The reference page of the language."""

from pathlib import Path

import quant
from quant.expression import parse
from quant.operators import CALLABLE, COMPOSITES, OPERATORS
from quant.reference import page

FILE = Path(quant.__file__).parent.parent / "docs" / "operators.md"


def test_the_page_is_what_the_operators_say() -> None:
    assert FILE.read_text() == page(), "run python -m quant.reference > docs/operators.md"


def test_the_conditional_expression_is_on_the_page_beside_what_it_means() -> None:
    assert "| `x if condition else y` | `where(condition, x, y)`: " in page()
    assert parse("close if open > 1 else high") is parse("where(open > 1, close, high)")


def test_every_operator_is_on_the_page() -> None:
    text = page()
    for name in CALLABLE - {"negate"}:
        assert f"{name}(" in text or f"`x {name} y`" in text or f"`{name} x`" in text, name
    for composite in COMPOSITES.values():
        assert composite.text in text
    for operator in OPERATORS.values():
        assert operator.summary.replace("|", "\\|") in text
