"""The calendar fields of the panel that expressions read."""

from datetime import date

import numpy as np

from quant.grid import CalendarSpec, Grid
from quant.inputs import CALENDAR, calendar_fields


def test_fields_do_not_depend_on_where_the_panel_starts() -> None:
    grid = Grid(CalendarSpec("XNYS"), "30m")
    slots = grid.slots(date(2024, 6, 24), date(2024, 7, 8))  # holds a half day and a holiday
    whole = calendar_fields(grid, slots, CALENDAR)
    for start in (1, 5, 12, 13, 14, 100):
        part = calendar_fields(grid, slots[start:], CALENDAR)
        for name in CALENDAR:
            np.testing.assert_array_equal(part[name], whole[name][start:], err_msg=name)


def test_the_bar_of_the_session_counts_from_its_open_over_half_days_and_breaks() -> None:
    for name, interval in (("XNYS", "30m"), ("XHKG", "15m"), ("24/7", "1h"), ("XNYS", "1d")):
        grid = Grid(CalendarSpec(name), interval)
        slots = grid.slots(date(2024, 6, 24), date(2024, 7, 8))
        _, sizes = np.unique(grid.session_dates(slots), return_counts=True)
        counted = calendar_fields(grid, slots, ["bar_of_session"])["bar_of_session"]
        np.testing.assert_array_equal(counted, np.concatenate([np.arange(size) for size in sizes]))
