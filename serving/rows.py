"""Factor rows from clients: checked, so that a refusal names its field and row, then made a matrix."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from quant.bundle import Bundle
from serving.messages import FactorRow, PredictRows
from serving.problems import field_error, nearest, refuse_fields
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
    known = set(names)
    if errors := [error for index, row in enumerate(rows) for error in _misnamed(index, row, known)]:
        raise refuse_fields("wrong-factors", errors)
    values = [[row.factors[name] for name in names] for row in rows]
    with np.errstate(over="ignore"):  # beyond float32 is infinite: on the same side of every threshold
        return np.array(values, dtype=np.float64).astype(np.float32)


def _misnamed(index: int, row: FactorRow, known: set[str]) -> list[dict[str, Any]]:
    missing, unknown = known - row.factors.keys(), row.factors.keys() - known
    errors = []
    for name in sorted(unknown):
        near = nearest(name, missing or known)
        hint = f"; did you mean {near!r}?" if near else ""
        detail = f"the bundle has no factor {name!r}{hint}"
        errors.append(field_error(["rows", index, "factors", name], detail, near))
    for name in sorted(missing):
        detail = f"factor {name!r} is missing: send null if it has no value"
        errors.append(field_error(["rows", index, "factors", name], detail))
    return errors


def _number(value: float | None) -> float | None:
    return None if value is None or np.isnan(value) else value
