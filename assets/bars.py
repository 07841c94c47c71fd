"""bars: of a source and of what was pushed, or of a finer horizon; validated, revised; what fails keeps its reason."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from functools import partial

import dagster as dg
import numpy as np
import polars as pl

from assets import fetched, names, partitions
from assets.journals import prune
from assets.layout import layout_of
from assets.plan import Plan
from assets.pushed import Pushed, with_pushed
from assets.versions import told
from assets.window import read, symbols_of, windows
from quant.adjust import adjust
from quant.bars import KEY, revise
from quant.jumps import REACH, Judged, judge, no_past
from quant.resample import resample
from quant.validate import REASONS, validate
from resources.arrivals import Arrivals
from resources.clock import Clock
from resources.lake import Lake
from resources.progress import Progress
from resources.settings import Settings
from resources.sources import Source, open_source

ALWAYS = "always"  # the one partition of the splits and dividends

# Slots read at a time: a few weeks of minutes, or a daily history whole.
SLOTS_PER_CHUNK = 8192
ABOUT = "Every row that came in was kept, was rejected with its reason, or gave way to a pushed bar; none is lost."

# Rows that arrived for the bars that start in [start, end), None where none did.
Arrival = tuple[datetime, datetime, pl.DataFrame | None]


@dataclass
class Account:
    """Where every incoming row went: incoming = kept + rejected + replaced + unfinished, or rows were lost."""

    incoming: int = 0
    kept: Counter[str] = field(default_factory=Counter)  # new, same, revised
    rejected: Counter[str] = field(default_factory=Counter)  # by reason
    pushed: int = 0  # of the incoming: pushed to the service
    replaced: int = 0  # of the source, in whose place a pushed bar is
    unfinished: int = 0  # of bars that have not ended by the clock: nobody can know them yet
    late: int = 0  # of the kept: new, though their partition was fetched after they ended
    notes: list[str] = field(default_factory=list)  # repaired, or wrong beyond single rows
    refused: list[pl.DataFrame] = field(default_factory=list)

    @property
    def adds_up(self) -> bool:
        return self.incoming == self.kept.total() + self.rejected.total() + self.replaced + self.unfinished


def build(plan: Plan, parts: dg.TimeWindowPartitionsDefinition) -> dg.AssetsDefinition:
    """The `bars` step of one horizon."""
    horizon = plan.horizon.name

    @dg.asset(
        key=names.key(horizon, "bars"),
        deps=[names.key(plan.finer, "bars")] if plan.finer else [],
        partitions_def=parts,
        backfill_policy=dg.BackfillPolicy.single_run(),
        group_name=names.group(horizon),
        pool=names.tables_pool(horizon),
        kinds={"polars", "deltalake"},
        check_specs=[names.check(horizon, "bars", names.BARS_ACCOUNTED, ABOUT)],
    )
    def bars(
        context: dg.AssetExecutionContext,
        settings: Settings,
        lake: dg.ResourceParam[Lake],
        arrivals: dg.ResourceParam[Arrivals],
        clock: dg.ResourceParam[Clock],
        progress: dg.ResourceParam[Progress],
    ):
        """Validated bars on the session grid; rows that fail are in the `rejected` table with the reason.

        A bar that was pushed to the service stands in the place of the source's: it is what the model was served.
        """
        run = Plan(settings.horizon(horizon))
        keys = context.partition_keys
        first, last = partitions.window(run, keys)
        account, deleted = Account(), 0
        earlier = fetched.before(lake, horizon)  # resampled bars have none: they are known as the finer ones are
        if run.finer:
            source = came = None
            incoming = _resampled(run, Plan(settings.horizon(run.finer)), lake, first, last)
        else:
            source = open_source(run.horizon.source, run.grid, clock.now())
            reach = fetched.reach(run, source, clock.now())
            incoming = _pulled(run, source, first, last)
            came = Pushed(run, arrivals, lake, first, last)
        frames = _merged(run, lake, clock, progress, account, incoming, source, came, earlier)
        table, layout = names.table("bars", horizon), layout_of(run)
        written = lake.write(table, frames, keys, layout)
        lake.write(names.table("rejected", horizon), account.refused, keys, layout)
        if source is not None:  # for the service, which adjusts what is pushed
            declared = source.actions().with_columns(partition=pl.lit(ALWAYS))
            lake.write(names.table("actions", horizon), [declared], [ALWAYS], layout)
            deleted = prune(run, arrivals, lake, clock.now().date())
        if account.incoming > account.unfinished and not account.kept.total():
            raise dg.Failure(_refusal(horizon, account), allow_retries=False)
        if source is not None:
            # Last: a run that ends before has not fetched, and what it lacked is not late when the next one brings it.
            lake.write(names.table("fetched", horizon), [fetched.after(earlier, keys, reach)], [fetched.ALL], layout)
        result: dg.MaterializeResult[None] = dg.MaterializeResult(
            metadata={
                "dagster/row_count": written.rows,
                "rows in": account.incoming,
                "rows pushed": account.pushed,
                "rows replaced by pushed ones": account.replaced,
                "rows of bars that have not ended": account.unfinished,
                "journals deleted": deleted,
                **{f"rows {what}": count for what, count in account.kept.items()},
                "rows that came late": account.late,
                **{f"rejected: {reason}": count for reason, count in account.rejected.items()},
                "notes": dg.MetadataValue.md("\n".join(f"- {note}" for note in account.notes) or "none"),
                "sessions": f"{first} to {last}",
                "table version": written.version,
                "changed": written.changed,
            },
            check_results=[
                dg.AssetCheckResult(
                    check_name=names.BARS_ACCOUNTED,
                    passed=account.adds_up,
                    metadata={"rows in": account.incoming, "rejected": account.rejected.total()},
                )
            ],
        )
        yield from told(context.asset_key, written.versions, result)

    return bars


def _merged(
    plan: Plan,
    lake: Lake,
    clock: Clock,
    progress: Progress,
    account: Account,
    incoming: Iterator[Arrival],
    source: Source | None,
    came: Pushed | None,
    earlier: pl.DataFrame,
) -> Iterator[pl.DataFrame]:
    """What arrived, span by span, as rows of the bars table.

    Each is validated, judged by the bars before it, adjusted from their factors, dated by what earlier runs fetched,
    and revised against what is stored; stored bars of the span that did not come again stay.
    """
    table = names.table("bars", plan.horizon.name)
    stored = lake.scan(table).drop("partition") if lake.exists(table) else None
    newest: pl.DataFrame | None = None
    past: pl.DataFrame | None = None
    for start, end, frame in incoming:
        there = pl.col("timestamp").is_between(start, end, closed="left")
        pushed = came.between(start, end) if came else None
        if frame is None and pushed is not None and pushed.height:
            frame = pushed.taken.clear().drop("known_at", "judged")
        if frame is None:
            if stored is not None:
                yield _cut(plan, stored.filter(there).collect())
            continue
        account.incoming += frame.height
        checked = validate(frame, plan.grid)
        account.rejected.update(checked.counts)
        account.notes.extend(checked.notes)
        good, rejected = _ended(plan, checked.good, clock.now()), checked.rejected
        account.unfinished += checked.good.height - good.height
        existing = good.clear() if stored is None else stored.filter(there).collect()
        if source is not None:
            # A resampled bar is made of judged ones and brings the factors of its finer bars.
            past = _past(plan, source, lake, start) if past is None else past
            judged = _judged(plan, source, past, good)
            if pushed is not None and pushed.height:
                account.incoming += pushed.height
                account.pushed += pushed.height
                fine = validate(pushed.taken.drop("judged"), plan.grid)
                account.rejected.update(fine.counts)
                account.rejected.update(pushed.refused["reason"].to_list())
                refused = [rows.select(rejected.columns) for rows in (fine.rejected, pushed.refused)]
                rejected = pl.concat([rejected, *refused])
                taken = fine.good.join(pushed.taken.select(*KEY, "judged"), on=KEY, how="left", maintain_order="left")
                judged, replaced = with_pushed(good, taken, partial(_judged, plan, source, past))
                account.replaced += replaced
            good, past, jumps = judged.good, judged.past, judged.jumps.with_columns(reason=pl.lit("jump"))
            if jumps.height:
                account.rejected["jump"] += jumps.height
                rejected = pl.concat([rejected, jumps.select(rejected.columns)])
                # The same bar may be stored since a run with another `max_jump`.
                existing = existing.join(jumps, on=[*KEY, "open", "close"], how="anti")
            account.notes.extend(judged.notes)
            newest = _before(plan, source, stored, start) if newest is None else newest
            good = adjust(good, source.actions(), plan.grid, newest)
            good, late = fetched.dated(_cut(plan, good), earlier, existing, stored, clock.now())
            good = good.drop("partition")
            account.late += late
        account.refused.append(_cut(plan, rejected))
        merged, counts = revise(existing, good, clock.now())
        newest = _newest(merged if newest is None else pl.concat([newest, merged], how="diagonal"))
        del counts["kept"]  # stored bars that did not come again are no incoming rows
        account.kept.update(counts)
        yield _cut(plan, merged)
        progress.rows(plan.horizon.name, "bars", account.kept.total())


def _ended(plan: Plan, bars: pl.DataFrame, now: datetime) -> pl.DataFrame:
    """Bars that have ended by now: one that is still being made would be stored as if it were whole."""
    ends = pl.Series(plan.grid.ends(bars["timestamp"].to_numpy()), dtype=pl.Datetime("us"))
    return bars.filter(ends.dt.replace_time_zone("UTC") <= now)


def _judged(
    plan: Plan, source: Source, past: pl.DataFrame, bars: pl.DataFrame, good: pl.DataFrame | None = None
) -> Judged:
    """Bars without those on another price scale, where `validation.max_jump` asks for it; keys of `good` are none."""
    most = plan.horizon.validation.max_jump
    if most is None:
        return Judged(bars, bars.clear(), past, ())
    return judge(bars, past, source.actions(), plan.grid, most, good)


def _past(plan: Plan, source: Source, lake: Lake, start: datetime) -> pl.DataFrame:
    """The bars just before `start` that judge those after it, kept and told jumps.

    They are the source's; where it no longer has one (a file that holds only the newest sessions), the tables'.
    """
    label = plan.grid.session_dates(np.array([start.replace(tzinfo=None)], "datetime64[us]"))[0].item()
    since, _ = plan.grid.window(first := plan.grid.back(label, REACH), first)
    found = [no_past()]
    for step, jump in (("bars", False), ("rejected", True)):
        table = names.table(step, plan.horizon.name)
        if lake.exists(table):
            rows = lake.scan(table, since, start)
            rows = rows.filter(pl.col("reason") == "jump") if jump else rows
            found.append(rows.select(*KEY, "close", jump=pl.lit(jump)).collect())
    opens, _ = source.span()
    frames = list(source.bars(since, start, plan.horizon.universe.symbols)) if opens < label else []
    if frames:
        found.append(_judged(plan, source, no_past(), validate(pl.concat(frames), plan.grid).good).past)
    return pl.concat(found).unique(KEY, keep="last", maintain_order=True)


def _before(plan: Plan, source: Source, stored: pl.LazyFrame | None, start: datetime) -> pl.DataFrame | None:
    """Each symbol's newest bar before `start` with its cumulative factors; None where nothing came before.

    Stored bars tell, if they reach to the session before. Where they do not, a split in the gap would be lost: the
    factors of the symbols that ever had one are then made from the source's own history.
    """
    first, _ = source.span()
    label = plan.grid.session_dates(np.array([start.replace(tzinfo=None)], "datetime64[us]"))[0].item()
    earlier = plan.grid.dates(first, label - timedelta(days=1)).tolist()
    if not earlier:
        return None
    since, _ = plan.grid.window(earlier[-1], earlier[-1])
    known = None if stored is None else _newest(stored.filter(pl.col("timestamp") < start).collect())
    if known is not None and (known["timestamp"] >= since).any():
        return known
    actions = source.actions()
    if actions.is_empty():
        return known
    begin, _ = plan.grid.window(earlier[0], earlier[0])
    history = list(source.bars(begin, start, actions["symbol"].unique().sort().to_list()))
    if not history:
        return known
    good = _judged(plan, source, no_past(), validate(pl.concat(history), plan.grid).good).good
    rebuilt = _newest(adjust(good, actions, plan.grid))
    if known is None:
        return rebuilt
    return pl.concat([known.join(rebuilt, on="symbol", how="anti"), rebuilt], how="diagonal")


def _newest(bars: pl.DataFrame) -> pl.DataFrame:
    return bars.sort("timestamp").group_by("symbol", maintain_order=True).last()


def _cut(plan: Plan, rows: pl.DataFrame) -> pl.DataFrame:
    """Rows with the partition they are kept in; a row without a time goes where the one before it went."""
    stamps = rows["timestamp"].dt.replace_time_zone(None).fill_null(strategy="forward").to_numpy()
    keys = plan.grid.partition_keys(stamps, plan.horizon.partition)
    return rows.with_columns(partition=pl.Series(keys.tolist(), dtype=pl.String))


def _pulled(plan: Plan, source: Source, first: date, last: date) -> Iterator[Arrival]:
    """The source's rows, a few sessions at a time: windows of the grid meet without a gap."""
    dates = plan.grid.dates(first, last).tolist()
    per_session = max(1, len(plan.grid.slots(first, last)) // max(1, len(dates)))
    size = max(1, SLOTS_PER_CHUNK // per_session)
    for at in range(0, len(dates), size):
        run = dates[at : at + size]
        start, end = plan.grid.window(run[0], run[-1])
        frames = list(source.bars(start, end, plan.horizon.universe.symbols))
        yield start, end, pl.concat(frames) if frames else None


def _resampled(plan: Plan, finer: Plan, lake: Lake, first: date, last: date) -> Iterator[Arrival]:
    """Bars made of the finer horizon's, a few sessions at a time: a bin never crosses a session."""
    table = lake.scan(names.table("bars", finer.horizon.name))
    cells = len(symbols_of(lake, finer.horizon.name)) * len(table.collect_schema())
    for chunk in windows(finer, first, last, 0, cells):
        bars = read(lake, "bars", finer.horizon.name, chunk.span).drop("partition")
        sessions = plan.grid.session_dates(chunk.slots[[0, -1]]).tolist()
        yield *plan.grid.window(*sessions), None if bars.is_empty() else resample(bars, finer.grid, plan.grid)


def _refusal(horizon: str, account: Account) -> str:
    """Why a run without a single good bar failed, and what to look at."""
    told = ", ".join(f"{count:,} {reason} ({REASONS[reason]})" for reason, count in account.rejected.items())
    return (
        f"{horizon}: none of {account.incoming:,} incoming bars is good: {told}. They are in the table "
        f"{names.table('rejected', horizon)}. {' '.join(account.notes)} Where the grid refuses them, look at "
        "the calendar, source.timezone and source.stamp"
    )
