"""Cumulative forward factors for splits and dividends: what came later never rewrites the past."""

import polars as pl

from quant.bars import BarsError
from quant.grid import Grid

ACTIONS = pl.Schema({"symbol": pl.String(), "date": pl.Date(), "split": pl.Float64(), "dividend": pl.Float64()})


def no_actions() -> pl.DataFrame:
    """An empty table of actions."""
    return pl.DataFrame(schema=ACTIONS)


def adjust(frame: pl.DataFrame, actions: pl.DataFrame, grid: Grid, prior: pl.DataFrame | None = None) -> pl.DataFrame:
    """Bars with price_factor and volume_factor set, sorted by (symbol, timestamp).

    actions: (symbol, date = ex-date, split = new shares per old one, e.g. 7.0 for 7:1; dividend = cash per
    share held before the split). From the symbol's first bar whose session is at or after the ex-date

        price_factor  *= split * last_close / (last_close - dividend)
        volume_factor /= split

    with last_close the raw close of the bar before (the usual total-return factor, turned forward), so that
    adjusted returns across the date are what a holder earned. prior: bars before the frame, with factors,
    where the frame does not start at the symbol's first bar; actions up to the newest one's session are
    contained in its factors. Both frames are validated: keys are unique and closes above zero.
    """
    frame = frame.drop("price_factor", "volume_factor", strict=False)
    before = _before(frame, prior)
    rows = pl.concat([before, frame.select("symbol", "timestamp", "close", _prior=pl.lit(False))])
    session = pl.Series(grid.session_dates(rows["timestamp"].to_numpy()), dtype=pl.Date)
    rows = rows.with_columns(session.alias("_session")).sort("symbol", "timestamp")
    rows = rows.with_columns(
        _last_close=pl.col("close").shift(1).over("symbol"),
        _last_session=pl.col("_session").shift(1).over("symbol"),
    )
    steps = _steps(rows, actions)
    factors = (
        rows.join(steps, on=["symbol", "timestamp"], how="left", maintain_order="left")
        .join(_base(frame, prior), on="symbol", how="left", maintain_order="left")
        .with_columns(
            price_factor=pl.col("_price") * pl.col("_price_step").fill_null(1.0).cum_prod().over("symbol"),
            volume_factor=pl.col("_volume") * pl.col("_volume_step").fill_null(1.0).cum_prod().over("symbol"),
        )
        .select("symbol", "timestamp", "price_factor", "volume_factor")
    )
    return frame.join(factors, on=["symbol", "timestamp"], how="left", validate="1:1").sort("symbol", "timestamp")


def _before(frame: pl.DataFrame, prior: pl.DataFrame | None) -> pl.DataFrame:
    none = frame.clear().select("symbol", "timestamp", "close", _prior=pl.lit(True))
    if prior is None:
        return none
    newest = prior.sort("timestamp").group_by("symbol", maintain_order=True).last()
    late = newest.join(frame.group_by("symbol").agg(first=pl.col("timestamp").min()), on="symbol")
    if (late["timestamp"] >= late["first"]).any():
        raise BarsError(f"prior bars of {late['symbol'][0]} are not before the frame: pass only earlier ones")
    return newest.select("symbol", "timestamp", "close", _prior=pl.lit(True))


def _base(frame: pl.DataFrame, prior: pl.DataFrame | None) -> pl.DataFrame:
    """Each symbol's factors before the frame's first bar."""
    symbols = frame.select(pl.col("symbol").unique())
    one = pl.lit(1.0)
    if prior is None:
        return symbols.with_columns(_price=one, _volume=one)
    newest = prior.sort("timestamp").group_by("symbol").last()
    known = newest.select("symbol", _price="price_factor", _volume="volume_factor")
    joined = symbols.join(known, on="symbol", how="left")
    return joined.with_columns(pl.col("_price", "_volume").fill_null(1.0))


def _steps(rows: pl.DataFrame, actions: pl.DataFrame) -> pl.DataFrame:
    """The product of each bar's own actions: symbol, timestamp, _price_step, _volume_step.

    An action lands on the first bar whose session is at or after its date, and on no other; an action before
    the symbol's first bar touches nothing.
    """
    first = rows.filter(pl.col("_session").ne_missing(pl.col("_last_session"))).sort("_session")
    landed = (
        actions.cast(ACTIONS)
        .sort("date")
        .join_asof(
            first,
            left_on="date",
            right_on="_session",
            by="symbol",
            strategy="forward",
            coalesce=False,
            check_sortedness=False,
        )
    )
    landed = landed.filter(pl.col("_last_close").is_not_null(), ~pl.col("_prior"))
    wrong = landed.filter((pl.col("split") <= 0) | (pl.col("dividend") >= pl.col("_last_close")))
    if wrong.height:
        row = wrong.row(0, named=True)
        raise BarsError(
            f"action of {row['symbol']} on {row['date']}: split {row['split']}, dividend {row['dividend']} on"
            f" a last close of {row['_last_close']}; a split is above 0 and a dividend below the price"
        )
    split, dividend = pl.col("split").fill_null(1.0), pl.col("dividend").fill_null(0.0)
    return (
        landed.with_columns(
            _price_step=split * pl.col("_last_close") / (pl.col("_last_close") - dividend),
            _volume_step=1.0 / split,
        )
        .group_by("symbol", "timestamp")
        .agg(pl.col("_price_step", "_volume_step").product())
    )
