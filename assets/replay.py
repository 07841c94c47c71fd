"""Factor rows by a bundle's own expressions, from the bars in the lake: where the factor table holds others."""

from collections.abc import Iterator
from datetime import date

import numpy as np
import polars as pl

from assets import names
from assets.plan import Plan
from assets.window import read, span, windows
from quant import inputs
from quant.bundle import Bundle
from quant.recipe import RecipeError
from resources.lake import Lake


def replayed(
    plan: Plan, lake: Lake, bundle: Bundle, first: date, last: date
) -> Iterator[tuple[pl.DataFrame, np.ndarray]]:
    """Keys (symbol, timestamp) and X float32 [rows, factors] of the sessions first .. last, some sessions at a time.

    Symbols that the bundle does not know are left out. The horizon must keep the bundle's calendar and interval.
    RecipeError for bars that lack a column it reads.
    """
    recipe, horizon = bundle.recipe, plan.horizon.name
    table = lake.scan(names.table("bars", horizon)).collect_schema().names()
    if lacking := [name for name in bundle.columns if name not in {*inputs.names(), *table}]:
        raise RecipeError(f"the expressions of {bundle.id} read {', '.join(lacking)}, and the bars have no such column")
    cells = len(recipe.symbols) * (len(recipe.features) + len(recipe.factors))
    for part in windows(plan, first, last, recipe.lookback, cells):
        bars = _known(bundle, read(lake, "bars", horizon, part.span))
        if bars.is_empty():
            continue
        others = {
            other: _known(bundle, read(lake, "bars", other, span(slots))) for other, slots in recipe.needs(bars).items()
        }
        yield recipe.rows(bars, absent=set(recipe.symbols) - set(bars["symbol"]), others=others)


def newest(plan: Plan, lake: Lake, bundle: Bundle) -> pl.DataFrame:
    """The newest section as a bundle reads it: symbol, timestamp and its factors."""
    stamps = lake.scan(names.table("bars", plan.horizon.name)).select(pl.max("timestamp")).collect()
    stamp = stamps["timestamp"].dt.replace_time_zone(None).to_numpy()
    [day] = plan.grid.session_dates(stamp).tolist()
    [(keys, X)] = list(replayed(plan, lake, bundle, day, day))
    rows = keys.with_columns(pl.Series(name, X[:, column]) for column, name in enumerate(bundle.factors))
    return rows.filter(pl.col("timestamp") == pl.col("timestamp").max()).sort("symbol")


def _known(bundle: Bundle, bars: pl.DataFrame) -> pl.DataFrame:
    return (
        bars.filter(pl.col("symbol").is_in(list(bundle.recipe.symbols))).drop("partition").sort("timestamp", "symbol")
    )
