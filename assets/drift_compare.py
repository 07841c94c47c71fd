"""Which sessions drift looks at, against whom, and the comparison itself; what was compared before is not again."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl

from assets import names
from assets.drift_history import LAYOUT, QUANTILES, SCHEMA, STEP, recorded
from assets.drift_rows import Unwatchable, Watched, present, reference, watched
from assets.plan import Plan
from quant.bundle import Bundle
from quant.drift import Calibration, Compared, calibrate, compare, judge
from resources.clock import Clock
from resources.lake import Lake
from resources.registry import Entry, Registry
from resources.staging import Digest

WINDOWS = "drift_windows"  # the table of what windows inside training reach: a partition a bundle
WINDOWS_LAYOUT = {"format": "drift-windows-1"}


@dataclass(frozen=True)
class Examined:
    """The table's rows of the run's partitions, how many sessions were compared anew, and why others were not.

    empty: sessions that have no rows, as those after a source's end, which a partition by month may span.
    """

    rows: pl.DataFrame
    anew: int
    left_out: dict[date, str]
    empty: list[date]

    @property
    def newest(self) -> date | None:
        """The newest session that there is something to say of."""
        return max([*self.rows["session"], *self.left_out], default=None)


def examine(plan: Plan, lake: Lake, registry: Registry, clock: Clock, first: date, last: date) -> Examined:
    """Compare each session first .. last that is over by now with its champion's training window, and record it."""
    ledger = registry.ledger(plan.horizon.name)
    now = clock.now()
    over = [session for session in plan.grid.sessions(first, last) if session.close <= now]
    days = np.array([session.date for session in over], "datetime64[D]")
    stamps = [plan.grid.slots(day, day)[0] for day in days.tolist()]
    keys = [str(key) for key in plan.grid.partition_keys(np.array(stamps, "datetime64[us]"), plan.horizon.partition)]
    before = recorded(plan, lake, sorted(set(keys)))
    known = {day: rows for (day,), rows in before.partition_by("session", as_dict=True).items()}
    champions: dict[str, _Champion] = {}
    found: list[pl.DataFrame] = []
    left_out: dict[date, str] = {}
    empty: list[date] = []
    anew = 0
    for session, key, stamp in zip(over, keys, stamps, strict=True):
        entry = _champion_at(ledger, session.close)
        if entry is None:
            left_out[session.date] = "no bundle exists yet: nothing to compare with. Train the model, then look again"
            continue
        champion = champions.setdefault(entry.id, _Champion(plan, lake, registry, entry.id))
        try:
            rows = champion.compared(session.date, known.get(session.date))
        except _NoRows:
            empty.append(session.date)
            continue
        except (_NotNow, Unwatchable) as error:
            left_out[session.date] = str(error)
            continue
        if "partition" not in rows.columns:
            anew += 1
            rows = rows.with_columns(
                partition=pl.lit(key),
                session=pl.lit(session.date),
                timestamp=pl.lit(stamp.item()).cast(pl.Datetime("us")).dt.replace_time_zone("UTC"),
            ).select(pl.col(name).cast(kind) for name, kind in SCHEMA.items())
        found.append(rows)
    # Sessions of these partitions that the run does not span stay as they are.
    others = before.filter(~pl.col("session").is_between(first, last))
    written = sorted({*before["partition"], *(str(key) for rows in found for key in rows["partition"].unique())})
    if written:
        whole = pl.concat([others, *found]).sort("session", "excess", "column", descending=[False, True, False])
        lake.write(names.table(STEP, plan.horizon.name), [whole], written, LAYOUT)
    return Examined(pl.concat([SCHEMA.to_frame(), *found]), anew, left_out, empty)


class _NotNow(ValueError):
    """A session that there is nothing to say of; the message says why."""


class _NoRows(ValueError):
    """A session without factor rows."""


