"""When a derived value could first be known: the latest `known_at` among the bars it read."""

from collections.abc import Sequence

import numpy as np
import polars as pl

from quant.graph import Node
from quant.program import Program

NEVER = np.iinfo(np.int64).min  # a slot without a bar: it was read as missing and delays nothing


def known_panel(bars: pl.DataFrame, slots: np.ndarray, symbols: Sequence[str]) -> np.ndarray:
    """`known_at` of bars as int64 microseconds [slots, symbols]; NEVER where there is no bar.

    bars: symbol, timestamp and known_at, every timestamp one of `slots`, every symbol one of `symbols`.
    """
    panel = np.full((len(slots), len(symbols)), NEVER)
    rows = np.searchsorted(slots, bars["timestamp"].dt.replace_time_zone(None).to_numpy().astype("datetime64[us]"))
    column = {symbol: index for index, symbol in enumerate(symbols)}
    columns = bars["symbol"].replace_strict(column, return_dtype=pl.Int64).to_numpy()
    panel[rows, columns] = bars["known_at"].dt.epoch("us").to_numpy()
    return panel


def of_values(program: Program | Node, known: np.ndarray, symbols: Sequence[str]) -> np.ndarray:
    """When the values of a program, or of a node, could be known, int64 [T, S]; known: as `known_panel` gives it.

    A value across the section is known when the last member's is, one that reads a symbol by name when that is.
    """
    reached = latest(known, program.lookback)
    if program.crosses:
        return np.broadcast_to(reached.max(axis=1, keepdims=True), reached.shape)
    for symbol in program.symbols:
        place = list(symbols).index(symbol)
        reached = np.maximum(reached, reached[:, place : place + 1])
    return reached


def latest(known: np.ndarray, lookback: int) -> np.ndarray:
    """The maximum over each slot and the `lookback` slots before it, int64 [T, S].

    Doubling: windows of 1, 2, 4 … slots, so the cost grows with log(lookback).
    """
    width, block = 1, known
    while 2 * width <= lookback + 1:
        block = np.maximum(block, _shift(block, width))
        width *= 2
    return np.maximum(block, _shift(block, lookback + 1 - width))


def _shift(values: np.ndarray, by: int) -> np.ndarray:
    if by == 0:
        return values
    shifted = np.full_like(values, NEVER)
    shifted[by:] = values[:-by]
    return shifted
