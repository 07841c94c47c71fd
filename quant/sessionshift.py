"""Weeks of bars that would fit the session grid if their clock were moved: the trace of a wrong time zone."""

import numpy as np
import polars as pl

from quant.grid import Grid

HOUR = 3_600_000_000
SHIFTS = np.array(sorted(range(-12, 13), key=abs)) * HOUR  # zero first, then the nearest: ties stay small
WEEK = 7 * 24 * HOUR
EVIDENCE = 10  # a few weeks of hours that a template has an hour off are no broken clock
THURSDAY = 4 * 24 * HOUR  # the first day of the epoch; trading weeks are counted from Sunday


def session_shifts(frame: pl.DataFrame, grid: Grid) -> list[str]:
    """One sentence per symbol and run of weeks whose bars fit the grid only after a shift by whole hours.

    frame: symbol and timestamp of every bar, on the grid or not. A week speaks for a shift when it leaves at
    most a tenth of the bars that are off the grid now; a run of weeks counts when EVIDENCE bars are off.
    A clock that is wrong throughout a venue without closing hours leaves no trace in the stamps.
    """
    if grid.daily or frame.is_empty():
        return []
    return [
        note
        for (symbol,), bars in frame.partition_by("symbol", as_dict=True).items()
        for note in _of(str(symbol), bars, grid)
    ]


def _of(symbol: str, bars: pl.DataFrame, grid: Grid) -> list[str]:
    stamps = np.sort(bars["timestamp"].to_numpy().astype("datetime64[us]").view(np.int64))
    weeks, week = np.unique((stamps + THURSDAY) // WEEK, return_inverse=True)
    off = np.zeros((len(weeks), len(SHIFTS)), dtype=np.int64)
    suspects = np.isin(week, week[~grid.contains(stamps.view("datetime64[us]"))])
    stamps, week = stamps[suspects], week[suspects]
    for column, shift in enumerate(SHIFTS):
        missed = ~grid.contains((stamps + shift).view("datetime64[us]"))
        off[:, column] = np.bincount(week[missed], minlength=len(weeks))
    best = off.argmin(axis=1)
    best[off[np.arange(len(weeks)), best] * 10 > off[:, 0]] = 0
    notes = []
    for run in np.split(np.arange(len(weeks)), np.flatnonzero(np.diff(best)) + 1):
        shift, now = SHIFTS[best[run[0]]], off[run, 0].sum()
        if shift and now >= EVIDENCE:
            inside = stamps[np.isin(week, run)]
            first, last = inside[[0, -1]].view("datetime64[us]").astype("datetime64[D]")
            left = off[run, best[run[0]]].sum()
            notes.append(
                f"{symbol}: the clock looks wrong from {first} to {last}: {now} of {len(inside)} bars are off"
                f" the grid, {left} if moved by {shift // HOUR:+d} h. The others were kept as they came: set"
                " the source's time zone for these dates and read them again"
            )
    return notes
