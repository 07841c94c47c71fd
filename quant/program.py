"""Many expressions compiled into one shared graph, and run over a panel.

The same graph serves a backfill of years, in chunks so that memory stays flat, and the bar that just closed
(`tail=1`): a value's operations depend on its own slots only, so both give the same bits.
"""

import ast
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from types import MappingProxyType

import mlx.core as mx
import numpy as np
import polars as pl

from quant.evaluation import Eager, Span, covered
from quant.expression import NO_OTHERS, ExpressionError, Names, Source, UnknownName, parse, syntax
from quant.graph import Node, column, ordered
from quant.live import Live
from quant.long import long_frame
from quant.lowering import lowered
from quant.native import Native
from quant.panel import Floats, Panel, instants, to_frame
from quant.primitive import Series, Step
from quant.sets import Entry

NOTHING: Mapping[str, str] = MappingProxyType({})


class Program:
    """Compiled expressions.

    names: the entries, in order. inputs: the columns they read, of those declared. lookback, lookahead: how
    many slots before and after a slot its values read. crosses: some entry mixes the symbols of a section.
    symbols: those that entries read by name, with of("…", x): every panel needs them. others: for each horizon
    that at("…", x) reads, the program of those x there; each is a column of the panel by the name it has there.
    """

    def __init__(self, texts: Mapping[str, str], declared: Collection[str], outputs: Mapping[str, Node]) -> None:
        self.texts = dict(texts)
        self.declared = tuple(declared)
        self.outputs = dict(outputs)
        self._nodes = ordered(self.outputs.values())
        self.names = tuple(self.outputs)
        self.inputs = tuple(name for name in self.declared if name in _columns(self._nodes))
        self.lookback = max((node.lookback for node in self.outputs.values()), default=0)
        self.lookahead = max((node.lookahead for node in self.outputs.values()), default=0)
        self.crosses = any(node.crosses for node in self.outputs.values())
        self.symbols = tuple(sorted(frozenset().union(*(node.symbols for node in self.outputs.values()))))
        self.others = _others(self._nodes)

    def reads(self, name: str) -> frozenset[str]:
        """The columns that one entry reads, through earlier entries too."""
        return frozenset(_columns(ordered([self.outputs[name]])))

    @cached_property
    def _series(self) -> list[Series]:
        made = lowered(self._nodes)
        return [made[node] for node in self.outputs.values()]

    @cached_property
    def _steps(self) -> list[Step]:
        return ordered(series.step for series in self._series)

    @cached_property
    def _spans(self) -> dict[Step, Span]:
        return covered(self._steps, self._series)

    @classmethod
    def compile(
        cls,
        entries: Mapping[str, str | Entry],
        inputs: Collection[str],
        *,
        lookahead: bool = False,
        section: bool = True,
        others: Mapping[str, Names] = NO_OTHERS,
        derived: Mapping[str, str] = NOTHING,
    ) -> "Program":
        """The program of `entries` over the columns `inputs`; an entry may name inputs and earlier entries.

        lookahead: whether values may look ahead (labels). section: whether they may mix symbols (factors). others:
        the names of the horizons that at("…", x) may read. derived: names that stand for expressions over inputs.
        Raises ExpressionError naming the file, the entry, the column and the nearest known name.
        """
        scope = scope_of(inputs, derived)
        outputs: dict[str, Node] = {}
        texts: dict[str, str] = {}
        for name, entry in entries.items():
            source = Source(entry.text, entry.file, name) if isinstance(entry, Entry) else Source(entry, "", name)
            later = entries.keys() - outputs.keys()
            made = parse(source.text, file=source.file, entry=name, names=scope, later=later, others=others)
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
        elsewhere = [name for other in self.others.values() for name in other.names]
        absent = [name for name in (*self.inputs, *elsewhere) if name not in panel.columns]
        if absent:
            raise ValueError(f"the panel lacks column {absent[0]}; it has {', '.join(sorted(panel.columns))}")
        if unknown := [symbol for symbol in self.symbols if symbol not in panel.symbols]:
            raise ValueError(f'of("{unknown[0]}", …): the panel has {len(panel.symbols)} symbols, and not {unknown[0]}')
        slots = len(panel.time)
        asked = slots if tail is None else tail
        if not 0 <= asked <= slots:
            raise ValueError(f"tail {asked}: the panel has {slots} slots")
        return dict(zip(self.names, self.evaluator.run(panel, asked, chunk), strict=True))

    @cached_property
    def evaluator(self) -> Eager | Native:
        """What computes the values: the machine on a CPU, MLX on a GPU."""
        return self.native if self.on_cpu else self.eager

    @property
    def on_cpu(self) -> bool:
        """Whether MLX computes on the CPU, and so the machine in its stead."""
        return mx.default_device() == mx.Device(mx.cpu)

    @cached_property
    def eager(self) -> Eager:
        """The program as MLX runs it, on any device."""
        return Eager(self._steps, self._spans, self._series, self.crosses or bool(self.symbols))

    @cached_property
    def native(self) -> Native:
        """The program as the machine runs it, on a CPU."""
        return Native(self._steps, self._spans, self._series)

    def live(self, symbols: Sequence[str]) -> Live:
        """A state that goes on bar by bar, for these symbols; see `Live`. Raises ValueError where there is none."""
        if not self.on_cpu:
            raise ValueError("the live state runs on a CPU: its bits are not those of this device")
        return Live(self.native, self.names, symbols)

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

    For notebooks: the grid is every timestamp in the frame, so a bar that no symbol has is no slot here. A Date is
    midnight UTC. Raises ValueError for a frame that is none of bars, and ExpressionError.
    """
    if not isinstance(text, str):
        kind = type(text).__name__
        raise ExpressionError(f"the expression is a {kind}, not a text such as 'rsi(close, 14)'; for several: Program")
    frame = long_frame(frame)
    columns = [column for column, dtype in frame.schema.items() if dtype.is_numeric() or dtype == pl.Boolean]
    try:
        program = Program.compile({name: text}, columns, lookahead=True)
    except UnknownName as error:
        if error.name not in frame.columns:
            raise
        kind = "text" if frame.schema[error.name] == pl.String else str(frame.schema[error.name])
        raise UnknownName(f"{error.name} is {kind}: number it first\n{error}", error.name) from None
    time = np.unique(instants(frame["timestamp"]))
    symbols = frame["symbol"].unique().sort().to_list()
    panel = Panel.from_frame(frame, time, symbols, program.inputs)
    values = to_frame(panel.time, panel.symbols, program.run(panel))
    keys = frame.select("symbol", pl.Series("timestamp", instants(frame["timestamp"])).dt.replace_time_zone("UTC"))
    return keys.join(values, on=["symbol", "timestamp"], how="left", maintain_order="left")


def scope_of(inputs: Iterable[str], derived: Mapping[str, str]) -> dict[str, Node]:
    """What names stand for: columns, and expressions over them of one symbol's past, each over those before it too."""
    scope = {name: column(name) for name in inputs}
    for name, text in derived.items():
        source = Source(text, "source.derived", name)
        made = parse(text, file=source.file, entry=name, names=scope)
        _check(made, source, lookahead=False, section=False)
        if name in scope:
            raise source.error(f"{name} is already the name of a column: choose another name")
        scope[name] = made
    return scope


