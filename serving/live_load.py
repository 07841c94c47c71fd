"""What a horizon's live state begins with: the bars table, and what arrived since: bars ∪ arrivals."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from quant.adjust import ACTIONS, no_actions
from quant.arrivals import apart, revised, settled, stepped
from quant.bars import BARS, KEY, known
from quant.grid import Grid
from quant.panel import instants, moment
from quant.recipe import calendar_of
from quant.resample import resample
from resources.arrivals import Arrivals
from resources.lake import Lake, LakeError

EMPTY = pl.DataFrame(schema={name: kind for name, kind in BARS.items() if name != "source"})
NO_JUMPS = pl.DataFrame(schema={"symbol": pl.String(), "timestamp": BARS["timestamp"], "close": pl.Float64()})


@dataclass(frozen=True)
class Stored:
    """Bars as they are on the disk: rows of the bars table, and those told jumps (symbol, timestamp, scaled close).

    actions: the splits and dividends that the source declares, those to come too.
    """

    bars: pl.DataFrame
    jumps: pl.DataFrame
    actions: pl.DataFrame


class Store:
    """The bars tables and the journals below one root."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.lake = Lake(f"{root}/lake")
        self.arrivals = Arrivals(root)

    def layout(self, horizon: str) -> Mapping[str, Any] | None:
        """What a horizon's bars table is made of, None where there is none."""
        return self.lake.layout(f"bars/{horizon}")

    def version(self, horizon: str, step: str = "bars") -> int | None:
        """The newest version of a horizon's bars, or of what else the pipeline made; None where there is none."""
        return self.lake.version(f"{step}/{horizon}")

    def grid(self, horizon: str) -> Grid | None:
        """The grid of a horizon's bars table, None where there is none."""
        layout = self.layout(horizon)
        return None if layout is None else _grid_of(layout)

    def newest(self, horizon: str, step: str = "bars") -> datetime | None:
        """The start of the newest bar in a horizon's table, or in what else the pipeline made."""
        table = f"{step}/{horizon}"
        if not (keys := self.lake.partitions(table)):
            return None
        rows = self.lake.scan(table).filter(pl.col("partition") == keys[-1])
        return rows.select(pl.col("timestamp").max()).collect().item()

    def read(self, horizon: str, grid: Grid, slots: int, finer: str | None) -> Stored:
        """Bars of the newest `slots` slots and more; what was pushed overlays what the table has of the same bars."""
        newest = self.newest(horizon)
        since = None if newest is None else _before(grid, newest, slots)
        if finer is None:
            return self._merged(horizon, grid, since)
        fine_grid = self.grid(finer)
        table = self._table(horizon, since)
        if fine_grid is None:
            return Stored(table, NO_JUMPS, no_actions())
        # Bins of the table's newest session may have grown since, and later ones are not in it.
        start = None if newest is None else _before(grid, newest, 0)
        fine = self._merged(finer, fine_grid, start).bars
        if fine.is_empty():
            return Stored(table, NO_JUMPS, no_actions())
        made = resample(fine, fine_grid, grid)
        rest = table.join(made, on=KEY, how="anti")
        return Stored(pl.concat([rest, made], how="diagonal_relaxed").sort(KEY), NO_JUMPS, no_actions())

    def between(self, horizon: str, start: datetime, end: datetime) -> pl.DataFrame:
        """Bars with start <= timestamp <= end by (timestamp, symbol), as they are live: what was pushed among them.

        LakeError where the horizon has no table.
        """
        layout, newest, back = self.layout(horizon), self.newest(horizon), 0
        if layout is None:
            raise LakeError(f"table bars/{horizon} does not exist under {self.lake.root}: materialize it first")
        grid = _grid_of(layout)
        if newest is not None and newest > start:
            first, last = grid.session_dates(instants(pl.Series([start, newest]))).tolist()
            back = len(grid.slots(first, last))
        finer = None if layout["bars"] == "source" else str(layout["bars"])
        bars = self.read(horizon, grid, back, finer).bars
        return bars.filter(pl.col("timestamp").is_between(start, end)).sort("timestamp", "symbol")

    def _table(self, horizon: str, since: datetime | None) -> pl.DataFrame:
        if since is None:
            return EMPTY
        return self.lake.scan(f"bars/{horizon}", since).drop("partition", "source").collect()

    def _merged(self, horizon: str, grid: Grid, since: datetime | None) -> Stored:
        day = None if since is None else (since - timedelta(days=1)).date()
        came = self.arrivals.read(horizon, day)  # before the table: a journal goes once the table has its bars
        table = self._table(horizon, since)
        if since is not None:
            came = came.filter(pl.col("timestamp") >= since)
        came = came.with_columns(pl.col("jump").fill_null(False))
        came = came.filter(pl.Series(grid.contains(came["timestamp"].to_numpy()), dtype=pl.Boolean))
        told = pl.concat([self._rejected_jumps(horizon, since), known(apart(came), grid)], how="diagonal_relaxed")
        told = told.unique(KEY, keep="last", maintain_order=True)
        if came.is_empty() and told.is_empty():
            return Stored(table, NO_JUMPS, self._actions(horizon))
        taken = known(settled(came), grid)
        return _overlaid(_as_known(table, taken, revised(came)), taken, told, self._actions(horizon), grid)

    def _actions(self, horizon: str) -> pl.DataFrame:
        name = f"actions/{horizon}"
        return self.lake.scan(name).select(ACTIONS.names()).collect() if self.lake.exists(name) else no_actions()

    def _rejected_jumps(self, horizon: str, since: datetime | None) -> pl.DataFrame:
        name = f"rejected/{horizon}"
        if since is None or not self.lake.exists(name):
            return pl.DataFrame()
        rows = self.lake.scan(name, since).filter(pl.col("reason") == "jump")
        return rows.drop("partition", "source", "reason").collect().unique(KEY, keep="last", maintain_order=True)


