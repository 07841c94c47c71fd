"""The Pandera schema of a table of values, generated from the entries of its sets."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import polars as pl

from quant.bounds import broken
from quant.sets import Entry

if TYPE_CHECKING:  # it brings pandas with it, which few processes need
    import pandera.polars as pa

STAMP = pl.Datetime("us", "UTC")


def value_schema(entries: Mapping[str, Entry]) -> "pa.DataFrameSchema":
    """Keys present and unique; every entry's column Float32, finite and within its bounds; missing is null, not NaN.

    Its checks are named by `quant.bounds.REASONS`. The declared share of missing values is no matter of single rows:
    `too_many_nulls` judges it.
    """
    import pandera.polars as pa

    return pa.DataFrameSchema(
        {
            "symbol": pa.Column(pl.String, nullable=False),
            "timestamp": pa.Column(STAMP, nullable=False),
            "known_at": pa.Column(STAMP, nullable=False),
            "partition": pa.Column(pl.String, nullable=False),
            **{name: pa.Column(pl.Float32, nullable=True) for name in entries},
        },
        checks=_checks(entries),
        unique=["symbol", "timestamp"],
        strict=True,
    )


def too_many_nulls(entries: Mapping[str, Entry], shares: Mapping[str, float]) -> dict[str, float]:
    """The columns whose share of missing values is above the `nulls` that their entry declares."""
    declared = {name: entry.nulls for name, entry in entries.items() if entry.nulls is not None}
    return {name: shares[name] for name, most in declared.items() if shares[name] > most}


def _checks(entries: Mapping[str, Entry]) -> "list[pa.Check]":
    """A check per reason over all columns: one per column costs more than computing it."""
    import pandera.polars as pa

    rules: dict[str, list[pl.Expr]] = {}
    for name, entry in entries.items():
        for reason, rule in broken(name, entry.low, entry.high).items():
            rules.setdefault(reason, []).append(rule.fill_null(False))
    # One case is enough to know that a check failed: every failing row as text would cost gigabytes.
    return [
        pa.Check(
            lambda data, of=tuple(of): data.lazyframe.select(~pl.any_horizontal(of)), name=reason, n_failure_cases=1
        )
        for reason, of in rules.items()
    ]
