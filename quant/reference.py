"""The reference page of the language, written from the operators themselves: `python -m quant.reference`."""

from collections.abc import Iterable, Sequence

from quant import elementwise, rolling, section
from quant.across import NEWEST
from quant.inputs import BARS, CALENDAR
from quant.operators import COMPOSITES, WRITTEN
from quant.signature import Operator

INTRODUCTION = f"""# Operators

Written by `python -m quant.reference > docs/operators.md`; a test holds it to the code.

An expression is Python arithmetic, comparison, `and`, `or`, `not` and `x if condition else y` over names and calls
of what is below. Names are the columns of bars ({", ".join(BARS)}, and those that the source maps), their
unadjusted values (`raw(close)`), calendar fields ({", ".join(CALENDAR)})
attributes of symbols that the universe declares (sector) and entries further up. Arguments with a default may be
left out, and any may be given by name.

`n` counts slots of the grid. A missing bar is skipped: a value over a window exists where its own slot is present and
at least half of the window is. In the formulas, Σ runs over the present slots of the window, m counts them, a is a
slot's age (0 is the newest), x₀ the newest value, x̄ the mean, M₂ M₃ M₄ are Σ(x - x̄)² and so on, Mxy is
Σ(x - x̄)(y - ȳ), and t = -a. Across the section, Σ and m are over its symbols.

`at("1h", x)` is x computed on another horizon's own bars and grid, where x may name that horizon's columns, calendar
fields and features: the newest value of which the bar had ended when this one did and all it reads was known by this
bar's `known_at` (its end, if that is later), both with equality. A bar still open is never seen, not even where a part
of it is known. The newest value with a bar counts, among the last {NEWEST} slots of the other grid that had ended: an
older one is missing, and so is that of a slot without a bar here or of a symbol that is not there. Look-back is told
per horizon: `60, 1h 20` reads 60 slots of its own grid, and 20 of 1h before the newest that had ended at the first of
those. x reads one symbol's past there (`of` apart) and no third horizon.
"""
WRITTEN_AS = {"and": "x and y", "or": "x or y", "not": "not x", "negate": "-x"}
CHAN = 'Chan, Golub and LeVeque, "Updating Formulae and a Pairwise Algorithm for Computing Sample Variances" (1979)'
PEBAY = 'Pébay, "Formulas for Robust, One-Pass Parallel Computation of Covariances …", SAND2008-6212 (2008)'

# Windows and sections: the formula, and the source of the algorithm where it is not the formula itself.
FORMULAS = {
    "sum": ("Σx", ""),
    "count": ("m", ""),
    "product": ("Πx", ""),
    "mean": ("Σx / m", ""),
    "min": ("min x", ""),
    "max": ("max x", ""),
    "argmin": ("the least a with x = min x", ""),
    "argmax": ("the least a with x = max x", ""),
    "quantile": ("x₍ₖ₎ + (h - k)(x₍ₖ₊₁₎ - x₍ₖ₎), h = q(m - 1), k = ⌊h⌋", "Batcher's merge: Knuth, TAOCP 3, 5.3.4"),
    "rank_in_window": ("(#(x < x₀) + (#(x = x₀) + 1) / 2) / m", ""),
    "mean_deviation": ("Σ|x - x̄| / m", ""),
    "sum_since": ("Σx since start", ""),
    "min_since": ("min x since start", ""),
    "max_since": ("max x since start", ""),
    "var": ("M₂ / (m - ddof)", CHAN),
    "std": ("√(M₂ / (m - ddof))", CHAN),
    "skew": ("√(m(m - 1)) / (m - 2) · √m M₃ / M₂^1.5", PEBAY),
    "kurt": ("(m - 1) / ((m - 2)(m - 3)) · ((m + 1)(m M₄ / M₂² - 3) + 6)", PEBAY),
    "cov": ("Mxy / (m - ddof)", PEBAY),
    "corr": ("Mxy / √(Mxx Myy)", PEBAY),
    "beta": ("Mxy / Myy", PEBAY),
    "slope": ("Mxt / Mtt", PEBAY),
    "rsquare": ("Mxt² / (Mxx Mtt)", PEBAY),
    "residual": ("x₀ - x̄ + t̄ Mxt / Mtt", PEBAY),
    "ema": ("Σ wᵃx / Σ wᵃ, w = 1 - 2 / (n + 1)", ""),
    "wilder": ("Σ wᵃx / Σ wᵃ, w = 1 - 1 / n", ""),
    "wma": ("Σ(n - a)x / Σ(n - a)", ""),
    "decay_linear": ("Σ(n - a)x / Σ(n - a)", ""),
    "rank": ("(#(y < x) + (#(y = x) + 1) / 2) / m over the symbols y", ""),
    "demean": ("x - x̄", ""),
    "zscore": ("(x - x̄) / √(M₂ / (m - 1))", ""),
    "scale": ("x / Σ|x|", ""),
    "winsorize": ("min(max(x, quantile(share)), quantile(1 - share))", ""),
    "neutralize": ("x - x̄ of the symbols with its `by`", ""),
    "of": ("x of SYMBOL", ""),
}


def page() -> str:
    """The page as Markdown."""
    shifts = [operator for operator in elementwise.OPERATORS if operator.numbers]
    signs = [made for made in elementwise.OPERATORS if not made.name.isidentifier() or made.name in WRITTEN_AS]
    functions = [operator for operator in elementwise.OPERATORS if operator not in signs and operator not in shifts]
    indicators = [(made.signature, made.summary, f"`{made.text}`", made.source) for made in COMPOSITES.values()]
    parts = [
        INTRODUCTION,
        _table("Signs", ("call", "value"), ((_call(made), made.summary) for made in signs)),
        _table("Functions of one slot", ("call", "value"), ((_call(made), made.summary) for made in functions)),
        _table("Shifts in time", ("call", "value"), ((_call(made), made.summary) for made in shifts)),
        _table("Windows", ("call", "value", "formula", "source"), map(_row, rolling.OPERATORS)),
        _table("Section", ("call", "value", "formula", "source"), map(_row, section.OPERATORS)),
        _table("Indicators", ("call", "value", "formula", "source"), indicators),
    ]
    return "\n".join(parts)


def _call(operator: Operator) -> str:
    written = WRITTEN.get(operator.name) or WRITTEN_AS.get(operator.name)
    return written or (operator.signature if operator.name.isidentifier() else f"x {operator.name} y")


def _row(operator: Operator) -> tuple[str, ...]:
    formula, algorithm = FORMULAS[operator.name]
    return _call(operator), operator.summary, formula, "; ".join(filter(None, (operator.source, algorithm)))


def _table(title: str, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [
        f"| `{call}` | {' | '.join(cells)} |"
        for call, *cells in ([cell.replace("|", "\\|") for cell in row] for row in rows)
    ]
    return "\n".join([f"## {title}\n", f"| {' | '.join(heads)} |", "|---" * len(heads) + "|", *lines, ""])


if __name__ == "__main__":
    print(page(), end="")
