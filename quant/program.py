"""Many expressions compiled into one shared graph, and run over a panel.

The same graph serves a backfill of years, in chunks so that memory stays flat, and the bar that just closed
(`tail=1`): a value's operations depend on its own slots only, so both give the same bits.
"""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import polars as pl

from quant.evaluation import covered, evaluate_slots
from quant.expression import Source, parse
from quant.graph import Node, column, ordered
from quant.panel import Floats, Panel, instants, to_frame
from quant.sets import Entry

CELLS = 2**18  # slots times symbols computed at once: arrays of 1 MB, whatever the size of the panel


class Program:
    """Compiled expressions.

    names: the entries, in order. inputs: the columns they read, of those declared. lookback, lookahead: how
    many slots before and after a slot its values read. crosses: some entry mixes the symbols of a section.
    symbols: those that entries read by name, with of("…", x): every panel needs them.
    """

    def __init__(self, texts: Mapping[str, str], declared: Collection[str], outputs: Mapping[str, Node]) -> None:
        self.texts = dict(texts)
        self.declared = tuple(declared)
        self.outputs = dict(outputs)
        self._nodes = ordered(self.outputs.values())
        self._spans = covered(self._nodes, self.outputs.values())
        self.names = tuple(self.outputs)
        self.inputs = tuple(name for name in self.declared if name in _columns(self._nodes))
        self.lookback = max((node.lookback for node in self.outputs.values()), default=0)
        self.lookahead = max((node.lookahead for node in self.outputs.values()), default=0)
        self.crosses = any(node.crosses for node in self.outputs.values())
        self.symbols = tuple(sorted(frozenset().union(*(node.symbols for node in self.outputs.values()))))

    @classmethod
    def compile(
        cls,
        entries: Mapping[str, str | Entry],
        inputs: Collection[str],
        *,
        lookahead: bool = False,
        section: bool = True,
    ) -> "Program":
        """The program of `entries` over the columns `inputs`; an entry may name inputs and earlier entries.

        lookahead: whether values may look ahead (labels). section: whether they may mix symbols (factors).
        Raises ExpressionError naming the file, the entry, the column and the nearest known name.
        """
        scope = {name: column(name) for name in inputs}
        outputs: dict[str, Node] = {}
        texts: dict[str, str] = {}
        for name, entry in entries.items():
            source = Source(entry.text, entry.file, name) if isinstance(entry, Entry) else Source(entry, "", name)
            later = entries.keys() - outputs.keys()
            made = parse(source.text, file=source.file, entry=name, names=scope, later=later)
            _check(made, source, lookahead=lookahead, section=section)
            if scope.get(name, made) is not made:
                raise source.error(f"{name} is already the name of an input: choose another name")
            scope[name] = outputs[name] = made
            texts[name] = source.text
        return cls(texts, inputs, outputs)

    def run(self, panel: Panel, tail: int | None = None, chunk: int | None = None) -> dict[str, Floats]:
        """Values by entry name: float32 [T, S], or [tail, S] for the last `tail` slots only.

        Slots before the panel read as missing bars: give `lookback` slots more than are asked for. chunk:
        slots computed at once; any gives the same bits. Raises ValueError for a column or symbol the panel lacks.
        """
        absent = [name for name in self.inputs if name not in panel.columns]
        if absent:
            raise ValueError(f"the panel lacks column {absent[0]}; it has {', '.join(sorted(panel.columns))}")
        if unknown := [symbol for symbol in self.symbols if symbol not in panel.symbols]:
            raise ValueError(f'of("{unknown[0]}", …): the panel has {len(panel.symbols)} symbols, and not {unknown[0]}')
        slots = len(panel.time)
        asked = slots if tail is None else tail
        if not 0 <= asked <= slots:
            raise ValueError(f"tail {asked}: the panel has {slots} slots")
        symbols = len(panel.symbols)
        values = {name: np.full((asked, symbols), np.nan, np.float32) for name in self.names}
        width = self._width(asked, symbols)
        for left in range(0, symbols, width):
            part = panel if width == symbols else panel.of(left, left + width)
            self._fill({name: array[:, left : left + width] for name, array in values.items()}, part, chunk)
        return values

    def _width(self, asked: int, symbols: int) -> int:
        """Symbols computed at once: fewer where look-back alone would exceed CELLS, but all where they are mixed."""
        if self.crosses or self.symbols:
            return max(symbols, 1)
        return max(1, min(symbols, CELLS // (min(asked, 2 * self.lookback) + self.lookback + 1)))

    def _fill(self, values: Mapping[str, Floats], panel: Panel, chunk: int | None) -> None:
        """Write the last rows of the panel's values, as many as `values` have, chunk by chunk."""
        slots, symbols = len(panel.time), len(panel.symbols)
        asked = len(next(iter(values.values()), ()))
        step = chunk or max(CELLS // symbols, 2 * self.lookback, 1)
        outputs = list(self.outputs.values())
        for start in range(slots - asked, slots, step):
            stop = min(start + step, slots)
            made = evaluate_slots(self._nodes, self._spans, outputs, panel, start, stop)
            for name, rows in zip(self.names, made, strict=True):
                values[name][start - slots + asked : stop - slots + asked] = rows

    def describe(self) -> pl.DataFrame:
        """A row per entry: name, expression, lookback, lookahead (slots), crosses, inputs."""
        rows = [
            {
                "name": name,
                "expression": self.texts[name],
                "lookback": node.lookback,
                "lookahead": node.lookahead,
                "crosses": node.crosses,
                "inputs": _columns(ordered([node])),
            }
            for name, node in self.outputs.items()
        ]
        return pl.DataFrame(rows)


def evaluate(frame: pl.DataFrame, text: str, *, name: str = "value") -> pl.DataFrame:
    """An expression over a long frame (symbol, timestamp, columns …): symbol, timestamp and a column `name`.

    For notebooks: the grid is every timestamp in the frame, so a bar that no symbol has is no slot here.
    """
    columns = [column for column, dtype in frame.schema.items() if dtype.is_numeric()]
    program = Program.compile({name: text}, columns, lookahead=True)
    time = np.unique(instants(frame["timestamp"]))
    symbols = frame["symbol"].unique().sort().to_list()
    panel = Panel.from_frame(frame, time, symbols, program.inputs)
    values = to_frame(panel.time, panel.symbols, program.run(panel))
    keys = frame.select("symbol", pl.Series("timestamp", instants(frame["timestamp"])).dt.replace_time_zone("UTC"))
    return keys.join(values, on=["symbol", "timestamp"], how="left", maintain_order="left")


def _check(made: Node, source: Source, *, lookahead: bool, section: bool) -> None:
    if made.is_constant:
        raise source.error("the expression is a constant: name a column in it")
    if made.lookahead and not lookahead:
        leads = sorted({f"lead(…, {node.values[0]})" for node in ordered([made]) if node.op == "lead"})
        raise source.error(f"{' and '.join(leads)} looks {made.lookahead} slots ahead: only a label may")
    if made.crosses and not section:
        raise source.error(
            "it mixes the symbols of a section, and a feature reads one symbol only: declare it under factors"
        )


def _columns(nodes: Sequence[Node]) -> list[str]:
    return [str(node.values[0]) for node in nodes if node.op == "column"]
