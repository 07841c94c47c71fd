"""`tenor doctor` on the store: database, tables, journals, registry, alerts."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path

import polars as pl
import psycopg2  # type: ignore[import-untyped]

from assets.plan import Plan
from conf.alerting import Alerts
from defs.finding import Finding, looked, note, ok, wrong
from quant.bundle import BundleError
from resources import formats
from resources.alerts import AlertState
from resources.arrivals import Arrivals
from resources.database import Database
from resources.lake import Lake
from resources.opening import there
from resources.registry import Registry, RegistryError
from resources.schemas import schemas
from resources.table_history import orphans, tables
from resources.vectors import Vectors, market_of

SHOWN = 3  # of a list
WRITING = timedelta(days=1)  # a file that is younger may be on its way into a version


def database(root: Path) -> Iterator[Finding]:
    """Whether it starts and answers, has its extensions, and holds tables of the installed releases."""
    found = Database(root)
    if not found.begun:
        yield ok("database", "there is none yet; the first run makes it")
        return
    with closing(psycopg2.connect(found.url("vectors"))) as connection, connection.cursor() as cursor:
        cursor.execute("SHOW server_version")
        (server,) = cursor.fetchone()
        cursor.execute("SELECT name, default_version, installed_version FROM pg_available_extensions")
        extensions = {name: installed or default for name, default, installed in cursor}
    where = "embedded" if found.embedded else "the server of TENOR_DATABASE_URL"
    yield ok("database", f"Postgres {server}, {where}")
    if "vector" in extensions:
        others = [f"{name} {extensions[name]}" for name in ("timescaledb", "vectorscale") if name in extensions]
        yield ok("database: pgvector", ", ".join([extensions["vector"], *others]))
    else:
        yield wrong(
            "database: pgvector",
            "the server does not have it",
            "install its `vector` extension, or unset TENOR_DATABASE_URL",
        )
    for schema in schemas(root):
        what = f"database: {schema.name}"
        if schema.current:
            yield ok(what, f"revision {schema.found or 'none yet'}")
        else:
            told = f"its tables have revision {schema.found}, and the installed release wants {schema.newest}"
            yield wrong(what, told, "stop `tenor up`, then run `tenor migrate`")


def vectors(root: Path, plans: Mapping[str, Plan]) -> Iterator[Finding]:
    """How many market states can be searched."""
    store = Vectors(Database(root))
    for name in plans if Database(root).begun else ():
        yield ok(
            f"vectors {name}", f"{store.count(name)} states of symbols, {store.count(market_of(name))} of the market"
        )


def tables_of(root: Path, plans: Mapping[str, Plan], now: datetime, *, deep: bool) -> Iterator[Finding]:
    """Every table of these horizons; deep: each file is read."""
    lake = Lake(root / "lake")
    names = [name for name in tables(root / "lake") if name.rpartition("/")[2] in plans]
    if not names:
        yield ok("tables", "there are none yet")
    for name in names:
        plan = plans[name.rpartition("/")[2]]
        yield from looked(f"table {name}", partial(_table, lake, name, plan, now, deep=deep))


def _table(lake: Lake, name: str, plan: Plan, now: datetime, *, deep: bool) -> Iterator[Finding]:
    what, horizon = f"table {name}", plan.horizon.name
    root = Path(lake.root)
    table = there(str(root), name)
    if formats.from_newer(formats.layout_of(table)):
        lake.scan(name)  # refuses, saying why
    missing = [path for path in map(Path, table.file_uris()) if not path.is_file()]
    if missing:
        told = f"{len(missing)} of its files are missing, the first: {missing[0]}"
        yield wrong(
            what, told, f"restore them from a copy, or delete {root / name} and run `tenor refresh horizon={horizon}`"
        )
        return
    rows = lake.scan(name)
    stamped = "timestamp" in rows.collect_schema()
    columns = [pl.len().alias("rows"), *([pl.max("timestamp").alias("newest")] if stamped else [])]
    if deep:
        columns += [pl.col(column).count().alias(f"count {column}") for column in rows.collect_schema()]
    found = rows.select(columns).collect().row(0, named=True)
    newest = f", newest bar {found['newest']:%Y-%m-%d %H:%M} UTC" if stamped and found["newest"] else ""
    yield ok(what, f"{found['rows']} rows, version {table.version()}{newest}")
    if pending := formats.pending(formats.layout_of(table)):
        fix = f"stop `tenor up`, then run `tenor migrate horizon={horizon}`"
        yield wrong(what, f"is of an older format than {pending[-1].to}: it is read, and no step writes it", fix)
    left = orphans(root, name, now - WRITING)
    if left:
        told = f"{len(left)} files that no version of it names: a process was killed while it wrote"
        yield note(what, told, f"`tenor vacuum horizon={horizon}` deletes them once they are old enough")
    if name == f"bars/{horizon}":
        yield from _holes(lake, name, plan)
    elif name in (f"features/{horizon}", f"factors/{horizon}"):
        yield from _behind(lake, name, horizon)


def _holes(lake: Lake, name: str, plan: Plan) -> Iterator[Finding]:
    """Sessions of the calendar between the table's first and last that have no bar."""
    horizon, partitions = plan.horizon, lake.partitions(name)
    first, last = date.fromisoformat(partitions[0]), date.fromisoformat(partitions[-1])
    keys = plan.grid.partition_keys(plan.grid.slots(first, last), horizon.partition)
    lacking = sorted(set(keys.tolist()) - set(partitions))
    if not lacking:
        return
    told = f"has no bars in {len(lacking)} partitions of its calendar: {_some(lacking)}"
    fix = f"`tenor backfill horizon={horizon.name}` asks the source again; where it has none, nothing is wrong"
    yield note(f"table {name}", told, fix)


