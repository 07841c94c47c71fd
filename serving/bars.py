"""Raw bars from clients: checked, so that a refusal names its field and row, then predicted by the bundle."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import polars as pl

from quant.bundle import Bundle, BundleError
from quant.inputs import names
from serving.messages import Bar, PredictBars, Prediction
from serving.problems import Problem, field_error, nearest, refuse_fields

_NUMBERS = [name for name in Bar.model_fields if name not in ("symbol", "timestamp")]


def predict(bundle: Bundle, body: PredictBars) -> list[Prediction]:
    """Predictions of the newest `last` slots by (timestamp, symbol); 422 where bars are wrong or too few."""
    frame = _frame(body.bars, _extras(body.bars, bundle))
    if errors := [*_unknown_symbols(frame, bundle), *_off_grid(frame, bundle), *_repeated(frame)]:
        raise refuse_fields("wrong-bars", errors)
    try:
        predicted = bundle.predict_bars(frame, body.last, body.absent)
    except BundleError as error:
        raise Problem(422, "bars-do-not-suffice", str(error), look_back=bundle.recipe.lookback) from error
    return [Prediction(**row) for row in predicted.to_dicts()]


def _extras(bars: Sequence[Bar], bundle: Bundle) -> list[str]:
    """Columns beyond the standard ones that the expressions read: every bar must name them."""
    wanted = [name for name in bundle.columns if name not in names()]
    errors = []
    for index, bar in enumerate(bars):
        for name in wanted:
            if name not in bar.extras:
                near = nearest(name, bar.extras)
                detail = f"the expressions read column {name!r}: send it, null where it has no value"
                errors.append(field_error(["bars", index, name], detail, near))
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


def _unknown_symbols(frame: pl.DataFrame, bundle: Bundle) -> Iterator[dict[str, Any]]:
    known = list(bundle.recipe.symbols)
    for index in (~frame["symbol"].is_in(known)).arg_true():
        symbol = frame["symbol"][index]
        detail = f"{symbol!r} is not a symbol of this model"
        yield field_error(["bars", index, "symbol"], detail, nearest(symbol, known))


def _off_grid(frame: pl.DataFrame, bundle: Bundle) -> Iterator[dict[str, Any]]:
    grid = bundle.recipe.grid
    stamps = frame["timestamp"].dt.replace_time_zone(None).to_numpy()
    for index in np.flatnonzero(~grid.contains(stamps)).tolist():
        detail = f"{stamps[index]}Z is not the start of a {grid.interval} bar of calendar {grid.calendar.name}"
        yield field_error(["bars", index, "timestamp"], detail)


def _repeated(frame: pl.DataFrame) -> Iterator[dict[str, Any]]:
    first = frame.select(pl.struct("symbol", "timestamp").is_first_distinct()).to_series()
    for index in (~first).arg_true():
        yield field_error(["bars", index], "this symbol and timestamp were sent before")