def _check(made: Node, source: Source, *, lookahead: bool, section: bool) -> None:
    if made.is_constant:
        raise source.error("the expression is a constant: name a column in it")
    if made.lookahead and not lookahead:
        leads = sorted({f"lead(…, {node.values[0]})" for node in ordered([made]) if node.op == "lead"})
        source = replace(source, text=source.text.strip())
        calls = [part for part in ast.walk(syntax(source)) if isinstance(part, ast.Call)]
        first = next((call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "lead"), None)
        raise source.error(
            f"{' and '.join(leads)} looks {made.lookahead} slots ahead: only a label may. A feature or factor reads "
            "the past, as with lag(x, n)",
            None if first is None else source.place(first),
        )
    if made.crosses and not section:
        raise source.error(
            "it mixes the symbols of a section, and a feature reads one symbol only: declare it under factors"
        )


def _others(nodes: Sequence[Node]) -> dict[str, Program]:
    """The program of each other horizon whose values are among the columns."""
    found: dict[str, dict[str, Node]] = {}
    for node in nodes:
        if node.other is not None:
            horizon, value = node.other
            found.setdefault(horizon, {})[str(node.values[0])] = value
    return {
        horizon: Program({name: name for name in values}, _columns(ordered(values.values())), values)
        for horizon, values in sorted(found.items())
    }


def _columns(nodes: Sequence[Node]) -> list[str]:
    return [str(node.values[0]) for node in nodes if node.op == "column"]
