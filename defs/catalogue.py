"""The page of the sets that Tenor ships, written from their files: `python -m defs.catalogue > docs/sets.md`."""

from collections.abc import Iterable
from functools import cache
from pathlib import Path

import yaml

import conf
from quant import inputs
from quant.graph import Node, node
from quant.program import Program
from quant.sets import Declared, Entry, expand

FOLDER = Path(conf.__file__).parent
COLUMNS = ("vwap", "cap", "sector", "industry", "subindustry")  # beside those that all bars have
REFERENCE = "SPY"  # stands for universe.reference

INTRODUCTION = """# Sets

Written by `python -m defs.catalogue > docs/sets.md`; a test holds it to the files under `conf/`.

{{n}} in a name runs over the values that follow. The look-back is in bars, of the longest. `SPY` stands for
`universe.reference`. What the operators are is in [operators.md](operators.md).

Together the sets have {entries} entries, and **{definitions} distinct definitions**: entries that are equal,
multiples or lags of one another (the 60 closes of `alpha360`, say) count as one.
"""


@cache
def declared(group: str, name: str) -> dict[str, Declared]:
    """A set as its file declares it."""
    text = (FOLDER / group / f"{name}.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(text.replace("${universe.reference}", REFERENCE))


def shipped() -> list[tuple[str, str]]:
    """(group, name) of every set, features first."""
    return [(group, file.stem) for group in ("features", "factors") for file in sorted((FOLDER / group).glob("*.yaml"))]


@cache
def catalogue() -> tuple[dict[str, Entry], Program]:
    """Every entry of every set, and all of them compiled. Features passed through are those of `technical`."""
    features = {name: declared(group, name) for group, name in shipped() if group == "features"}
    entries = expand(features, file_of=lambda name: f"conf/features/{name}.yaml")
    factors = {
        name: declared(group, name) for group, name in shipped() if group == "factors" and name != "pass_through"
    }
    entries |= expand(factors, file_of=lambda name: f"conf/factors/{name}.yaml")
    return entries, Program.compile(entries, inputs.names(COLUMNS))


def definition(made: Node) -> Node:
    """What is left of an expression without outer lags, signs, factors and offsets.

    A lagged column over a newest one counts as the newest over the newest, so that `lag(close, 59) / close` and
    `lag(close, 5) / close` are one definition.
    """
    while True:
        constants = [arg.is_constant for arg in made.args]
        if made.op in ("lag", "negate"):
            made = made.args[0]
        elif made.op in ("+", "-", "*", "/") and any(constants):
            made = made.args[constants.index(False)]
        elif made.op == "/" and made.args[0].op == "lag" and definition(made.args[1]).op == "column":
            return node("/", (made.args[0].args[0], made.args[1]))
        else:
            return made


def definitions() -> dict[Node, list[str]]:
    """The names of the entries that share a definition, by definition."""
    found: dict[Node, list[str]] = {}
    for name, made in catalogue()[1].outputs.items():
        found.setdefault(definition(made), []).append(name)
    return found


def page() -> str:
    """The page as Markdown."""
    entries, program = catalogue()
    introduction = INTRODUCTION.format(entries=len(entries), definitions=len(definitions()))
    return "\n".join([introduction, *(_section(group, name, entries, program) for group, name in shipped())])


def _section(group: str, name: str, entries: dict[str, Entry], program: Program) -> str:
    file = f"conf/{group}/{name}.yaml"
    rows = [_row(pattern, value, name, program) for pattern, value in declared(group, name).items()]
    count = sum(entry.file == file for entry in entries.values())
    title = f"## {name}\n\n`{file}`, {count or 'as many as there are'} {group}\n"
    return "\n".join([title, *_table(("name", "expression", "look-back", "group", "description"), rows), ""])


def _row(pattern: str, value: Declared, set_name: str, program: Program) -> tuple[str, ...]:
    fields = {"expr": value} if isinstance(value, str) else dict(value)
    parameters = {key: fields[key] for key in fields if "{" + key + "}" in pattern}
    values = "; ".join(f"{key}: {_listed(choice)}" for key, choice in parameters.items())
    names = [] if set_name == "pass_through" else expand({set_name: {pattern: value}}, file_of=str)
    back = max((program.outputs[name].lookback for name in names), default=0)
    shown = f"`{pattern}`" + (f" {values}" if values else "")
    text = " ".join(fields["expr"].split())
    return shown, f"`{text}`", str(back), fields.get("group", set_name), fields.get("description", "")


def _listed(choice: object) -> str:
    if not isinstance(choice, list):
        return f"all {choice}"
    if len(choice) > 20:
        return f"{min(choice)} … {max(choice)}"
    return ", ".join(map(str, choice))


def _table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    heads = list(heads)
    lines = [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]
    return [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|", *lines]


if __name__ == "__main__":
    print(page(), end="")
