"""Where bars come from: every source gives the same columns, whatever it reads."""

from collections.abc import Iterator, Sequence
from datetime import date, datetime
from typing import Any, Protocol

import polars as pl

from quant.grid import Grid
from resources.sources.errors import SourceError
from resources.sources.files import FileSource
from resources.sources.synthetic import SyntheticSource, sessions_by

__all__ = ["Source", "SourceError", "open_source"]


class Source(Protocol):
    """Bars at one interval on one session grid."""

    name: str

    @property
    def end(self) -> date | None:
        """The last session that it will ever have; None where it goes on."""
        ...

    def span(self) -> tuple[date, date]:
        """First and last session it has by now."""
        ...

    def symbols(self) -> list[str]:
        """Every symbol it has, in name order."""
        ...

    def bars(self, start: datetime, end: datetime, symbols: Sequence[str] | None) -> Iterator[pl.DataFrame]:
        """Bars with start <= timestamp < end in order of arrival: SOURCE_COLUMNS of quant.bars and extras."""
        ...

    def actions(self) -> pl.DataFrame:
        """Splits and dividends: ACTIONS of quant.adjust."""
        ...


def open_source(config: Any, grid: Grid, now: datetime) -> Source:
    """The source that a config (its `kind`, and the fields of that kind) describes, on the horizon's grid.

    now: how far a synthetic market goes that has no last session.
    """
    if config.kind == "synthetic":
        return SyntheticSource(
            grid,
            seed=config.seed,
            start=config.start,
            sessions=config.sessions or sessions_by(grid, config.start, now),
            symbols=config.symbols,
            signal_ic=config.signal_ic,
            gap_rate=config.gap_rate,
            splits=config.splits,
            ends=config.sessions is not None,
        )
    return FileSource(
        grid,
        kind=config.kind,
        path=config.path,
        columns=config.columns,
        volume=config.volume,
        extras=config.extras,
        timezone=config.timezone,
        stamp=config.stamp,
        actions=config.actions,
        start=config.start,
        end=config.end,
    )
