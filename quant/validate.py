"""Which bars are good: every row ends in `good` or, with a reason, in `rejected`; nothing disappears."""

from dataclasses import dataclass

import polars as pl

from quant.bars import KEY, PRICES, conform, known
from quant.grid import Grid
from quant.sessionshift import session_shifts

# A row is rejected for the first of these that it breaks. The first two come with the rows of a source, the
# next six from the Pandera schema; the last is told by quant.jumps, which needs the bars before.
REASONS = {
    "ambiguous_time": "the stamp carries no zone and the clocks pass this hour twice",
    "nonexistent_time": "the stamp carries no zone and the clocks skip this hour",
    "null_key": "symbol or timestamp is missing",
    "null_price": "open, high, low or close is missing",
    "non_finite": "a price or the volume is infinite",
    "non_positive": "a price is zero or below",
    "negative_volume": "the volume is below zero",
    "ohlc_order": "high is not the highest or low not the lowest price",
    "off_grid": "no bar of the calendar starts here (extended hours, a holiday, a wrong time zone)",
    "duplicate": "the same bar came again, equal in every column",
    "duplicate_key": "another bar with this symbol and time came later and was kept",
    "jump": "open or close is more than validation.max_jump times off most of the symbol's last bars",
}


@dataclass(frozen=True)
class Checked:
    """Validated bars: rows in = good.height + rejected.height.

    good: sorted by (symbol, timestamp), unique, with known_at. rejected: the same columns and `reason`, in
    order of arrival. counts: reason -> rows, only those that occur. notes: what was repaired or looks wrong
    beyond single rows, one sentence each.
    """

    good: pl.DataFrame
    rejected: pl.DataFrame
    counts: dict[str, int]
    notes: tuple[str, ...]

    def summary(self) -> str:
        """One line per trouble, or that there is none."""
        rows = self.good.height + self.rejected.height
        lines = [f"{self.good.height} of {rows} bars are good"]
        lines += [f"{count} rejected, {reason}: {REASONS[reason]}" for reason, count in self.counts.items()]
        return "\n".join([*lines, *self.notes])


def validate(frame: pl.DataFrame, grid: Grid) -> Checked:
    """Split bars in order of arrival into good ones and rejected ones; BarsError for a frame that is no bars.

    A `reason` that a row brings from its source is kept.
    Of several bars under one key the last to arrive is kept, as vendors correct by sending again; equal
    repeats are told apart from contradictions. A price spike is no reason here, where the bars before are not
    known: quant.jumps tells those beyond any news.
    """
    reason = frame["reason"] if "reason" in frame.columns else pl.Series([None], dtype=pl.String)
    rows = conform(frame.drop("reason", strict=False)).with_row_index("_row")
    rows = rows.join(_failures(rows), on="_row", how="left", maintain_order="left")
    rows = rows.with_columns(reason=pl.coalesce(reason, "reason"))
    on_grid = grid.contains(rows["timestamp"].to_numpy())
    off = pl.col("reason").is_null() & ~pl.Series(on_grid)
    rows = rows.with_columns(reason=pl.when(off).then(pl.lit("off_grid")).otherwise("reason"))
    repeats = _repeats(rows.filter(pl.col("reason").is_null()))
    rows = rows.join(repeats, on="_row", how="left", maintain_order="left")
    rows = rows.with_columns(pl.coalesce("reason", "_repeat").alias("reason")).drop("_repeat")

    good = rows.filter(pl.col("reason").is_null())
    rejected = rows.filter(pl.col("reason").is_not_null())
    found = dict(rejected["reason"].value_counts().iter_rows())
    notes = [*_order(rows), *_scales(good, rejected)]
    if "off_grid" in found:
        notes += session_shifts(rows.filter(pl.col("reason").is_null() | (pl.col("reason") == "off_grid")), grid)
    return Checked(
        good=known(good.drop("_row", "reason").sort(KEY), grid),
        rejected=rejected.drop("_row"),
        counts={reason: found[reason] for reason in REASONS if reason in found},
        notes=tuple(notes),
    )


