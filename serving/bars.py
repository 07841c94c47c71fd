"""Raw bars from clients: checked, so that a refusal names its field and row, then made factors."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import polars as pl

from quant.bundle import Bundle, BundleError
from quant.grid import Grid
from quant.inputs import names
from quant.validate import validate
from serving.bar_rules import broken
from serving.messages import Bar, PredictBars
from serving.problems import Faults, Problem, field_error, nearest
from serving.record import Key

_NUMBERS = [name for name in Bar.model_fields if name not in ("symbol", "timestamp")]


def rows_of(bundle: Bundle, body: PredictBars) -> tuple[list[Key], np.ndarray]:
    """Keys and factors float32 [N, F] of the newest `last` slots by (timestamp, symbol); 422 where bars are wrong or
    too few."""
    recipe = bundle.recipe
    _refuse_unknown_horizons(body.at, recipe.reads)
    frame = _checked(body.bars, ["bars"], bundle, recipe.grid, bundle.columns)
    others = {
        name: _checked(bars, ["at", name], bundle, recipe.others[name].grid, bundle.columns_of(name))
        for name, bars in body.at.items()
    }
    try:
        keys, X = bundle.rows_of(frame, body.last, body.absent, others)
    except BundleError as error:
        # The bundle has held them to the rules already: they are told by row only where it refused.
        faults = Faults()
        _against_rules(frame, ["bars"], recipe.grid, faults)
        for name, other in others.items():
            _against_rules(other, ["at", name], recipe.others[name].grid, faults)
        faults.refuse("wrong-bars")
        raise Problem(422, "bars-do-not-suffice", str(error), look_back=bundle.recipe.lookback) from error
    return keys.select("symbol", "timestamp").rows(), np.ascontiguousarray(X)


def _checked(
    bars: Sequence[Bar], where: Sequence[str | int], bundle: Bundle, grid: Grid, columns: Sequence[str]
) -> pl.DataFrame:
    """Rows of the bars table of one horizon; 422 that names the bars at fault."""
    frame = _frame(bars, _extras(bars, where, columns))
    faults = Faults()
    _unknown_symbols(frame, where, bundle, faults)
    _off_grid(frame, where, grid, faults)
    _repeated(frame, where, faults)
    faults.refuse("wrong-bars")
    return frame


def _refuse_unknown_horizons(given: Iterable[str], known: Sequence[str]) -> None:
    faults = Faults()
    reads = f"only of {', '.join(known)}" if known else "nor of any other but its own: leave `at` out"
    faults.each(
        (name for name in given if name not in known),
        lambda name: field_error(
            ["at", name], f"this model reads no bars of horizon {name!r}, {reads}", nearest(name, known)
        ),
    )
    faults.refuse("wrong-bars")


def _extras(bars: Sequence[Bar], where: Sequence[str | int], columns: Sequence[str]) -> list[str]:
    """Columns beyond the standard ones that the expressions read: every bar must name them."""
    wanted, faults = [name for name in columns if name not in names()], Faults()

    def absent(place: tuple[int, str]) -> dict[str, Any]:
        index, name = place
        detail = f"the expressions read column {name!r}: send it, null where it has no value"
        return field_error([*where, index, name], detail, nearest(name, bars[index].extras))

    faults.each(((index, name) for index, bar in enumerate(bars) for name in wanted if name not in bar.extras), absent)
    faults.refuse("wrong-bars")
    return wanted


def _frame(bars: Sequence[Bar], extras: Sequence[str]) -> pl.DataFrame:
    """Rows of the bars table in the order sent."""
    numbers = {name: [getattr(bar, name) for bar in bars] for name in _NUMBERS}
    others = {name: [bar.extras[name] for bar in bars] for name in extras}
    return pl.DataFrame(
        {
            "symbol": [bar.symbol for bar in bars],
            "timestamp": [bar.timestamp for bar in bars],
            **numbers,
            **others,
        },
        schema={
            "symbol": pl.String(),
            "timestamp": pl.Datetime("us", "UTC"),
            **dict.fromkeys((*numbers, *others), pl.Float64()),
        },
    )


def _against_rules(frame: pl.DataFrame, where: Sequence[str | int], grid: Grid, faults: Faults) -> None:
    """Bars whose values no venue can have reported, as the bars step tells them."""
    sent = frame.with_columns(source=pl.lit("sent"), _sent=pl.int_range(pl.len()).cast(pl.Float64))
    rejected = validate(sent, grid).rejected.sort("_sent").select("_sent", "reason")
    told = ((int(row), reason) for row, reason in rejected.iter_rows())
    faults.each(told, lambda one: broken([*where, one[0]], one[1], frame.row(one[0], named=True)))


def _unknown_symbols(frame: pl.DataFrame, where: Sequence[str | int], bundle: Bundle, faults: Faults) -> None:
    known = list(bundle.recipe.symbols)

    def unknown(index: int) -> dict[str, Any]:
        symbol = frame["symbol"][index]
        detail = f"{symbol!r} is not a symbol of this model"
        return field_error([*where, index, "symbol"], detail, nearest(symbol, known))

    faults.each((~frame["symbol"].is_in(known)).arg_true(), unknown)


def _off_grid(frame: pl.DataFrame, where: Sequence[str | int], grid: Grid, faults: Faults) -> None:
    stamps = frame["timestamp"].dt.replace_time_zone(None).to_numpy()

    def off(index: int) -> dict[str, Any]:
        detail = f"{stamps[index]}Z is not the start of a {grid.interval} bar of calendar {grid.calendar.name}"
        return field_error([*where, index, "timestamp"], detail)

    faults.each(np.flatnonzero(~grid.contains(stamps)).tolist(), off)


def _repeated(frame: pl.DataFrame, where: Sequence[str | int], faults: Faults) -> None:
    first = frame.select(pl.struct("symbol", "timestamp").is_first_distinct()).to_series()
    faults.each(
        (~first).arg_true(),
        lambda index: field_error([*where, index, "timestamp"], "this symbol and timestamp were sent before"),
    )
