"""Coarser bars from finer ones, inside the session grid."""

import polars as pl

from quant.bars import BarsError, extras, known
from quant.grid import Grid


def resample(frame: pl.DataFrame, fine: Grid, coarse: Grid) -> pl.DataFrame:
    """Bars of `coarse` from bars on `fine`, sorted by (symbol, timestamp); BarsError for bars off the fine.

    A coarse bar exists where at least one fine bar does: first open, highest high, lowest low, last close,
    summed volume (null where every fine one is null), last source and factors, known when its last-known fine
    bar was, and not before it ends: until then another may come. `vwap` is weighted by volume; any other extra is
    the last one present. Half days and truncated bins are the grid's: a bin never crosses a session or a break.
    """
    if fine.calendar != coarse.calendar or fine.step >= coarse.step:
        raise BarsError(f"cannot resample {fine!r} to {coarse!r}: same calendar and a longer interval are needed")
    if not coarse.daily and coarse.step % fine.step:
        raise BarsError(f"cannot resample {fine!r} to {coarse!r}: the one interval does not divide the other")
    stamps = frame["timestamp"].to_numpy()
    off = ~fine.contains(stamps)
    if off.any():
        raise BarsError(f"{off.sum()} bars are off the grid {fine!r}, first {stamps[off][0]}: validate them first")
    bins = pl.Series(coarse.floor(stamps), dtype=pl.Datetime("us")).dt.replace_time_zone("UTC")
    made = (
        frame.with_columns(_bin=bins)
        .sort("symbol", "timestamp")
        .group_by("symbol", "_bin", maintain_order=True)
        .agg(_rules(frame))
        .rename({"_bin": "timestamp"})
        .select(frame.columns)
    )
    return known(made, coarse) if "known_at" in made.columns else made


def _rules(frame: pl.DataFrame) -> list[pl.Expr]:
    rules = {
        "open": pl.col("open").first(),
        "high": pl.col("high").max(),
        "low": pl.col("low").min(),
        "close": pl.col("close").last(),
        "volume": pl.when(pl.col("volume").count() > 0).then(pl.col("volume").sum()),
        "known_at": pl.col("known_at").max(),
        **{name: pl.col(name).last() for name in ("source", "price_factor", "volume_factor")},
        **{name: pl.col(name).drop_nulls().last() for name in extras(frame)},
        "vwap": _volume_weighted("vwap"),
    }
    return [rule.alias(name) for name, rule in rules.items() if name in frame.columns]


def _volume_weighted(name: str) -> pl.Expr:
    """The mean weighted by volume; the plain mean where no bar that has the value has volume."""
    weight = pl.when(pl.col(name).is_not_null()).then(pl.col("volume"))
    mean = (pl.col(name) * weight).sum() / weight.sum()
    return pl.when(weight.sum() > 0).then(mean).otherwise(pl.col(name).mean())
