"""Weeks of bars that would fill the session grid if their clock were moved: the trace of a wrong zone."""

from datetime import timedelta

import numpy as np
import polars as pl

from quant.grid import Grid

HOUR = 3_600_000_000
SHIFTS = np.array(sorted(range(-12, 13), key=abs)) * HOUR  # zero first, then the nearest: ties stay small
WEEK = 7 * 24 * HOUR
THURSDAY = 4 * 24 * HOUR  # the first day of the epoch; trading weeks are counted from Sunday

EVIDENCE = 10  # bars off the grid: one at each end of the week speaks of nothing
FULL = 0.95  # of the slots: a thin symbol's week fits wherever it is moved


def session_shifts(frame: pl.DataFrame, grid: Grid) -> list[str]:
    """One sentence per symbol and run of weeks whose bars fit the grid only after a shift by whole hours.

    frame: symbol and timestamp of every bar, on the grid or not. A week speaks for a shift when it leaves at
    most a tenth of the bars that are off the grid now; a run of such weeks is told when EVIDENCE bars are off
    and the moved bars fill the grid to FULL. A clock that is wrong throughout, or on a venue that never
    closes, leaves no trace in the stamps.
    """
    if grid.daily:
        return []
    parts = frame.partition_by("symbol", as_dict=True)
    return [note for (symbol,), bars in parts.items() for note in _of(str(symbol), bars, grid)]


def _of(symbol: str, bars: pl.DataFrame, grid: Grid) -> list[str]:
    stamps = np.sort(bars["timestamp"].to_numpy().astype("datetime64[us]").view(np.int64))
    weeks, week = np.unique((stamps + THURSDAY) // WEEK, return_inverse=True)
    suspects = np.isin(week, week[~_on(grid, stamps)])
    stamps, week = stamps[suspects], week[suspects]
    fits = np.stack([np.bincount(week[_on(grid, stamps + shift)], minlength=len(weeks)) for shift in SHIFTS])
    off = np.bincount(week, minlength=len(weeks)) - fits  # [shifts, weeks]
    best = off.argmin(axis=0)
    best[off.min(axis=0) * 10 > off[0]] = 0
    notes = []
    for run in np.split(np.arange(len(weeks)), np.flatnonzero(np.diff(best)) + 1):
        move = best[run[0]]
        told = move and off[0, run].sum() >= EVIDENCE
        if told and fits[move, run].sum() >= FULL * _slots(grid, weeks[run]):
            inside = stamps[np.isin(week, run)]
            first, last = inside[[0, -1]].view("datetime64[us]").astype("datetime64[D]")
            notes.append(
                f"{symbol}: {off[0, run].sum()} of {len(inside)} bars from {first} to {last} are off the"
                f" grid, {off[move, run].sum()} if all were moved by {SHIFTS[move] // HOUR:+d} h. The source"
                "'s time zone or the calendar is wrong for these dates; the others were kept as they came"
            )
    return notes


def _on(grid: Grid, stamps: np.ndarray) -> np.ndarray:
    return grid.contains(stamps.view("datetime64[us]"))


def _slots(grid: Grid, weeks: np.ndarray) -> int:
    """Slots of the grid in these weeks."""
    first, last = (weeks[[0, -1]] * WEEK - THURSDAY).view("datetime64[us]").tolist()
    slots = grid.slots(first.date(), (last + timedelta(days=8)).date())
    return int(np.isin((slots.view(np.int64) + THURSDAY) // WEEK, weeks).sum())
