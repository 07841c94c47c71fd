"""The Pandera schema of a table of values, generated from the names of its set."""

from collections.abc import Collection

import pandera.polars as pa
import polars as pl

STAMP = pl.Datetime("us", "UTC")


def value_schema(names: Collection[str]) -> pa.DataFrameSchema:
    """Keys present and unique, every named column Float32 and finite; a missing value is null, never NaN."""
    finite = pa.Check(lambda data: data.lazyframe.select(pl.col(data.key).is_finite()), name="finite")
    return pa.DataFrameSchema(
        {
            "symbol": pa.Column(pl.String, nullable=False),
            "timestamp": pa.Column(STAMP, nullable=False),
            "known_at": pa.Column(STAMP, nullable=False),
            "partition": pa.Column(pl.String, nullable=False),
            **{name: pa.Column(pl.Float32, finite, nullable=True) for name in names},
        },
        unique=["symbol", "timestamp"],
        strict=True,
    )