def _as_known(table: pl.DataFrame, came: pl.DataFrame, revised: pl.DataFrame) -> pl.DataFrame:
    """The table with pushed bars known as the live state had them: when they came, and again when they changed.

    The table knows a bar since it first had these values: before they came, where they were the source's too; after
    they came, where the source had others. came: what was taken; revised: keys of those that changed among themselves.
    """
    since = came.select(*KEY, _came="known_at").join(revised.with_columns(_back=True), on=KEY, how="left")
    held = table.join(since, on=KEY, how="left", maintain_order="left")
    known_at = pl.when("_back").then("_came").otherwise(pl.min_horizontal("known_at", "_came"))
    return held.with_columns(known_at=known_at).select(table.columns)


def _overlaid(
    table: pl.DataFrame, came: pl.DataFrame, jumped: pl.DataFrame, actions: pl.DataFrame, grid: Grid
) -> Stored:
    """The table with what arrived: equal bars stay as they are known there, new ones carry the factors on.

    came, jumped: what was taken, and what was told a jump when it came or by the bars step. Nothing is judged again:
    what was acknowledged stays, whatever came after it.
    """
    factors = ["price_factor", "volume_factor"]
    values = [name for name in came.columns if name not in (*KEY, "known_at")]
    there = table.select(*KEY, *factors, _was=pl.struct([name for name in values if name in table.columns]))
    came = came.join(there, on=KEY, how="left", maintain_order="left")
    same = pl.struct([name for name in values if name in table.columns]).eq_missing(pl.col("_was"))
    came = came.filter(~(same & pl.col("price_factor").is_not_null())).drop("_was")

    def over(bars: pl.DataFrame) -> pl.DataFrame:
        rows = pl.concat([table.join(bars, on=KEY, how="anti"), bars], how="diagonal_relaxed").sort(KEY)
        fresh = rows.with_columns(_fresh=pl.col("price_factor").is_null())
        fresh = fresh.with_columns(pl.col(factors).forward_fill().over("symbol").fill_null(1.0))
        new, old = fresh.filter("_fresh"), fresh.filter(~pl.col("_fresh"))
        first = new.group_by("symbol").agg(first=pl.col("timestamp").min())
        before = old.join(first, on="symbol").filter(pl.col("timestamp") < pl.col("first"))
        before = before.sort("timestamp").group_by("symbol").last().drop("first")
        return pl.concat([old, stepped(new, before, actions, grid)]).drop("_fresh").sort(KEY)

    if jumped.is_empty():
        return Stored(over(came), NO_JUMPS, actions)
    # On the scale of the bars around them, as the next ones are judged by them.
    beside = over(pl.concat([came.join(jumped, on=KEY, how="anti"), jumped], how="diagonal_relaxed"))
    jumps = beside.join(jumped.select(KEY), on=KEY, how="semi")
    return Stored(over(came), jumps.select(*KEY, close=pl.col("close") / pl.col("volume_factor")), actions)


def _grid_of(layout: Mapping[str, Any]) -> Grid:
    return Grid(calendar_of(layout["calendar"]), layout["interval"])


def _before(grid: Grid, bar: datetime, slots: int) -> datetime:
    """The start of the session that lies at least `slots` slots before the one of a bar."""
    session = grid.session_dates(instants(pl.Series([bar])))[0].item()
    first = grid.slots(grid.back(session, slots), session)[0]
    return moment(first)


def symbols_of(bars: pl.DataFrame) -> set[str]:
    """Every symbol with a bar."""
    return set(np.unique(bars["symbol"].to_numpy()).tolist()) if bars.height else set()
