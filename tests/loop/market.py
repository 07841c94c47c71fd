"""A vendor's folder: a file for each session, written when the replay comes to it, late, wrong or not at all."""

from datetime import UTC, date, datetime
from pathlib import Path
from unittest.mock import patch

import polars as pl

from quant.grid import CalendarSpec, Grid
from resources.sources import synthetic

GRID = Grid(CalendarSpec("XNYS"), "5m")


def bars(first: date, sessions: int, symbols: int = 4, seed: int = 3, grid: Grid = GRID) -> pl.DataFrame:
    """Bars of a made-up market that never changes: symbol, timestamp, open, high, low, close, volume."""
    # The source's own market has turbulent spells, each a change of regime.
    with patch.dict(synthetic.STAY, calm=1.0):
        synthetic._market.cache_clear()
        source = synthetic.SyntheticSource(
            grid, seed=seed, start=first, sessions=sessions, symbols=symbols, signal_ic=0.05, gap_rate=0.002, splits=0
        )
        span = datetime(1990, 1, 2, tzinfo=UTC), datetime(2049, 1, 1, tzinfo=UTC)
        made = pl.concat(list(source.bars(*span, None))).drop("source")
        synthetic._market.cache_clear()
    return made


def turbulent(market: pl.DataFrame, since: date) -> pl.DataFrame:
    """The same market, whose bars from a session on are wider and busier: another regime."""
    later = pl.col("timestamp").dt.date() >= since
    middle, wide = (pl.col("high") + pl.col("low")) / 2, 3.0
    return market.with_columns(
        volume=pl.when(later).then(pl.col("volume") * 4).otherwise("volume"),
        **{
            edge: pl.when(later).then(middle + (pl.col(edge) - middle) * wide).otherwise(edge)
            for edge in ("open", "high", "low", "close")
        },
    )


class Vendor:
    """The folder, and what it should have."""

    def __init__(self, folder: Path, market: pl.DataFrame) -> None:
        self.folder, self.market = folder, market
        self.sent: dict[date, pl.DataFrame] = {}
        folder.mkdir(parents=True)

    @property
    def glob(self) -> str:
        return f"{self.folder}/*.parquet"

    @property
    def sessions(self) -> list[date]:
        return self.market["timestamp"].dt.date().unique().sort().to_list()

    def of(self, day: date) -> pl.DataFrame:
        return self.market.filter(pl.col("timestamp").dt.date() == day)

    def send(self, day: date, rows: pl.DataFrame | None = None) -> None:
        """Write a session's file, as it should be unless told otherwise; a reader sees the old one or the new one."""
        rows = self.of(day) if rows is None else rows
        draft = self.folder / f".{day}"
        rows.write_parquet(draft)
        draft.replace(self.folder / f"{day}.parquet")
        self.sent[day] = rows

    def dies(self) -> None:
        self.folder.rename(self.folder.with_name("gone"))

    def lives(self) -> None:
        self.folder.with_name("gone").rename(self.folder)
