"""Raw bars from clients: checked, so that a refusal names its field and row, then made factors."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from quant.bundle import Bundle, BundleError
from quant.grid import Grid
from quant.inputs import names
from quant.validate import REASONS, validate
from serving.messages import Bar, PredictBars
from serving.problems import Problem, field_error, nearest, refuse_fields
from serving.record import Key

_NUMBERS = [name for name in Bar.model_fields if name not in ("symbol", "timestamp")]


def rows_of(bundle: Bundle, body: PredictBars) -> tuple[list[Key], np.ndarray]:
    """Keys and factors float32 [N, F] of the newest `last` slots by (timestamp, symbol); 422 where bars are wrong or
    too few."""
    recipe = bundle.recipe
    if errors := list(_unknown_horizons(body.at, recipe.reads)):
        raise refuse_fields("wrong-bars", errors)
    frame = _checked(body.bars, ["bars"], bundle, recipe.grid, bundle.columns)
    others = {
        name: _checked(bars, ["at", name], bundle, recipe.others[name].grid, bundle.columns_of(name))
        for name, bars in body.at.items()
    }
    try:
        keys, X = bundle.rows_of(frame, body.last, body.absent, others)
    except BundleError as error:
        # The bundle has held them to the rules already: they are told by row only where it refused.
        if wrong := [*_against_rules(frame, ["bars"], recipe.grid), *_others_against_rules(bundle, others)]:
            raise refuse_fields("wrong-bars", wrong) from error
        raise Problem(422, "bars-do-not-suffice", str(error), look_back=bundle.recipe.lookback) from error
    return keys.select("symbol", "timestamp").rows(), np.ascontiguousarray(X)


def _checked(
    bars: Sequence[Bar], where: Sequence[str | int], bundle: Bundle, grid: Grid, columns: Sequence[str]
) -> pl.DataFrame:
    """Rows of the bars table of one horizon; 422 that names the bars at fault."""
    frame = _frame(bars, _extras(bars, where, columns))
    if errors := [*_unknown_symbols(frame, where, bundle), *_off_grid(frame, where, grid), *_repeated(frame, where)]:
        raise refuse_fields("wrong-bars", errors)
    return frame


def _unknown_horizons(given: Iterable[str], known: Sequence[str]) -> Iterator[dict[str, Any]]:
    for name in given:
        if name not in known:
            reads = f"only {', '.join(known)}" if known else "none"
            yield field_error(["at", name], f"this model reads no horizon {name!r}, {reads}", nearest(name, known))


def _extras(bars: Sequence[Bar], where: Sequence[str | int], columns: Sequence[str]) -> list[str]:
    """Columns beyond the standard ones that the expressions read: every bar must name them."""
    wanted = [name for name in columns if name not in names()]
    errors = []
    for index, bar in enumerate(bars):
        for name in wanted:
            if name not in bar.extras:
                near = nearest(name, bar.extras)
                detail = f"the expressions read column {name!r}: send it, null where it has no value"
                errors.append(field_error([*where, index, name], detail, near))
    if errors:
        raise refuse_fields("wrong-bars", errors)
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


def _against_rules(frame: pl.DataFrame, where: Sequence[str | int], grid: Grid) -> Iterator[dict[str, Any]]:
    """Bars whose values no venue can have reported, as the bars step tells them."""
    sent = frame.with_columns(source=pl.lit("sent"), _sent=pl.int_range(pl.len()).cast(pl.Float64))
    for row, reason in validate(sent, grid).rejected.sort("_sent").select("_sent", "reason").iter_rows():
        yield field_error([*where, int(row)], f"{reason}: {REASONS[reason]}")


def _others_against_rules(bundle: Bundle, others: Mapping[str, pl.DataFrame]) -> Iterator[dict[str, Any]]:
    for name, frame in others.items():
        yield from _against_rules(frame, ["at", name], bundle.recipe.others[name].grid)


def _unknown_symbols(frame: pl.DataFrame, where: Sequence[str | int], bundle: Bundle) -> Iterator[dict[str, Any]]:
    known = list(bundle.recipe.symbols)
    for index in (~frame["symbol"].is_in(known)).arg_true():
        symbol = frame["symbol"][index]
        detail = f"{symbol!r} is not a symbol of this model"
        yield field_error([*where, index, "symbol"], detail, nearest(symbol, known))


def _off_grid(frame: pl.DataFrame, where: Sequence[str | int], grid: Grid) -> Iterator[dict[str, Any]]:
    stamps = frame["timestamp"].dt.replace_time_zone(None).to_numpy()
    for index in np.flatnonzero(~grid.contains(stamps)).tolist():
        detail = f"{stamps[index]}Z is not the start of a {grid.interval} bar of calendar {grid.calendar.name}"
        yield field_error([*where, index, "timestamp"], detail)


def _repeated(frame: pl.DataFrame, where: Sequence[str | int]) -> Iterator[dict[str, Any]]:
    first = frame.select(pl.struct("symbol", "timestamp").is_first_distinct()).to_series()
    for index in (~first).arg_true():
        yield field_error([*where, index], "this symbol and timestamp were sent before")
