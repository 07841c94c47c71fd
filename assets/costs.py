"""How a horizon's predictions are read and traded: the terms of its config, and which labels span a session's end."""

from datetime import timedelta

import numpy as np
import polars as pl

from assets.plan import Plan
from conf.schema import TripleBarrier
from quant.portfolio import SetOff, Terms
from quant.score import Task, task_for


def terms(plan: Plan) -> Terms:
    """What trading on the horizon's predictions costs; each side pays half of the spread."""
    costs = plan.horizon.costs
    return Terms(
        holding=plan.label.lookahead,
        cost_bps=costs.bps_per_side + costs.spread_bps / 2 + costs.slippage_bps,
        weighting=costs.weighting,
        overnight=costs.overnight,
        sets_off=_sets_off(plan),
    )


def _sets_off(plan: Plan) -> SetOff:
    """A position that a barrier ends has ended before the next one begins; one entered at a close ends at one."""
    label = plan.horizon.label
    if isinstance(label, TripleBarrier):
        return "never"
    return "always" if label.entry == "this_close" else "in session"


def framed(plan: Plan, frame: pl.DataFrame) -> pl.DataFrame:
    """The frame with `crosses` and `closes` (`quant.portfolio.book`), as far as its column `time` says.

    A label crosses where it is entered (at its bar's close or at the next one's open) in another session than it ends.
    """
    if frame.is_empty():
        return frame.with_columns(crosses=pl.lit(False), closes=pl.lit(False))
    times = frame["time"].unique().sort()
    stamps = times.dt.replace_time_zone(None).to_numpy().astype("datetime64[us]")
    first, last = plan.grid.session_dates(stamps[[0, -1]]).tolist()
    slots = plan.grid.slots(first, last + timedelta(days=10 + 2 * plan.label.lookahead))
    session = plan.grid.session_dates(slots)
    at = np.searchsorted(slots, stamps)
    after = np.minimum(at + 1, len(slots) - 1)
    entry = at if plan.horizon.label.entry == "this_close" else after
    exit = np.minimum(at + plan.label.lookahead, len(slots) - 1)
    flags = pl.DataFrame(
        {"time": times, "crosses": session[entry] != session[exit], "closes": session[at] != session[after]}
    )
    return frame.join(flags, on="time", how="left", maintain_order="left")


def task_of(plan: Plan) -> Task:
    """What the model's predictions are."""
    return task_for(plan.horizon.model.objective)
