"""The rows a model learns from and is judged on: factors joined with their label, and what became of every row."""

from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from assets import names
from assets.plan import Plan
from conf.learning import Model, WalkForward
from quant.folds import Fold, Rows, Split, combinatorial, holdout, walk_forward
from quant.inputs import bar_panel
from quant.labels import gains, grades
from quant.program import Program
from quant.train import RANKING
from quant.weights import recency, uniqueness
from resources.lake import Lake

LAST_RETURN = "close / lag(close, 1) - 1"


@dataclass(frozen=True)
class Dataset:
    """Labelled rows sorted by (timestamp, symbol). N rows, F factors."""

    names: tuple[str, ...]
    X: np.ndarray  # float32 [N, F], NaN = missing
    y: np.ndarray  # float64 [N], the outcome: a return
    target: np.ndarray  # float64 [N], what the objective learns of it
    weight: np.ndarray | None  # float64 [N], None = all alike
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
    keys = table.select("timestamp", "symbol", "known_at")
    rows = keys.join(labels, on=["timestamp", "symbol"], how="left", maintain_order="left")
    at = np.searchsorted(slots, _instants(rows["timestamp"]))
    ends = plan.grid.ends(slots)
    late = _instants(rows["known_at"]) > ends[at] + np.timedelta64(horizon.model.restated_after, "s")
    unlabelled = ~np.isfinite(rows["label"].fill_null(np.nan).to_numpy())
    present = sum((table[name].is_not_null() & table[name].is_not_nan()).cast(pl.Int32) for name in factors)
    thin = np.asarray(present) / len(factors) < horizon.model.min_coverage
    dropped = {
        "restated": int(late.sum()),
        "no label": int((unlabelled & ~late).sum()),
        "coverage below the minimum": int((thin & ~unlabelled & ~late).sum()),
    }
    kept = np.flatnonzero(~(late | unlabelled | thin))
    X = np.empty((len(kept), len(factors)), np.float32)
    for column, name in enumerate(factors):  # one by one: a second copy of the table would be the largest thing here
        X[:, column] = table[name].to_numpy()[kept]
    rows, at = rows[kept], at[kept]
    y, until = rows["label"].to_numpy(), at + rows["ahead"].to_numpy()
    weight = weights(horizon.model, rows["symbol"].to_numpy(), at, until, ends[at])
    if horizon.model.objective in RANKING:  # a grade compares the labels of its section: it is known when the last is
        _, starts, of = np.unique(at, return_index=True, return_inverse=True)
        until = np.maximum.reduceat(until, starts)[of] if len(at) else until
    symbol, known = rows["symbol"].to_numpy(), ends[at]
    return Dataset(
        names=tuple(factors),
        X=X,
        y=y,
        target=target(y, at, horizon.model),
        weight=weight,
        symbol=symbol,
        timestamp=_instants(rows["timestamp"]),
        known=known,
        label_known=ends[until],
        last_return=rows["last_return"].fill_null(np.nan).to_numpy(),
        dropped=dropped,
    )


def split(plan: Plan, data: Dataset) -> Split:
    """Rows of the final model: train, valid for early stopping, and test, the judging window that nothing learns from.

    The embargo is the label's look-ahead by default.
    """
    config = plan.horizon.model
    return holdout(
        data.known, data.label_known, valid=config.valid_share, test=config.test_share, embargo=embargo_of(plan)
    )


def embargo_of(plan: Plan) -> int:
    """Sections between two parts that hold no label of the earlier one."""
    declared = plan.horizon.model.embargo
    return plan.label.lookahead if declared is None else declared


def folds(plan: Plan, data: Dataset) -> list[Fold]:
    """The folds of out-of-fold predictions, over the rows whose label is known before the judging window nears.

    Their counts are of all rows of `data`: those of the judging window, and purged or embargoed against it, are
    outside.
    """
    parts, config = split(plan, data), plan.horizon.folds
    sections = np.unique(data.known)
    near = max(0, int(np.searchsorted(sections, parts.test_start)) - embargo_of(plan))
    rows = np.flatnonzero((data.known < parts.test_start) & (data.label_known < sections[near]))
    embargo, valid = embargo_of(plan), plan.horizon.model.valid_share
    time, end = data.known[rows], data.label_known[rows]
    if isinstance(config, WalkForward):
        found = walk_forward(
            time,
            end,
            folds=config.count,
            share=config.share,
            expanding=config.kind == "expanding",
            train_sections=config.sections,
            embargo=embargo,
            valid=valid,
        )
    else:
        found = combinatorial(time, end, groups=config.groups, test_groups=config.tested, embargo=embargo, valid=valid)
    return [_of_all(fold, rows, len(data.y)) for fold in found]


def _of_all(fold: Fold, rows: Rows, total: int) -> Fold:
    """A fold over the rows `rows` as one over all of them."""
    outside = fold.counts["outside"] + total - len(rows)
    return replace(
        fold,
        train=rows[fold.train],
        valid=rows[fold.valid],
        test=rows[fold.test],
        counts={**fold.counts, "rows": total, "outside": outside},
    )


def target(y: np.ndarray, section: np.ndarray, model: Model) -> np.ndarray:
    """What the model's objective learns of the outcomes y [N]; see conf/model."""
    if model.objective == "binary":
        return gains(y)
    return grades(y, section, model.grades) if model.objective in RANKING else y


def weights(
    model: Model, symbol: np.ndarray, at: np.ndarray, until: np.ndarray, known: np.ndarray
) -> np.ndarray | None:
    """What each row weighs in training, or None where all weigh alike.

    symbol, at, until, known: of each row, with the slots of its signal and of its label's end [N]. A label spans the
    slots after its signal's bar: it is entered at the next bar's open, or just before it.
    """
    if not len(at) or not (model.uniqueness or model.half_life_days):
        return None
    shared = uniqueness(symbol, at + 1, until) if model.uniqueness else np.ones(len(at))
    return shared * recency(known, model.half_life_days) if model.half_life_days else shared


def outcomes(plan: Plan, lake: Lake) -> tuple[pl.DataFrame, np.ndarray]:
    """(timestamp, symbol, label, ahead, last_return) of every slot from the first bar to the last, and those slots.

    ahead: how many slots after its own the label is known.
    """
    columns = [*plan.label.inputs, "close"]
    bars = lake.scan(names.table("bars", plan.horizon.name)).collect()
    symbols = tuple(bars["symbol"].unique().sort())
    stamps = _instants(bars["timestamp"])
    first, last = plan.grid.session_dates(np.array([stamps.min(), stamps.max()])).tolist()
    slots = plan.grid.slots(first, last)
    panel = bar_panel(bars, plan.grid, slots, symbols, dict.fromkeys(columns), plan.attributes)
    labels = plan.label.run(panel)
    values: dict[str, np.ndarray] = {"label": labels.value, "ahead": labels.ahead}
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
