"""A file's stamps become UTC bar starts: text parsed, clocks placed, bar ends turned into starts."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from quant.bars import INSTANT
from quant.grid import Grid
from resources.sources.errors import SourceError

ISO = r"^\d{4}-?\d{2}-?\d{2}"  # the year first: how an ISO 8601 date begins


@dataclass(frozen=True)
class Stamps:
    """How to read the stamps of `path`: the zone of those that carry none, the side of the bar they mark."""

    grid: Grid
    timezone: str
    side: Literal["start", "end"]
    path: str

    def place(self, stamps: pl.Series) -> tuple[pl.Series, pl.Series | None]:
        """UTC bar starts, and where instants are in doubt the reason per row (null where they are not).

        An hour that the clocks pass twice or skip has no one instant: "ambiguous_time" is placed at the first
        pass and "nonexistent_time" an hour later, so that every row lies in some window and can be counted.
        SourceError where a stamp is no time at all.
        """
        local = self._parsed(stamps)
        if self.grid.daily:
            # A daily bar is its date's, in the clock that wrote it; a midnight that ends a day belongs to it.
            ended = local.dt.offset_by("-1us") if self.side == "end" and local.dtype != pl.Date else local
            return ended.dt.date().cast(pl.Datetime("us")).dt.replace_time_zone("UTC"), None
        if local.dtype == pl.Date:
            raise SourceError(f"{self.path}: stamps are dates, and {self.grid.interval} bars need times")
        instants, reason = self._instants(local)
        return (self._starts(instants) if self.side == "end" else instants).cast(INSTANT), reason

    def _parsed(self, stamps: pl.Series) -> pl.Series:
        if stamps.dtype == pl.String:
            odd = stamps.filter(~stamps.str.contains(ISO))
            if odd.len():
                raise SourceError(
                    f"{self.path}: {odd.len()} of {len(stamps)} stamps are not ISO 8601, the first {odd[0]!r}; day and "
                    "month cannot be told apart in other orders: write 2024-01-31 14:30"
                )
            first = stamps.drop_nulls().head(1)
            zoned = bool(first.str.contains(r"\d(Z|[+-]\d\d:?\d\d)$").any())
            text = stamps.str.replace("Z$", "+00:00") if zoned else stamps
            parsed = text.str.to_datetime(time_unit="us", time_zone="UTC" if zoned else None, strict=False)
        elif stamps.dtype.is_temporal():
            parsed = stamps
        else:
            raise SourceError(f"{self.path}: stamps are {stamps.dtype}; write ISO text or datetimes")
        bad = parsed.is_null()
        if bad.any():
            value = stamps.filter(bad)[0]
            raise SourceError(f"{self.path}: {bad.sum()} of {len(bad)} stamps are no times, the first {value!r}")
        return parsed

    def _instants(self, local: pl.Series) -> tuple[pl.Series, pl.Series | None]:
        if getattr(local.dtype, "time_zone", None) is not None:
            return local.dt.convert_time_zone("UTC"), None
        sure = local.dt.replace_time_zone(self.timezone, ambiguous="null", non_existent="null")
        if not sure.has_nulls():
            return sure.dt.convert_time_zone("UTC"), None
        twice = local.dt.replace_time_zone(self.timezone, ambiguous="earliest", non_existent="null")
        # Clocks skip an hour or less: an hour on, every local time exists.
        never = local.dt.offset_by("1h").dt.replace_time_zone(self.timezone, ambiguous="earliest", non_existent="null")
        doubt = pl.when(twice.is_null()).then(pl.lit("nonexistent_time")).otherwise(pl.lit("ambiguous_time"))
        placed = pl.select(
            at=pl.coalesce(sure, twice, never).dt.convert_time_zone("UTC"),
            reason=pl.when(sure.is_null()).then(doubt),
        )
        return placed["at"], placed["reason"]

    def _starts(self, ends: pl.Series) -> pl.Series:
        """Starts of the bars with these ends; the grid's truncated bins are shorter than the interval."""
        stamps = ends.to_numpy().astype("datetime64[us]")
        whole = stamps - np.timedelta64(self.grid.step, "us")
        bins = self.grid.floor(_just_before(stamps))
        inside = ~np.isnat(bins)
        fits = np.zeros(len(stamps), dtype=bool)
        fits[inside] = self.grid.ends(bins[inside]) == stamps[inside]
        return pl.Series(np.where(fits, bins, whole), dtype=pl.Datetime("us")).dt.replace_time_zone("UTC")


def _just_before(stamps: npt.NDArray[np.datetime64]) -> npt.NDArray[np.datetime64]:
    return (stamps.view(np.int64) - 1).view("datetime64[us]")
