"""Long frames as a notebook hands them over: one row per symbol and timestamp, checked before they are read."""

from typing import Any

import polars as pl

ADDED = {"symbol": 'frame.with_columns(symbol=pl.lit("AAPL"))', "timestamp": 'frame.rename({"date": "timestamp"})'}


def long_frame(frame: Any) -> pl.DataFrame:
    """The frame with `symbol` as text and `timestamp` as a Datetime; a Date becomes its midnight, UTC.

    Raises ValueError that says what to do with anything else: not a Polars DataFrame, a key that is absent, of
    another type or null, no rows.
    """
    if isinstance(frame, pl.LazyFrame):
        raise ValueError("the frame is a LazyFrame: collect it first, with frame.collect()")
    if not isinstance(frame, pl.DataFrame):
        pandas = type(frame).__module__.startswith("pandas")
        fix = ": convert it first, with polars.from_pandas(frame)" if pandas else ""
        raise ValueError(f"the frame is a {type(frame).__module__}.{type(frame).__name__}, not a Polars DataFrame{fix}")
    for key, fix in ADDED.items():
        if key not in frame.columns:
            has = ", ".join(frame.columns) or "no column"
            raise ValueError(f"the frame has no column {key}; it has {has}: add it, as with {fix}")
    if frame.is_empty():
        raise ValueError("the frame has no rows")
    for key in ADDED:
        if nulls := frame[key].null_count():
            raise ValueError(
                f"{nulls:,} of {frame.height:,} rows have no {key}: drop them, with frame.drop_nulls({key!r})"
            )
    if frame.schema["symbol"] not in (pl.String, pl.Categorical, pl.Enum):
        raise ValueError(
            f"symbol is {frame.schema['symbol']}, not a text: cast it, with pl.col('symbol').cast(pl.String)"
        )
    if not isinstance(frame.schema["timestamp"], pl.Date | pl.Datetime):
        kind = frame.schema["timestamp"]
        raise ValueError(f"timestamp is {kind}, not a Date or Datetime: convert it, as with .str.to_datetime()")
    midnight = [pl.col("timestamp").cast(pl.Datetime("us", "UTC"))] if frame.schema["timestamp"] == pl.Date else []
    return frame.with_columns(pl.col("symbol").cast(pl.String), *midnight)