def _failures(rows: pl.DataFrame) -> pl.DataFrame:
    """(_row, reason): the first rule that each bad row breaks, from Pandera's failure cases."""
    from pandera.errors import SchemaErrors

    try:
        _schema().validate(rows, lazy=True)
    except SchemaErrors as errors:
        cases = errors.failure_cases
        unplaced = cases.filter(pl.col("index").is_null())
        if unplaced.height:
            raise RuntimeError(f"Pandera reports a failure without its row: {unplaced.row(0)}") from errors
        rank = {reason: place for place, reason in enumerate(REASONS)}
        worst = cases.group_by("index").agg(pl.col("check").sort_by(pl.col("check").replace_strict(rank)).first())
        return worst.select(_row=pl.col("index").cast(pl.UInt32), reason="check")
    return pl.DataFrame(schema={"_row": pl.UInt32, "reason": pl.String})


def ready() -> None:
    """Import what validates bars, a second's work."""
    _schema()


def _schema():  # type: ignore[no-untyped-def]  # Pandera's Polars schema is imported late: it takes a second
    import pandera.polars as pa

    high, low = pl.max_horizontal("open", "low", "close"), pl.min_horizontal("open", "high", "close")
    present = {
        "null_key": pl.all_horizontal(pl.col(KEY).is_not_null()),
        "null_price": pl.all_horizontal(pl.col(PRICES).is_not_null()),
        "non_finite": pl.all_horizontal(pl.col([*PRICES, "volume"]).is_finite().fill_null(True)),
        "non_positive": pl.all_horizontal((pl.col(PRICES) > 0).fill_null(True)),
        "negative_volume": (pl.col("volume") >= 0).fill_null(True),
        "ohlc_order": ((pl.col("high") >= high) & (pl.col("low") <= low)).fill_null(True),
    }

    def check(reason: str, rule: pl.Expr) -> pa.Check:
        return pa.Check(lambda data: data.lazyframe.select(rule), name=reason)

    return pa.DataFrameSchema(checks=[check(reason, rule) for reason, rule in present.items()])


def _repeats(rows: pl.DataFrame) -> pl.DataFrame:
    """(_row, _repeat): the reason of every row whose key comes again later."""
    again = rows.filter(pl.len().over(KEY) > 1)
    values = pl.struct([name for name in rows.columns if name not in ("_row", "reason", "known_at")])
    judged = again.with_columns(_last=pl.col("_row").max().over(KEY), _value=values)
    judged = judged.with_columns(_kept=pl.col("_value").last().over(KEY))
    lost = judged.filter(pl.col("_row") != pl.col("_last"))
    equal = pl.col("_value").eq_missing(pl.col("_kept"))
    return lost.select("_row", _repeat=pl.when(equal).then(pl.lit("duplicate")).otherwise(pl.lit("duplicate_key")))


def _order(rows: pl.DataFrame) -> list[str]:
    """Whether a symbol's bars came out of order; they are sorted, and it is said."""
    backwards = rows.select(pl.col("timestamp") < pl.col("timestamp").shift(1).over("symbol")).to_series().sum()
    return [f"unsorted: time runs backwards at {backwards} places; bars were sorted"] if backwards else []


def _scales(good: pl.DataFrame, rejected: pl.DataFrame) -> list[str]:
    """Contradicting bars that differ by one constant factor: a symbol in two price scales."""
    lost = rejected.filter(pl.col("reason") == "duplicate_key").select(*KEY, lost="close")
    ratio = pl.col("close") / pl.col("lost")
    pairs = (
        good.join(lost, on=KEY)
        .group_by("symbol")
        .agg(n=pl.len(), ratio=ratio.median(), spread=(ratio / ratio.median() - 1).abs().max())
    )
    constant = pairs.filter(pl.col("n") > 1, pl.col("spread") < 1e-4, (pl.col("ratio") - 1).abs() > 1e-3).sort("symbol")
    return [
        f"{symbol}: {n} bars came in two price scales; the last to arrive are kept, {ratio:.6g} of the others"
        for symbol, n, ratio, _ in constant.iter_rows()
    ]
