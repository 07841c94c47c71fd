"""Rows of features or factors that break the bounds of their set: kept apart with the reason, and counted."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import dagster as dg
import numpy as np
import polars as pl

from assets import names
from quant.bounds import REASONS, broken
from quant.schema import value_schema
from quant.sets import Entry

if TYPE_CHECKING:  # it brings pandas with it: seconds that a process without such a step need not spend
    from pandera.errors import SchemaErrors

SHOWN = 5  # columns and symbols that a message names


@dataclass
class Screen:
    """Lets good rows pass and keeps the others; rows in = rows that passed + rows rejected.

    refused: (symbol, timestamp, column, reason, value, partition), a row for each rejected one, for the first of its
    columns that breaks a rule.
    """

    horizon: str
    step: str
    entries: Mapping[str, Entry]
    incoming: int = 0
    reasons: Counter[str] = field(default_factory=Counter)  # rows by the reason they were rejected for
    symbols: Counter[str] = field(default_factory=Counter)  # rows by symbol
    values: Counter[tuple[str, str]] = field(default_factory=Counter)  # broken values by column and reason
    refused: list[pl.DataFrame] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._schema = value_schema(self.entries)

    @property
    def rejected(self) -> int:
        return self.reasons.total()

    @property
    def share(self) -> float:
        return self.rejected / max(1, self.incoming)

    @property
    def table(self) -> str:
        """The table of rejected rows."""
        return names.table(f"rejected_{self.step}", self.horizon)

    def passed(self, frame: pl.DataFrame) -> pl.DataFrame:
        """The rows that keep every rule. What is wrong with more than single rows fails the step."""
        from pandera.errors import SchemaErrors

        self.incoming += frame.height
        try:
            self._schema.validate(frame, lazy=True)
        except SchemaErrors:
            frame = frame.filter(~self._reject(frame))
            try:
                self._schema.validate(frame, lazy=True)
            except SchemaErrors as error:
                raise dg.Failure(self._explain(error), allow_retries=False) from error
        return frame

    def metadata(self) -> dict[str, Any]:
        """Counts that add up: rows in, and rejected by reason; by symbol and by column where there are any."""
        told: dict[str, Any] = {"rows in": self.incoming}
        if self.rejected:
            told |= {f"rejected: {reason}": self.reasons[reason] for reason in REASONS if self.reasons[reason]}
            rows = [(name, f"{count:,}") for name, count in self.symbols.most_common()]
            told["rejected by symbol"] = dg.MetadataValue.md(names.markdown_table(("symbol", "rows"), rows))
            cells = [(*key, self._bound(*key), f"{count:,}") for key, count in self.values.most_common()]
            header = ("column", "reason", "bound", "values")
            told["rejected by column"] = dg.MetadataValue.md(names.markdown_table(header, cells))
        return told

    def worst(self) -> dict[str, str]:
        """The columns and the symbols that lost most, for a message."""
        columns = [
            f"{name} {reason} {self._bound(name, reason)}".strip() + f" ({count:,})"
            for (name, reason), count in self.values.most_common(SHOWN)
        ]
        symbols = [f"{name} ({count:,} rows)" for name, count in self.symbols.most_common(SHOWN)]
        return {
            "columns": ", ".join(columns) + _more(len(self.values)),
            "symbols": ", ".join(symbols) + _more(len(self.symbols)),
        }

    def refusal(self, most: float) -> str:
        """Why a step with too many rejected rows failed, and what to look at."""
        worst = self.worst()
        return (
            f"{self.horizon} {self.step}: {self.rejected:,} of {self.incoming:,} rows ({self.share:.0%}) break the "
            f"rules of their set, and validation.max_rejected is {most:.0%}. Columns: {worst['columns']}. Symbols: "
            f"{worst['symbols']}. Nothing of this run is committed; the rows are in the table {self.table}. Mend the "
            "bars or the bounds, or raise validation.max_rejected"
        )

    def _reject(self, frame: pl.DataFrame) -> pl.Series:
        """Keep the broken rows with their reason; which ones they are."""
        found = np.zeros(frame.height, bool)
        for name, reason, wrong in self._faults(frame):
            self.values[(name, reason)] += int(wrong.sum())
            first = frame.filter(wrong & ~found)
            found |= wrong
            self.reasons[reason] += first.height
            self.refused.append(
                first.select(
                    "symbol",
                    "timestamp",
                    column=pl.lit(name),
                    reason=pl.lit(reason),
                    value=pl.col(name),
                    partition="partition",
                )
            )
        rejected = pl.Series(found)
        self.symbols.update(dict(frame.filter(rejected)["symbol"].value_counts().iter_rows()))
        return rejected

    def _faults(self, frame: pl.DataFrame) -> Iterator[tuple[str, str, np.ndarray]]:
        """(column, reason, which rows), in the order of the set; a value has one reason."""
        for name, entry in self.entries.items():
            seen = np.zeros(frame.height, bool)
            rules = broken(name, entry.low, entry.high)
            flags = frame.select(rule.fill_null(False).alias(reason) for reason, rule in rules.items())
            for reason in rules:
                wrong = flags[reason].to_numpy() & ~seen
                seen |= wrong
                if wrong.any():
                    yield name, reason, wrong

    def _bound(self, name: str, reason: str) -> str:
        bound = {"below_low": self.entries[name].low, "above_high": self.entries[name].high}.get(reason)
        return "" if bound is None else f"{bound:g}"

    def _explain(self, error: "SchemaErrors") -> str:
        cases = error.failure_cases.head(SHOWN).to_dicts()
        told = "; ".join(f"column {case['column']}: {case['check']} (value {case['failure_case']})" for case in cases)
        return f"{self.horizon} {self.step}: the table does not match its schema, whatever the values: {told}"


def _more(count: int) -> str:
    return f" and {count - SHOWN} more" if count > SHOWN else ""
