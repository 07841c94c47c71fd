"""Bars in long form become the panel that expressions read: one place, so training and serving cannot differ."""

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType

import numpy as np
import polars as pl

from quant.attributes import Attribute, attribute_columns
from quant.bars import expression_columns
from quant.grid import Grid
from quant.panel import Panel

CALENDAR = ("minute_of_session", "session_progress", "day_of_week", "bar_of_session")
BARS = ("open", "high", "low", "close", "volume")
RAW = tuple(f"raw_{name}" for name in BARS)
NO_ATTRIBUTES: Mapping[str, Attribute] = MappingProxyType({})


def names(extras: Collection[str] = ()) -> tuple[str, ...]:
    """Names that an expression over bars may use: bar columns, their raw twins, the source's extras, the calendar's."""
    return (*BARS, *RAW, *extras, *CALENDAR)


def bar_panel(
    bars: pl.DataFrame,
    grid: Grid,
    slots: np.ndarray,
    symbols: Sequence[str],
    inputs: Collection[str],
    attributes: Mapping[str, Attribute] = NO_ATTRIBUTES,
) -> Panel:
    """The panel [slots, symbols] of `inputs` from long bars; a slot without a bar is NaN.

    bars: rows of the bars table, all within `slots`; prices are multiplied by `price_factor` and volumes by
    `volume_factor` in float64 before they become float32. Calendar fields are filled for every slot, `attributes`
    wherever there is a bar.
    """
    columns = [name for name in inputs if name not in CALENDAR]
    of_symbols = attribute_columns(bars, grid, attributes, [name for name in columns if name in attributes])
    frame = expression_columns(bars).with_columns(of_symbols).select("symbol", "timestamp", *columns)
    panel = Panel.from_frame(frame, slots, symbols, columns)
    fields = calendar_fields(grid, slots, [name for name in inputs if name in CALENDAR])
    shape = (len(slots), len(symbols))
    dense = {name: np.ascontiguousarray(np.broadcast_to(field[:, None], shape)) for name, field in fields.items()}
    return Panel(panel.time, panel.symbols, {**panel.columns, **dense})


def calendar_fields(grid: Grid, slots: np.ndarray, wanted: Collection[str]) -> dict[str, np.ndarray]:
    """Float32 [T] by name, of bar starts: minutes since the session's open, share of it gone, weekday (Monday 0),
    bars of the session before it."""
    if not wanted or not len(slots):
        return {name: np.empty(len(slots), np.float32) for name in wanted}
    dates = grid.session_dates(slots)
    sessions = grid.sessions(dates[0].item(), dates[-1].item())
    labels = np.array([session.date for session in sessions], dtype="datetime64[D]")
    opens = np.array([_naive(session.open) for session in sessions], dtype="datetime64[us]")
    closes = np.array([_naive(session.close) for session in sessions], dtype="datetime64[us]")
    row = np.searchsorted(labels, dates)
    whole = grid.slots(dates[0].item(), dates[-1].item())  # the first session from its open on, whatever was asked for
    first = np.searchsorted(grid.session_dates(whole), dates)
    # A daily bar is stamped 00:00 of its session date, before the open: its minute is 0.
    elapsed = np.maximum((slots - opens[row]) / np.timedelta64(1, "m"), 0.0)
    length = (closes[row] - opens[row]) / np.timedelta64(1, "m")
    fields = {
        "minute_of_session": elapsed,
        "session_progress": elapsed / length,
        "day_of_week": (dates.astype("int64") + 3) % 7,  # 1970-01-01 was a Thursday
        "bar_of_session": np.searchsorted(whole, slots) - first,
    }
    return {name: fields[name].astype(np.float32) for name in wanted}


def _naive(moment) -> np.datetime64:  # type: ignore[no-untyped-def]
    return np.datetime64(moment.replace(tzinfo=None), "us")
