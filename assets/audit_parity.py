"""Parity of the pipeline with itself: what the tables hold, what the bars give now, and what serving would compute."""

from collections.abc import Callable, Iterator, Mapping
from datetime import date

import polars as pl

from assets import names
from assets.audit import Audit
from quant.audit import Finding, listed
from quant.audit_tables import compare
from quant.sets import Entry

KEYS = ["timestamp", "symbol"]
Again = Callable[[date, date], pl.DataFrame]


def parity(audit: Audit, run: str) -> Iterator[Finding]:
    """Stored features and factors against the present bars, then serving against itself.

    run: the command that materializes the horizon, for the advice.
    """
    features = _table(audit, "features", audit.plan.feature_entries, audit.features_again, run)
    yield features
    factors = _table(audit, "factors", audit.plan.factor_entries, audit.factors_again, run)
    if factors.status == "fail" and features.status == "pass":
        factors = _stale_or_skewed(audit, factors)
    yield factors
    yield _serving(audit)


def _table(audit: Audit, step: str, entries: Mapping[str, Entry], again: Again, run: str) -> Finding:
    table = names.table(step, audit.horizon)
    check = f"{step}: the table equals the bars"
    advice = f"Run `{run}` (or the job {names.job(audit.horizon, 'refresh')} in the UI), then verify again"
    if not audit.lake.exists(table):
        return Finding(check, "skip", f"there is no table {table} yet", advice=f"`{run}` makes the tables")
    held = audit.lake.scan(table).collect_schema().names()
    lacking = [name for name in entries if name not in held]
    gone = [name for name in held if name not in {*entries, *KEYS, "known_at", "partition"}]
    found = pl.concat(audit.stored(step, *stretch) for stretch in audit.stretches)
    expected = pl.concat(again(*stretch) for stretch in audit.stretches)
    common = [name for name in entries if name not in lacking]
    different = compare(found, expected, common)
    details = []
    if lacking or gone:
        told = [f"it lacks {listed(lacking)}"] if lacking else []
        told += [f"it has {listed(gone)}, no longer declared"] if gone else []
        details.append(f"the sets changed since it was written: {'; '.join(told)}")
    if not different.none:
        details += [f"it looks as if {different.looks_like()}", *different.examples()]
    late = _known_otherwise(found, expected)
    if late:
        details.append(f"{late:,} rows have another known_at than their bars now give")
    if not details:
        return Finding(check, "pass", different.number())
    number = different.number()
    if lacking or gone:
        number = f"it lacks {len(lacking)} columns and has {len(gone)} no longer declared; {number}"
    return Finding(check, "fail", number, tuple(details), tuple(lacking) + different.changed, advice)


def _known_otherwise(found: pl.DataFrame, expected: pl.DataFrame) -> int:
    """Rows of both frames whose known_at differs; serving's rows have none."""
    if "known_at" not in expected.columns:
        return 0
    both = found.select(*KEYS, "known_at").join(expected.select(*KEYS, now="known_at"), on=KEYS, how="inner")
    return both.filter(pl.col("known_at") != pl.col("now")).height


def _stale_or_skewed(audit: Audit, failed: Finding) -> Finding:
    """Whether the factors step would write what serving computes: if so the table is old, if not Tenor is wrong."""
    stretch = audit.stretches[-1]
    made, served = audit.factors_of_table(*stretch), audit.factors_again(*stretch)
    different = compare(made, served, list(audit.plan.factor_entries))
    if different.none:
        return failed
    return Finding(
        "factors: the pipeline equals serving",
        "fail",
        different.number(),
        tuple(different.examples()),
        different.changed,
        "The step and the service compute different factors from the same bars: this is a bug of Tenor, report it",
    )


def _serving(audit: Audit) -> Finding:
    """The newest sections as the service computes each when its bar closes, and all of them at once."""
    check = "serving: the last bar equals the batch"
    ones, whole = audit.newest_one_by_one()
    different = compare(ones, whole, list(audit.plan.factor_entries))
    sections = ones["timestamp"].n_unique()
    if different.none:
        return Finding(check, "pass", f"{different.values:,} values of {sections} sections, none differs")
    return Finding(
        check,
        "fail",
        different.number(),
        tuple(different.examples()),
        different.changed,
        "A prediction would differ from its backfill: do not serve these factors. Tell it with the lines above",
    )
