"""What drift compares: predictions, factors and the features they read, most important first, session by session."""

from dataclasses import dataclass
from datetime import date, datetime
from typing import Literal

import numpy as np
import polars as pl

from assets import names
from assets.plan import Plan
from assets.window import span
from quant.bundle import Bundle
from quant.universe import session_of
from resources.lake import Lake

PREDICTION = "prediction"  # watched beside the factors: ranks alone never drift
KEY = ["timestamp", "symbol"]
Kind = Literal["prediction", "factor", "feature"]


class Unwatchable(ValueError):
    """A bundle that the tables of today cannot be compared with; the message says why."""


@dataclass(frozen=True)
class Watched:
    """A column that is compared. importance: the share of the model's gain; None of a prediction."""

    name: str
    kind: Kind
    importance: float | None


def watched(bundle: Bundle, most: int) -> list[Watched]:
    """The prediction and then factors, and features that they read, the most important first; `most` in all.

    A feature is as important as the most important factor that reads it.
    """
    gain = {name: float(value) for name, value in bundle.manifest["importance"].items()}
    total = sum(gain.values()) or 1.0
    found = {name: Watched(name, "factor", gain[name] / total) for name in bundle.factors}
    program = bundle.recipe.factor_program
    for factor in bundle.factors:
        for name in program.reads(factor) & bundle.recipe.features.keys() - set(bundle.factors):
            before = found.get(name)
            share = max(gain[factor] / total, before.importance or 0.0 if before else 0.0)
            found[name] = Watched(name, "feature", share)
    ranked = sorted(found.values(), key=lambda one: (-(one.importance or 0.0), one.kind, one.name))
    return [Watched(PREDICTION, "prediction", None), *ranked][:most]


def present(plan: Plan, lake: Lake, bundle: Bundle, columns: list[Watched], first: date, last: date) -> pl.DataFrame:
    """The columns' rows of the sessions first .. last, with `session` and what the bundle predicts of them."""
    slots = plan.grid.slots(first, last)
    start, end = span(slots)
    inside = pl.col("timestamp").is_between(start, end)
    return _rows(plan, lake, bundle, columns, inside)


def reference(plan: Plan, lake: Lake, bundle: Bundle, columns: list[Watched]) -> pl.DataFrame:
    """The same of the rows that the bundle was trained on.

    With what it says of them itself: that is right more often than what it will say of new ones, but spreads alike
    (`bench/drift.py rate`). What the models of its folds said does not: each stopped after trees of its own.
    """
    first, last = (datetime.fromisoformat(stamp) for stamp in bundle.manifest["spans"]["train"])
    return _rows(plan, lake, bundle, columns, pl.col("timestamp").is_between(first, last))


def _rows(plan: Plan, lake: Lake, bundle: Bundle, columns: list[Watched], inside: pl.Expr) -> pl.DataFrame:
    rows = _factors(plan, lake, bundle, inside)
    X = np.column_stack([rows[name].to_numpy() for name in bundle.factors]).astype(np.float32, copy=False)
    predictions = bundle.predict_rows(np.ascontiguousarray(X)) if rows.height else np.zeros(0)
    rows = rows.with_columns(pl.Series(PREDICTION, predictions, dtype=pl.Float64))
    return _watched_of(plan, lake, rows, columns, inside)


def _factors(plan: Plan, lake: Lake, bundle: Bundle, inside: pl.Expr) -> pl.DataFrame:
    table = lake.scan(names.table("factors", plan.horizon.name))
    if lacking := sorted(set(bundle.factors) - set(table.collect_schema().names())):
        raise Unwatchable(
            f"the champion {bundle.id} reads {', '.join(lacking[:5])}, which the factor table no longer has: train a "
            "model on the present factors"
        )
    return table.filter(inside).select(*KEY, *bundle.factors).sort(KEY).collect()


def _watched_of(plan: Plan, lake: Lake, rows: pl.DataFrame, columns: list[Watched], inside: pl.Expr) -> pl.DataFrame:
    """The watched columns and `session`, features joined from their table."""
    features = [one.name for one in columns if one.kind == "feature"]
    if features:
        table = lake.scan(names.table("features", plan.horizon.name))
        if lacking := sorted(set(features) - set(table.collect_schema().names())):
            raise Unwatchable(f"the feature table no longer has {', '.join(lacking[:5])}: train a model on the new one")
        found = table.filter(inside).select(*KEY, *features).collect()
        rows = rows.join(found, on=KEY, how="left", maintain_order="left")
    session = session_of(rows["timestamp"], plan.grid)
    return rows.select(*KEY, *(one.name for one in columns)).with_columns(session)
