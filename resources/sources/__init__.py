"""Where bars come from: every source gives the same columns, whatever it reads."""

from collections.abc import Iterator, Sequence
from datetime import date, datetime
from typing import Any, Protocol

import polars as pl

from quant.grid import Grid
from resources.sources.errors import SourceError
from resources.sources.files import FileSource
from resources.sources.synthetic import SyntheticSource

__all__ = ["Source", "SourceError", "open_source"]


class Source(Protocol):
    """Bars at one interval on one session grid."""

    name: str

    def span(self) -> tuple[date, date | None]:
        """First and last session it has; None where it goes on."""
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


def open_source(config: Any, grid: Grid) -> Source:
    """The source that a config (its `kind`, and the fields of that kind) describes, on the horizon's grid."""
    if config.kind == "synthetic":
        return SyntheticSource(
            grid,
            seed=config.seed,
            start=config.start,
            sessions=config.sessions,
            symbols=config.symbols,
            signal_ic=config.signal_ic,
            gap_rate=config.gap_rate,
            splits=config.splits,
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
