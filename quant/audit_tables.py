"""Stored rows against the same rows computed again, bit for bit, and what the differences look like."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from quant.audit import listed
from quant.audit_laws import same_bits

KEYS = ["timestamp", "symbol"]
MOST_TOLD = 5
ROUNDING = 1e-4  # relative; a change of this size in every value is another device's arithmetic, not another formula


@dataclass(frozen=True)
class Differences:
    """Of two frames with the same columns: rows that only one has, and values that differ in rows both have.

    both: keys of the shared rows; differ: bool [rows, columns]; found, expected: float32 [rows, columns].
    """

    columns: tuple[str, ...]
    lacking: pl.DataFrame  # keys that only `expected` has
    extra: pl.DataFrame  # keys that only `found` has
    both: pl.DataFrame
    found: npt.NDArray[np.float32]
    expected: npt.NDArray[np.float32]

    @cached_property
    def differ(self) -> npt.NDArray[np.bool_]:
        return ~same_bits(self.found, self.expected)

    @property
    def none(self) -> bool:
        return not (self.lacking.height or self.extra.height or self.differ.any())

    @property
    def changed(self) -> tuple[str, ...]:
        """Columns with a value that differs."""
        return tuple(self.columns[place] for place in np.flatnonzero(self.differ.any(axis=0)).tolist())

    @property
    def values(self) -> int:
        return self.found.size

    def number(self) -> str:
        """How much differs, in words."""
        told = [f"{self.differ.sum():,} of {self.values:,} values differ"] if self.differ.any() else []
        told += [f"{self.lacking.height:,} bars have no row"] if self.lacking.height else []
        told += [f"{self.extra.height:,} rows have no bar"] if self.extra.height else []
        return ", ".join(told) or f"{self.values:,} values, none differs"

    def looks_like(self) -> str:
        """The likeliest cause, read off which rows and which columns differ."""
        if self.lacking.height or self.extra.height:
            at = (self.lacking if self.lacking.height else self.extra)["timestamp"]
            return f"bars came or went since it was written, {_stamp(at.min())} to {_stamp(at.max())}"
        rows = float(self.differ.any(axis=1).mean())
        if self._rounding():
            return "all differences are of rounding size: it was written on another device or by other code"
        if len(self.changed) < len(self.columns) and rows > 0.5:
            return f"the expressions or the code of {listed(self.changed)} changed since it was written"
        if rows > 0.5:
            return "the expressions, the code or the bars changed since it was written"
        symbols = self.both["symbol"].gather(np.flatnonzero(self.differ.any(axis=1))).unique().sort().to_list()
        first = self.both["timestamp"][int(np.argmax(self.differ.any(axis=1)))]
        return f"bars were revised since it was written: {listed(symbols)} from {_stamp(first)}"

    def examples(self) -> list[str]:
        """The first difference of each column, as many as fit."""
        told = []
        for place, name in enumerate(self.columns):
            if self.differ[:, place].any():
                row = int(np.argmax(self.differ[:, place]))
                at = self.both.row(row, named=True)
                told.append(
                    f"{name}, {at['symbol']} at {_stamp(at['timestamp'])}: {self.found[row, place]} is stored, "
                    f"{self.expected[row, place]} computed"
                )
        more = [f"and {len(told) - MOST_TOLD} more columns"] if len(told) > MOST_TOLD else []
        return told[:MOST_TOLD] + more

    def _rounding(self) -> bool:
        found, expected = self.found[self.differ].astype(float), self.expected[self.differ].astype(float)
        return bool((np.abs(found - expected) <= ROUNDING * np.abs(expected)).all())


def compare(found: pl.DataFrame, expected: pl.DataFrame, columns: Sequence[str]) -> Differences:
    """Frames by (timestamp, symbol), unique in each, with at least one column to compare; a null is a NaN."""
    keys = found.select(KEYS).join(expected.select(KEYS), on=KEYS, how="inner").sort(KEYS)

    def matrix(frame: pl.DataFrame) -> npt.NDArray[np.float32]:
        rows = keys.join(frame.select(*KEYS, *columns), on=KEYS, how="left", maintain_order="left")
        return rows.select(pl.col(columns).cast(pl.Float32).fill_null(np.nan)).to_numpy()

    return Differences(
        tuple(columns),
        expected.select(KEYS).join(found, on=KEYS, how="anti").sort(KEYS),
        found.select(KEYS).join(expected, on=KEYS, how="anti").sort(KEYS),
        keys,
        matrix(found),
        matrix(expected),
    )


def _stamp(moment: Any) -> str:
    return f"{moment:%Y-%m-%d}" if (moment.hour, moment.minute) == (0, 0) else f"{moment:%Y-%m-%d %H:%M}Z"
