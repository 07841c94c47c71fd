"""What `tenor doctor` says of the files that bars are read from."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from functools import partial

from assets.plan import Plan
from conf.schema import Horizon
from defs.finding import Finding, looked, ok, wrong
from resources.sources import SourceError, open_source


def sources(plans: Mapping[str, Plan], horizons: Mapping[str, Horizon], now: datetime) -> Iterator[Finding]:
    """Whether each source of files can be read; a synthetic one has none, resampled bars have no source."""
    for name, plan in plans.items():
        if not plan.finer and horizons[name].source.kind != "synthetic":
            yield from looked(f"source {name}", partial(_source, plan, now))


def _source(plan: Plan, now: datetime) -> Iterator[Finding]:
    name = plan.horizon.name
    try:
        source = open_source(plan.horizon.source, plan.grid, now)
        first, last = source.span()
        source.actions()
    except SourceError as error:
        fix = (
            "do as it says: the running Tenor tries again by itself, or its sensor says to load it anew; "
            f"`tenor refresh horizon={name}` does at once"
        )
        yield wrong(f"source {name}", str(error), fix)
        return
    yield ok(f"source {name}", f"{source.name} has bars from {first} to {last}")
