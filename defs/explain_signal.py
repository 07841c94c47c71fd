"""`tenor explain SIGNAL`: one served prediction, taken back to what it was made of."""

import json
import sys
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import polars as pl

from conf.compose import compose
from conf.errors import ConfigError
from defs.look import root_of

if TYPE_CHECKING:  # imported when asked for
    from rich.console import Console

    from resources.lake import Lake

SHOWN = 15  # factors in the text; --json has all


class ExplainError(RuntimeError):
    """A signal that cannot be explained; the message says where it was looked for."""


def explain(words: Sequence[str]) -> int:
    """Print everything that is known of one signal."""
    from resources.registry import Registry
    from serving.live_load import Store

    signals = [word for word in words if "=" not in word and word != "--json"]
    if len(signals) != 1:
        fix = "Write tenor explain and the signal of an answer, such as 3fa9…0001.0"
        raise ConfigError("command line", f"explain takes one signal, not {len(signals)}", fix=fix)
    overrides = [word for word in words if "=" in word]
    found = compose(overrides)
    root = root_of(next(iter(found.values())))
    store, registry = Store(root), Registry(root)
    named = any(word.startswith("horizon=") for word in overrides)
    horizon, rows = find(signals[0], [*found] if named else registry.horizons(), store.lake)
    from defs.trace import trace

    told = next(row for row in rows.to_dicts() if row["role"] != "shadow")
    traced = trace(told, rows, horizon, store, registry)
    if "--json" in words:
        json.dump(plain(traced), sys.stdout, indent=1, allow_nan=False)
        print()
    else:
        from rich.console import Console

        # Into a pipe the table is as wide as it needs to be.
        show(Console(width=None if sys.stdout.isatty() else 200, highlight=False, markup=False), traced)
    return 0


def find(signal: str, horizons: Sequence[str], lake: "Lake") -> tuple[str, pl.DataFrame]:
    """The horizon of a signal and its rows in the prediction log, the newest days first looked at."""
    from serving.log_rows import table

    looked: list[str] = []
    for horizon in horizons:
        days = lake.partitions(table(horizon))
        for day in reversed(days):
            rows = lake.scan(table(horizon)).filter(pl.col("partition") == day, pl.col("signal") == signal).collect()
            if (rows["role"] != "shadow").any():
                return horizon, rows
        looked += [f"{horizon} ({days[0]} to {days[-1]})"] if days else []
    where = f"the prediction log of {', '.join(looked)}" if looked else f"{lake.root}: no prediction was logged there"
    raise ExplainError(
        f"there is no signal {signal!r} in {where}. A running service writes its newest answers every "
        "serving.log.flush_seconds; those it had no room for are counted in /metrics as tenor_log_dropped_total"
    )


def show(console: "Console", told: dict[str, Any]) -> None:
    """The explanation for people."""
    from rich.table import Table

    def line(name: str, text: str) -> None:
        console.print(f"{name:<9}{text}", soft_wrap=True)

    answered, bundle, bars = told["answered"], told["bundle"], told["bars"]
    entry, provenance, label = bundle["ledger"], bundle["provenance"], told["label"]
    of = f"{told['symbol'] or 'no named symbol'} at {_moment(told['timestamp'])}"
    took = "" if answered["seconds"] is None else f" in {answered['seconds'] * 1e3:.2f} ms"
    line("signal", told["signal"])
    line("answer", f"{told['prediction']!r} for {of}, horizon {told['horizon']}, coverage {told['coverage']:.0%}")
    line("", f"by {answered['route']} at {_moment(answered['at'])}{took}")
    if told["novelty"] is not None:
        no_signal = ": the model abstained, it is no signal" if told["abstained"] else ""
        line("novelty", f"{told['novelty']:.3f} of training rows were less unusual{no_signal}")
    for shadow in told["shadow"]:
        line("shadow", f"challenger {shadow['bundle']} said {shadow['prediction']!r}")
    other = answered["role"] != "champion" and "bundle" in entry
    beside = f", which stood beside champion {entry['bundle']}" if other else ""
    line("bundle", f"{bundle['id']} as {answered['role']}{beside}, number {entry['number']} of the ledger")
    if "problem" in entry:
        line("", entry["problem"])
    else:
        line("", f"{entry['action']} at {_moment(entry['at'])} by {entry['by'] or 'not recorded'}: {entry['why']}")
    for part, (first, last) in bundle["spans"].items():
        line("", f"{part}: {first} to {last}")
    for name, value in provenance.items():
        versions = ", ".join(f"{table} {version}" for table, version in value.items()) if name == "tables" else value
        line("", f"{name}: {versions}")
    if label is not None:
        line("label", f"{label.get('name')}: {label.get('text')}")
    line("replay", _replayed(told["replay"]))
    line("bars", f"{bars['table']}, version {bars['version now']} now, {bars['version then']} when it was answered")
    if bars["newest"]:
        shown = Table(*bars["newest"][0])
        for bar in bars["newest"]:
            shown.add_row(*map(_cell, bar.values()))
        console.print(shown)
    if told["factors"] is not None:
        _contributions(console, told)


def _contributions(console: "Console", told: dict[str, Any]) -> None:
    from rich.table import Table

    factors = told["factors"]
    shown = Table("factor", "value", "contribution", "expression", title="what each factor added", title_justify="left")
    shown.add_row("every row starts at", "", f"{told['base']:+.6g}", "")
    for one in factors[:SHOWN]:
        text = one["expression"] if one["feature"] is None else f"{one['expression']} = {one['feature']}"
        value = "missing" if one["value"] is None else f"{one['value']:.6g}"
        shown.add_row(one["name"], value, f"{one['contribution']:+.6g}", text)
    if rest := factors[SHOWN:]:
        total = sum(one["contribution"] for one in rest)
        shown.add_row(f"{len(rest)} more (--json)", "", f"{total:+.6g}", "")
    shown.add_row("raw score", "", f"{told['raw score']:+.6g}", "")
    console.print(shown)


def _replayed(replay: dict[str, Any]) -> str:
    """In words: whether the answer follows from the values, and the values from the bars."""
    if "same prediction" not in replay:
        return replay["problem"]
    same = "gives this answer again, to the bit" if replay["same prediction"] else "GIVES ANOTHER ANSWER"
    kept = "" if replay["inputs unchanged"] else "; THE LOGGED INPUTS ARE NOT THOSE HASHED WHEN IT ANSWERED"
    differ = replay["factors that differ from the bars"]
    if replay["problem"]:
        bars = f"the bars do not give the factors again: {replay['problem']}"
    elif differ:
        bars = f"{len(differ)} factors are others from the bars of now (revised since, or sent otherwise): "
        bars += ", ".join(differ[:SHOWN])
    else:
        bars = "the bars give the same factors, to the bit"
    return f"the bundle {same}; {bars}{kept}"


def plain(value: Any) -> Any:
    """JSON values: instants as ISO 8601, NaN as null."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and (value != value or abs(value) == float("inf")):
        return None
    return value.isoformat() if isinstance(value, datetime) else value


def _moment(moment: datetime | None) -> str:
    return "no named bar" if moment is None else f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def _cell(value: Any) -> str:
    if isinstance(value, datetime):
        return _moment(value)
    return f"{value:.10g}" if isinstance(value, float) else str(value)
