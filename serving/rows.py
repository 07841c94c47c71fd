"""Factor rows from clients: checked, so that a refusal names its field and row, then made a matrix."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from quant.bundle import Bundle
from serving.messages import FactorRow, PredictRows
from serving.problems import Faults, field_error, nearest
from serving.record import Key


def rows_of(bundle: Bundle, body: PredictRows) -> tuple[list[Key], np.ndarray]:
    """Keys and factors float32 [N, F] in the order sent; 422 where a row's factor names are not the bundle's."""
    return [(row.symbol, row.timestamp) for row in body.rows], _matrix(body.rows, bundle.factors)


def example(horizon: str, bundle: Bundle, section: bool) -> PredictRows:
    """A request for the newest row of the bundle's golden data, or for its whole newest section."""
    golden = bundle.golden
    newest = golden.filter(pl.col("timestamp") == golden["timestamp"][-1]) if section else golden.tail(1)
    rows = [
        FactorRow(
            symbol=row["symbol"],
            timestamp=row["timestamp"],
            factors={name: _number(row[name]) for name in bundle.factors},
        )
        for row in newest.iter_rows(named=True)
    ]
    return PredictRows(horizon=horizon, rows=rows)


def _matrix(rows: Sequence[FactorRow], names: Sequence[str]) -> np.ndarray:
    """float32 [N, F] in the bundle's order, null as NaN."""
    known, faults = set(names), Faults()
    for index, row in enumerate(rows):
        if row.factors.keys() != known:
            _misnamed(index, row, known, faults)
    faults.refuse("wrong-factors")
    values = [[row.factors[name] for name in names] for row in rows]
    with np.errstate(over="ignore"):  # beyond float32 is infinite: on the same side of every threshold
        return np.array(values, dtype=np.float64).astype(np.float32)


def _misnamed(index: int, row: FactorRow, known: set[str], faults: Faults) -> None:
    missing, unknown = known - row.factors.keys(), row.factors.keys() - known

    def wrong(name: str) -> dict[str, Any]:
        near = nearest(name, missing or known)
        hint = f"; did you mean {near!r}?" if near else ""
        return field_error(["rows", index, "factors", name], f"the bundle has no factor {name!r}{hint}", near)

    def absent(name: str) -> dict[str, Any]:
        detail = f"factor {name!r} is missing: send null if it has no value"
        return field_error(["rows", index, "factors", name], detail)

    faults.each(sorted(unknown), wrong)
    faults.each(sorted(missing), absent)


def _number(value: float | None) -> float | None:
    return None if value is None or np.isnan(value) else value