def _behind(lake: Lake, name: str, horizon: str) -> Iterator[Finding]:
    """Partitions after the table's first that the bars have and it has not: later ones were made around them."""
    made = lake.partitions(name)
    lacking = sorted({key for key in lake.partitions(f"bars/{horizon}") if made and made[0] < key < made[-1]} - {*made})
    if lacking:
        told = f"lacks {len(lacking)} partitions that the bars have: {_some(lacking)}"
        fix = f"`tenor backfill horizon={horizon}` makes them; the running Tenor does within the hour"
        yield wrong(f"table {name}", told, fix)


def _some(keys: Sequence[str]) -> str:
    return ", ".join(keys[:SHOWN]) + (f" and {len(keys) - SHOWN} more" if len(keys) > SHOWN else "")


def journals(root: Path, plans: Mapping[str, Plan]) -> Iterator[Finding]:
    """Whether what was pushed can be read."""
    for horizon in plans:
        if any((root / "arrivals" / horizon).glob("*.jsonl")):
            yield ok(f"journal {horizon}", f"{Arrivals(root).read(horizon).height} pushed bars can be read")


def registry(root: Path, plans: Mapping[str, Plan], *, deep: bool) -> Iterator[Finding]:
    """Every bundle and ledger entry; deep: bundles prove themselves."""
    kept = Registry(root)
    for horizon in (name for name in kept.horizons() if name in plans):
        broken: dict[str, str] = {}
        bundles = kept.bundles(horizon)
        for id in bundles:
            try:
                bundle = kept.load(horizon, id)
                if deep:
                    bundle.verify()
            except Exception as error:  # however a bundle is broken, the others are looked at
                known = isinstance(error, BundleError | RegistryError)
                broken[id] = str(error) if known else f"bundle {id} of {horizon}: {type(error).__name__}: {error}"
        proved = "are whole and prove themselves" if deep else "are whole"
        if not broken:
            yield ok(f"registry {horizon}", f"{len(bundles)} bundles {proved}")
        for id, why in broken.items():
            fix = f"restore {kept.path(horizon, id)} from a copy, or delete it and train again"
            yield wrong(f"registry {horizon}", why, fix)
        yield from _ledger(kept, horizon, set(bundles), broken)


