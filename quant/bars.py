"""The bars table: its columns, when a bar was known, what a second arrival changes, what expressions read."""

from collections.abc import Mapping
from datetime import datetime

import polars as pl

from quant.grid import Grid

KEY = ["symbol", "timestamp"]
PRICES = ["open", "high", "low", "close"]
INSTANT = pl.Datetime("us", "UTC")

# What a source gives, in this order; numeric extras (vwap, spread, ...) follow as Float64.
SOURCE_COLUMNS: Mapping[str, pl.DataType] = {
    "symbol": pl.String(),
    "timestamp": INSTANT,
    **dict.fromkeys([*PRICES, "volume"], pl.Float64()),
    "source": pl.String(),
}
# The stored table: factors are cumulative and forward, 1.0 before a symbol's first split or dividend.
BARS: Mapping[str, pl.DataType] = {
    **SOURCE_COLUMNS,
    "known_at": INSTANT,
    "price_factor": pl.Float64(),
    "volume_factor": pl.Float64(),
}


class BarsError(ValueError):
    """Bars that cannot be read as bars at all: the message names the column and what to do."""


def extras(frame: pl.DataFrame) -> list[str]:
    """The columns beyond the bars table's own, in the frame's order."""
    return [name for name in frame.columns if name not in BARS]


def conform(frame: pl.DataFrame) -> pl.DataFrame:
    """The frame with the bars table's types, columns in its order, NaN read as missing; rows untouched.

    A missing `volume` becomes null (a venue that reports none); any other missing column raises BarsError.
    """
    needed = ["symbol", "timestamp", *PRICES, "source"]
    missing = [name for name in needed if name not in frame.columns]
    if missing:
        raise BarsError(f"bars lack the column(s) {', '.join(missing)}; they have {', '.join(frame.columns)}")
    if frame.schema["timestamp"] == pl.Datetime and frame.schema["timestamp"].time_zone is None:  # type: ignore[attr-defined]
        raise BarsError("timestamp has no time zone: say which one it is in, and convert it to UTC")
    more = extras(frame)
    unfit = [name for name in more if not (frame.schema[name].is_numeric() or frame.schema[name] == pl.Boolean)]
    if unfit:
        raise BarsError(f"extra column {unfit[0]!r} is {frame.schema[unfit[0]]}: extras are numbers")
    if "volume" not in frame.columns:
        frame = frame.with_columns(volume=pl.lit(None, dtype=pl.Float64))
    types = {
        **{name: kind for name, kind in BARS.items() if name in frame.columns},
        **dict.fromkeys(more, pl.Float64()),
    }
    numbers = [name for name, kind in types.items() if kind == pl.Float64()]
    return frame.select(pl.col(name).cast(kind) for name, kind in types.items()).with_columns(
        pl.col(numbers).fill_nan(None)
    )


def known(frame: pl.DataFrame, grid: Grid) -> pl.DataFrame:
    """Add known_at for history: each bar's end on the grid. A pushed bar brings its arrival.

    No bar is known before it ends, whatever the sender's clock says.
    """
    end = pl.Series("known_at", grid.ends(frame["timestamp"].to_numpy()), dtype=pl.Datetime("us"))
    end = end.dt.replace_time_zone("UTC")
    if "known_at" in frame.columns:
        return frame.with_columns(known_at=pl.max_horizontal("known_at", end))
    return frame.with_columns(end)


def revise(existing: pl.DataFrame, incoming: pl.DataFrame, now: datetime) -> tuple[pl.DataFrame, dict[str, int]]:
    """Merge a second arrival into what is stored: (merged, counts of new, same, revised, kept).

    Equal bars keep their known_at, new ones bring their own; changed ones are known from `now`, or since they came
    where they say so: pushed later than the stored one was known. Stored bars that did not come again are kept. The
    source's name is no value: a change of it alone is no revision.
    Both frames hold unique (symbol, timestamp); the result is sorted by them.
    """
    values = [name for name in incoming.columns if name not in (*KEY, "known_at", "source")]
    dropped = [name for name in existing.columns if name not in incoming.columns]
    if dropped:
        raise BarsError(f"the stored bars have {', '.join(dropped)} and the incoming ones do not: rewrite the table")
    old = existing.select(*KEY, was=pl.struct([name for name in values if name in existing.columns]), was_at="known_at")
    both = incoming.join(old, on=KEY, how="left", maintain_order="left")
    present = pl.col("was_at").is_not_null()
    # A column that is new to the table is a change of every bar: only equal structs are the same bar.
    same = (
        present & pl.struct(values).eq_missing(pl.col("was")) if set(values) <= set(existing.columns) else pl.lit(False)
    )
    both = both.with_columns(_present=present, _same=same)
    found_out = present & (pl.col("known_at") <= pl.col("was_at"))
    merged = both.with_columns(
        known_at=pl.when("_same").then("was_at").when(found_out).then(pl.lit(now).cast(INSTANT)).otherwise("known_at")
    ).select(incoming.columns)
    kept = existing.join(incoming, on=KEY, how="anti")
    counts = {
        "new": both.filter(~pl.col("_present")).height,
        "same": both.filter("_same").height,
        "revised": both.filter(pl.col("_present") & ~pl.col("_same")).height,
        "kept": kept.height,
    }
    return pl.concat([merged, kept], how="diagonal").sort(KEY), counts


def expression_columns(frame: pl.DataFrame) -> pl.DataFrame:
    """What expressions read: symbol, timestamp, adjusted open .. volume, raw_open .. raw_volume, extras.

    Adjusted prices are the raw ones times price_factor and volumes times volume_factor, in float64; the rest
    of the program is float32.
    """
    return frame.select(
        *KEY,
        *(pl.col(name) * pl.col("price_factor") for name in PRICES),
        pl.col("volume") * pl.col("volume_factor"),
        *(pl.col(name).alias(f"raw_{name}") for name in [*PRICES, "volume"]),
        *extras(frame),
    )