@dataclass
class _Champion:
    """One bundle, and what its training window looked like; read once a run."""

    plan: Plan
    lake: Lake
    registry: Registry
    id: str

    @cached_property
    def bundle(self) -> Bundle:
        return self.registry.load(self.plan.horizon.name, self.id)

    @cached_property
    def columns(self) -> list[Watched]:
        return watched(self.bundle, self.plan.horizon.drift.max_columns)

    @cached_property
    def learned_until(self) -> date:
        """The last session that it was trained on."""
        last = np.datetime64(self.bundle.manifest["spans"]["train"][1].removesuffix("Z"), "us")
        day: date = self.plan.grid.session_dates(np.array([last]))[0].item()
        return day

    @cached_property
    def reference(self) -> pl.DataFrame:
        rows = reference(self.plan, self.lake, self.bundle, self.columns)
        sessions, needed = rows["session"].n_unique(), 2 * self.plan.horizon.drift.window_sessions
        if sessions < needed:
            raise _NotNow(
                f"the champion was trained on {sessions} sessions; two windows of drift.window_sessions need {needed}"
            )
        return rows

    @cached_property
    def quantiles(self) -> dict[str, list[float] | None]:
        """Of each column of the reference."""
        return {one.name: _quantiles(self.reference[one.name]) for one in self.columns}

    @cached_property
    def key(self) -> str:
        """What the calibration is made of."""
        config = self.plan.horizon.drift
        how = config.model_dump(include={"method", "window_sessions", "calibration_windows", "sample_rows"})
        return _digest({"champion": self.id, **how}, self.reference)

    @cached_property
    def calibration(self) -> Calibration:
        """As it is in the store, or made and kept there."""
        table = names.table(WINDOWS, self.plan.horizon.name)
        if self.lake.exists(table):
            rows = self.lake.scan(table).filter(pl.col("partition") == self.id, pl.col("key") == self.key).collect()
            if rows.height:
                return _read(rows, [one.name for one in self.columns])
        config = self.plan.horizon.drift
        made = calibrate(
            self.reference,
            [one.name for one in self.columns],
            window_sessions=config.window_sessions,
            windows=config.calibration_windows,
            method=config.method,
            sample_rows=config.sample_rows,
        )
        self.lake.write(table, [_written(made, self.id, self.key)], [self.id], WINDOWS_LAYOUT)
        return made

    def compared(self, day: date, before: pl.DataFrame | None) -> pl.DataFrame:
        """The table's rows of a session: those of before where all that they were made from is the same."""
        if day <= self.learned_until:
            raise _NotNow(
                f"the champion {self.id} was trained on it: it learned from sessions up to {self.learned_until}"
            )
        config = self.plan.horizon.drift
        first = self.plan.grid.dates(date.min, day)[-config.window_sessions :][0].item()
        rows = present(self.plan, self.lake, self.bundle, self.columns, first, day)
        if not (rows["session"] == day).any():
            raise _NoRows
        digest = _digest({"key": self.key, "rate": config.rate, "share": config.share}, rows)
        if before is not None and before["digest"][0] == digest:
            return before
        found = compare(
            rows, self.reference, self.calibration.columns, method=config.method, sample_rows=config.sample_rows
        )
        return self._judged(found, rows, digest)

    def _judged(self, found: Compared, rows: pl.DataFrame, digest: str) -> pl.DataFrame:
        config = self.plan.horizon.drift
        made = judge(found, self.calibration, rate=config.rate, share=config.share)
        judged = {column.name: column for column in made.columns}
        told = []
        for one in self.columns:
            row: dict[str, Any] = {"column": one.name, "kind": one.kind, "importance": one.importance, "drifted": False}
            if column := judged.get(one.name):
                row |= {
                    "statistic": column.statistic,
                    "threshold": column.threshold,
                    "excess": column.excess,
                    "drifted": column.drifted,
                    "now": _quantiles(rows[one.name]),
                    "then": self.quantiles[one.name],
                }
            told.append({**row, "skipped": made.skipped.get(one.name)})
        whole = {
            "champion": self.id, "failed": made.drifted, "share": made.share, "reached": made.reached,
            "level": made.level, "rate": made.rate, "independent": self.calibration.independent, "digest": digest,
            "rows": found.current_rows[0], "of_rows": found.current_rows[1],
            "reference_rows": found.reference_rows[0], "of_reference_rows": found.reference_rows[1],
        }  # fmt: skip
        written = {name: kind for name, kind in SCHEMA.items() if name not in ("partition", "session", "timestamp")}
        return pl.DataFrame([{**row, **whole} for row in told], schema=written)


def _champion_at(ledger: Sequence[Entry], close: datetime) -> Entry | None:
    """Who served when a session closed; of sessions before the first promotion, who serves now."""
    then = [entry for entry in ledger if entry.at <= close]
    return then[-1] if then else ledger[-1] if ledger else None


def _digest(how: Mapping[str, Any], rows: pl.DataFrame) -> str:
    counted = Digest()
    counted.add(rows)
    text = json.dumps([LAYOUT, how, counted.text(rows.schema)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _quantiles(values: pl.Series) -> list[float] | None:
    finite = values.cast(pl.Float64).filter(values.is_finite())
    return [float(x) for x in np.quantile(finite.to_numpy(), QUANTILES)] if finite.len() else None


def _written(made: Calibration, bundle: str, key: str) -> pl.DataFrame:
    windows = np.arange(made.windows)
    return pl.DataFrame(
        {
            "partition": bundle,
            "window": np.repeat(windows, len(made.columns)),
            "column": list(made.columns) * made.windows,
            "statistic": made.statistics.ravel(),
            "independent": made.independent,
            "sessions": made.sessions,
            "key": key,
        }
    )


def _read(rows: pl.DataFrame, columns: list[str]) -> Calibration:
    wide = rows.pivot("column", index="window", values="statistic").sort("window")
    independent, sessions = rows.select("independent", "sessions").row(0)
    return Calibration(tuple(columns), wide.select(columns).to_numpy(), independent, sessions)