def _ledger(kept: Registry, horizon: str, bundles: set[str], broken: Mapping[str, str]) -> Iterator[Finding]:
    what = f"ledger {horizon}"
    try:
        ledger, aside = kept.ledger(horizon), set(kept.aside(horizon))
    except RegistryError as error:
        fix = f"do what the message names; until then services serve what they serve (`tenor models horizon={horizon}`)"
        yield wrong(what, str(error), fix)
        return
    if not ledger:
        do = f"`tenor models horizon={horizon}` says why none was promoted"
        yield note(what, f"names no champion of {len(bundles)} bundles", do)
        return
    numbers, champion = [entry.number for entry in ledger], ledger[-1]
    if {*numbers} | aside != {*range(1, numbers[-1] + 1)}:
        yield wrong(
            what, f"has the numbers {numbers}: entries are missing", "restore the registry's ledger from a copy"
        )
    elif champion.id not in bundles:
        fix = f"restore the bundle, or let another serve: `tenor promote horizon={horizon} bundle=…`"
        yield wrong(what, f"the champion, {champion.id}, is not in the registry", fix)
    elif champion.id in broken:
        fix = f"`tenor rollback horizon={horizon}`, or `tenor promote horizon={horizon} bundle=…`"
        yield wrong(what, f"the champion, {champion.id}, is damaged: no service can load it", fix)
    else:
        yield ok(what, f"{champion.id} serves since {champion.at:%Y-%m-%d %H:%M} UTC, number {champion.number}")
    if aside:
        told = f"entries {', '.join(map(str, sorted(aside)))} were set aside as damaged: what they decided is not known"
        yield note(what, told, "where a copy turns up, restore them under their names")
    gone = sorted({entry.id for entry in ledger} - bundles - {champion.id})
    if gone:
        yield note(
            what, f"bundles that served are gone: {', '.join(gone)}", "restore them to roll back or explain to them"
        )


def alerts(root: Path, rules: Mapping[str, Alerts]) -> Iterator[Finding]:
    """What the sensor holds for wrong, what could not be sent, and whether the channels have their secrets here."""
    memory = AlertState(root).read()
    for _, horizon, trouble in memory.trouble:
        said = f"messages of {horizon} wait since {trouble.attempts} attempts: {trouble.why}"
        yield wrong("alerts", said, "repair the channel; `tenor alerts test` tries it")
    if memory.held:
        yield note(
            "alerts", f"{len(memory.held)} things are wrong by what the sensor saw last", "`tenor alerts` names them"
        )
    needed = {name for one in rules.values() for name in _variables(one)}
    if unset := sorted(name for name in needed if not os.environ.get(name)):
        told = f"{', '.join(unset)} is not set here: the channel works where Dagster runs with it"
        yield note("alerts", told, "start `tenor up` with the variable set")
    elif not memory.trouble and not memory.held:
        yield ok("alerts", "nothing is wrong by what the sensor saw last, and nothing waits to be sent")


def _variables(alerts: Alerts) -> Iterator[str]:
    """Names of the environment variables that the channels read."""
    if alerts.webhook:
        yield alerts.webhook.url_from
        if alerts.webhook.header_from:
            yield alerts.webhook.header_from
    if alerts.email and alerts.email.password_from:
        yield alerts.email.password_from


def newest_stamp(root: Path) -> datetime | None:
    """The newest time that those ledgers and commits of tables hold that can be read."""
    kept = Registry(root)
    stamps: list[datetime] = []
    for horizon in kept.horizons():
        with suppress(RegistryError):  # told under the ledger
            stamps += [entry.at for entry in kept.ledger(horizon)]
    for name in tables(root / "lake"):
        with suppress(Exception):  # whatever is wrong with a table is told under the table
            [commit] = there(str(root / "lake"), name).history(1)
            stamps.append(datetime.fromtimestamp(commit["timestamp"] / 1000, UTC))
    return max(stamps, default=None)
