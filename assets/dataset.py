"""The rows a model learns from and is judged on: factors joined with their label, and what became of every row."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from assets import names
from assets.plan import Plan
from quant.folds import Split, holdout
from quant.inputs import bar_panel
from quant.program import Program
from resources.lake import Lake

LAST_RETURN = "close / lag(close, 1) - 1"


@dataclass(frozen=True)
class Dataset:
    """Labelled rows sorted by (timestamp, symbol). N rows, F factors."""

    names: tuple[str, ...]
    X: np.ndarray  # float32 [N, F], NaN = missing
    y: np.ndarray  # float64 [N]
    symbol: np.ndarray  # [N]
    timestamp: np.ndarray  # [N] datetime64[us], starts of bars
    known: np.ndarray  # [N] datetime64[us], when the row's section is complete
    label_known: np.ndarray  # [N] datetime64[us], when its label is
    last_return: np.ndarray  # [N] return of the row's own bar, for the baseline
    dropped: dict[str, int]  # rows of the factor table that are not here, by reason


def load(plan: Plan, lake: Lake) -> Dataset:
    """Read the factor table and attach labels. A row is dropped without a label, below the declared coverage,
    or when it was known so late that nobody could have traded on it (restated).
    """
    horizon, factors = plan.horizon, list(plan.factor_entries)
    table = lake.scan(names.table("factors", horizon.name)).drop("partition").sort("timestamp", "symbol").collect()
    labels, slots = outcomes(plan, lake)
    # The label stands on the slot grid: its end is a number of slots ahead, whatever the calendar does between.
    rows = table.join(labels, on=["timestamp", "symbol"], how="left", maintain_order="left")
    at = np.searchsorted(slots, _instants(rows["timestamp"]))
    ends = plan.grid.ends(slots)
    beyond = np.minimum(at + plan.label.lookahead, len(slots) - 1)
    X = np.column_stack([rows[name].to_numpy() for name in factors]).astype(np.float32, copy=False)
    late = _instants(rows["known_at"]) > ends[at] + np.timedelta64(horizon.model.restated_after, "s")
    unlabelled = ~np.isfinite(rows["label"].fill_null(np.nan).to_numpy())
    thin = (~np.isnan(X)).mean(axis=1) < horizon.model.min_coverage
    dropped = {
        "restated": int(late.sum()),
        "no label": int((unlabelled & ~late).sum()),
        "coverage below the minimum": int((thin & ~unlabelled & ~late).sum()),
    }
    kept = np.flatnonzero(~(late | unlabelled | thin))
    return Dataset(
        names=tuple(factors),
        X=np.ascontiguousarray(X[kept]),
        y=rows["label"].cast(pl.Float64).to_numpy()[kept],
        symbol=rows["symbol"].to_numpy()[kept],
        timestamp=_instants(rows["timestamp"])[kept],
        known=ends[at[kept]],
        label_known=ends[beyond[kept]],
        last_return=rows["last_return"].fill_null(np.nan).to_numpy()[kept],
        dropped=dropped,
    )


def split(plan: Plan, data: Dataset) -> Split:
    """Train, valid and test rows under the horizon's purged hold-out; the embargo is the look-ahead by default."""
    config = plan.horizon.model
    embargo = plan.label.lookahead if config.embargo is None else config.embargo
    return holdout(data.known, data.label_known, valid=config.valid_share, test=config.test_share, embargo=embargo)


def outcomes(plan: Plan, lake: Lake) -> tuple[pl.DataFrame, np.ndarray]:
    """(timestamp, symbol, label, last_return) of every slot from the first bar to the last, and those slots."""
    columns = [*plan.label.inputs, "close"]
    bars = lake.scan(names.table("bars", plan.horizon.name)).collect()
    symbols = tuple(bars["symbol"].unique().sort())
    stamps = _instants(bars["timestamp"])
    first, last = plan.grid.session_dates(np.array([stamps.min(), stamps.max()])).tolist()
    slots = plan.grid.slots(first, last)
    panel = bar_panel(bars, plan.grid, slots, symbols, dict.fromkeys(columns), plan.attributes)
    values = plan.label.run(panel)
    values |= Program.compile({"last_return": LAST_RETURN}, ["close"]).run(panel)
    frame = pl.DataFrame(
        {
            "timestamp": pl.Series(np.repeat(slots, len(symbols))).cast(pl.Datetime("us")).dt.replace_time_zone("UTC"),
            "symbol": pl.Series(list(symbols) * len(slots), dtype=pl.String),
            **{name: array.ravel() for name, array in values.items()},
        }
    )
    return frame, slots


def _instants(stamps: pl.Series) -> np.ndarray:
    return stamps.dt.replace_time_zone(None).to_numpy().astype("datetime64[us]")
