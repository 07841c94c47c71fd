"""Bars on another price scale than their symbol's recent past: a misplaced decimal point, an undeclared split."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from quant.bars import INSTANT, KEY
from quant.grid import Grid

MEMORY = 9  # bars that a bar is compared with; odd, so that a new scale has the majority after five of them
REACH = 128  # slots that they may lie back: an older price says nothing (a ticker used again, a long halt)
PAST = pl.Schema({"symbol": pl.String(), "timestamp": INSTANT, "close": pl.Float64(), "jump": pl.Boolean()})


@dataclass(frozen=True)
class Judged:
    """good and jumps: the bars, apart. past: what judges the bars that follow. notes: a sentence per scale found."""

    good: pl.DataFrame
    jumps: pl.DataFrame
    past: pl.DataFrame
    notes: tuple[str, ...]


def no_past() -> pl.DataFrame:
    """The past of a symbol's first bar."""
    return pl.DataFrame(schema=PAST)


def judge(
    bars: pl.DataFrame,
    past: pl.DataFrame,
    actions: pl.DataFrame,
    grid: Grid,
    most: float,
    good: pl.DataFrame | None = None,
) -> Judged:
    """Split validated bars with unique keys into good ones and jumps.

    A bar is compared with the raw closes of its symbol's last MEMORY bars, those told jumps included, that lie at
    most REACH slots back; declared splits (quant.adjust's actions) bring both to one scale. It is a jump if for more
    than half of them its open or close is more than `most` times the close, or less than its `most`-th part. Only
    raw bars before it decide, never an earlier verdict, so the result is the same however bars come in pieces, as
    long as each piece brings its `past` (PAST; the newest MEMORY bars of REACH slots before it). A scale that stays
    is taken after five bars at most; a symbol's first bar has nothing to be compared with. good: keys of bars that are
    none, whatever their price: somebody has said so before.
    """
    if bars.is_empty():
        return Judged(bars, bars, past, ())
    now = bars.select(*KEY, "open", "close", jump=None, _row=pl.int_range(pl.len()))
    if good is not None:
        said = good.select(KEY).with_columns(jump=pl.lit(False))
        now = now.drop("jump").join(said, on=KEY, how="left", maintain_order="left")
    rows = pl.concat([past.join(now, on=KEY, how="anti"), now], how="diagonal_relaxed").sort(KEY)
    stamps = rows["timestamp"].to_numpy()
    sessions = grid.session_dates(stamps)
    slots = grid.slots(sessions.min().item(), sessions.max().item())
    scale = _splits(rows.select("symbol", session=pl.Series(sessions, dtype=pl.Date)), actions)
    close = rows["close"].to_numpy() * scale
    opened = rows["open"].fill_null(rows["close"]).to_numpy() * scale
    found, ratio = _jumps(rows["symbol"].rle_id().to_numpy(), np.searchsorted(slots, stamps), opened, close, most)
    rows = rows.with_columns(
        jump=pl.coalesce("jump", pl.Series(found)), _ratio=pl.Series(ratio), _close=pl.Series(close)
    )
    verdict = rows.filter(pl.col("_row").is_not_null()).sort("_row")["jump"]
    newest = rows.select(PAST.names()).group_by("symbol", maintain_order=True).tail(MEMORY)
    return Judged(bars.filter(~verdict), bars.filter(verdict), newest.cast(PAST), tuple(_notes(rows, most)))


def _jumps(
    symbol: npt.NDArray[np.uint32],
    slot: npt.NDArray[np.intp],
    opened: npt.NDArray[np.float64],
    close: npt.NDArray[np.float64],
    most: float,
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float64]]:
    """Per row, whether it is a jump, and its close over the newest close that it is off from (NaN: none)."""
    high, low = np.maximum(opened, close), np.minimum(opened, close)
    compared, off = np.zeros(len(close), np.int8), np.zeros(len(close), np.int8)
    ratio = np.full(len(close), np.nan)
    for back in range(1, min(MEMORY, len(close) - 1) + 1):
        before = close[:-back]
        near = (symbol[back:] == symbol[:-back]) & (slot[back:] - slot[:-back] <= REACH)
        with np.errstate(over="ignore"):  # infinite, and so on the side of the limit where it belongs
            far = near & ((high[back:] > most * before) | (low[back:] * most < before))
            times = close[back:] / before
        compared[back:] += near
        off[back:] += far
        ratio[back:] = np.where(far & np.isnan(ratio[back:]), times, ratio[back:])
    return 2 * off > compared, ratio


def _splits(rows: pl.DataFrame, actions: pl.DataFrame) -> npt.NDArray[np.float64]:
    """Per row of (symbol, session), the product of the splits declared until then; adjust refuses impossible ones."""
    splits = actions.filter(pl.col("split") > 0, pl.col("split") != 1).sort("symbol", "date")
    if splits.is_empty():
        return np.ones(rows.height)
    splits = splits.select(
        "symbol", session=pl.col("date").cast(pl.Date), scale=pl.col("split").cum_prod().over("symbol")
    )
    dated = (
        rows.with_row_index("_at")
        .sort("session")
        .join_asof(splits.sort("session"), on="session", by="symbol", strategy="backward", check_sortedness=False)
    )
    return dated.sort("_at")["scale"].fill_null(1.0).to_numpy()


def _notes(rows: pl.DataFrame, most: float) -> list[str]:
    """What the jumps of each symbol are, and where a scale stayed."""
    before = pl.col("jump").shift(1).over("symbol")
    step = pl.col("_close") / pl.col("_close").shift(1).over("symbol")
    stays = ~pl.col("jump") & before & step.is_between(1 / most, most) & pl.col("_ratio").is_not_nan()
    told = rows.with_columns(_stays=stays.fill_null(False)).filter(pl.col("_row").is_not_null())
    first = pl.col("timestamp", "open", "close", "_ratio").first()
    jumps = told.filter("jump").group_by("symbol", maintain_order=True).agg(first, n=pl.len())
    notes = [
        f"{row['symbol']}: {row['n']} bar(s) kept apart as `jump`, the first at {row['timestamp']:%Y-%m-%d %H:%M}: "
        f"open {row['open']:.6g}, close {row['close']:.6g}, {row['_ratio']:.4g} times a close just before it "
        f"(validation.max_jump is {most:g})"
        for row in jumps.iter_rows(named=True)
    ]
    return notes + [
        f"{row['symbol']}: prices stay at {row['_ratio']:.4g} times the scale before and are taken from "
        f"{row['timestamp']:%Y-%m-%d %H:%M} on: an undeclared split (declare it in source.actions), two price scales "
        "in one series, or a broken bar where the series begins"
        for row in told.filter("_stays").iter_rows(named=True)
    ]
