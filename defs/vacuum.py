"""`tenor vacuum`: what the retention policy lets go of, named with its bytes, then deleted."""

import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

from assets import drift_page, realized_drift
from conf.compose import asked, compose
from conf.schema import Horizon
from defs.look import root_of, with_all_horizons
from defs.vacuum_files import bytes_of, cut, long_logs, remove, reports, run_logs, written
from resources import removal, table_history
from resources.clock import SystemClock
from resources.lake import Lake
from resources.registry import Registry
from resources.retained import LOG, Kept, bundles, versions

DRY = "--dry-run"
WRITING = timedelta(days=1)  # a hidden file or folder that is older is no longer being written
LOGS = ("service.log", "dagster.log")


@dataclass(frozen=True)
class Going:
    """Something that goes: what it is, why it may, its size in bytes, and how it goes."""

    what: str
    why: str
    bytes: int
    go: Callable[[], None]


def vacuum(words: Sequence[str]) -> int:
    """Delete what the policy of each horizon does not keep; with --dry-run, only say what would go."""
    dry = DRY in words
    overrides = with_all_horizons([word for word in words if word != DRY])
    found = compose(overrides)
    wanted = {name: found[name] for name in found if name in asked(overrides)}
    # Ages are those of files, which the machine's clock stamped: a replayed one says nothing about them.
    things = going(root_of(next(iter(found.values()))), wanted, SystemClock().now(), dry=dry)
    total = count = 0
    for one in things:
        print(f"{size(one.bytes):>9}  {one.what}: {one.why}")
        total, count = total + one.bytes, count + 1
        if not dry:
            one.go()
    said = "would go; nothing was deleted" if dry else "deleted"
    print(f"{size(total):>9}  in all; {count} things {said}" if count else "nothing to delete")
    return 0


def going(root: Path, horizons: Mapping[str, Horizon], now: datetime, *, dry: bool) -> Iterator[Going]:
    """What goes, in an order in which a crash loses nothing: bundles before the versions that only they need.

    Unless `dry`, whoever takes one deletes it before asking for the next: what a table must keep is looked up once the
    bundles have gone, for one of them may have been promoted meanwhile.
    """
    lake, registry = Lake(f"{root}/lake"), Registry(root)
    kept: dict[str, Kept] = {}
    for name, horizon in horizons.items():
        yield from _predictions(lake, name, horizon, now)
        kept[name] = bundles(registry, lake, name, horizon.retention.bundles)
        yield from _bundles(registry, name, kept[name])
    stay = {name: registry.bundles(name) for name in registry.horizons()}
    if dry:
        stay |= {name: [*one.reasons] for name, one in kept.items()}
    needed = versions(registry, stay)
    for name, horizon in horizons.items():
        yield from _versions(lake, name, horizon, needed, now)
        yield from _files(root, registry, name, horizon, stay.get(name, []), now)
    yield from _logs(root, next(iter(horizons.values())), now)


def size(count: float) -> str:
    """Bytes for people."""
    power = min(3, int(math.log(count, 1000))) if count >= 1 else 0
    return f"{count / 1000**power:.{1 if power else 0}f} {('B', 'kB', 'MB', 'GB')[power]}"


def _bundles(registry: Registry, horizon: str, kept: Kept) -> Iterator[Going]:
    """All of a horizon at once: a removal waits a moment for promotions that are under way."""

    def go() -> None:
        if stayed := sorted(set(kept.going) - set(removal.remove(registry, horizon, kept.going))):
            print(f"tenor: promoted meanwhile, so it stays: {', '.join(stayed)}", file=sys.stderr)

    if kept.going:
        what = f"{horizon}: bundles {', '.join(kept.going)}"
        taken = sum(registry.size(horizon, id) for id in kept.going)
        yield Going(what, "they never served, and newer ones are kept", taken, go)


def _predictions(lake: Lake, name: str, horizon: Horizon, now: datetime) -> Iterator[Going]:
    days, table = horizon.retention.predictions_days, f"{LOG}/{name}"
    if days is None or not lake.exists(table):
        return
    first = f"{now - timedelta(days=days):%Y-%m-%d}"
    old = table_history.days_before(Path(lake.root), table, first)
    if old:
        go = partial(table_history.forget, Path(lake.root), table, first)
        # The files themselves go with the table's old versions, retention.versions_days later.
        yield Going(
            f"{table}: {len(old)} days up to {max(old)}", f"answers older than {days} days", sum(old.values()), go
        )


def _versions(
    lake: Lake, name: str, horizon: Horizon, needed: Mapping[str, Mapping[int, str]], now: datetime
) -> Iterator[Going]:
    days, root = horizon.retention.versions_days, Path(lake.root)
    for table in table_history.tables(root):
        if table.rpartition("/")[2] != name:
            continue
        keep = needed.get(table, {})
        found = table_history.expired(root, table, days=days, keep=keep, now=now)
        for version in found.lost:
            print(f"tenor: {keep[version]} was made from version {version} of {table}, which is gone", file=sys.stderr)
        if found.files:
            stay = f"; {len(keep)} older versions that bundles were made from stay" if keep else ""
            what = f"{table}: {len(found.files)} files of versions that ended over {days} days ago"
            yield Going(what, f"nothing refers to them{stay}", found.bytes, partial(_remove, found.files))


def _files(
    root: Path, registry: Registry, name: str, horizon: Horizon, stay: Sequence[str], now: datetime
) -> Iterator[Going]:
    """What else there is of a horizon: leftovers and reports."""
    policy = horizon.retention
    for path in removal.leftovers(registry, name):
        if written(path) < now - WRITING:
            yield _together([path], f"{name}: {path.name}", "a process that was killed left it")
    if policy.reports_days is not None:
        named = [*stay, *_linked(root, registry, name, stay)]
        old = [*reports(root, name, now - timedelta(days=policy.reports_days), named)]
        if old:
            yield _together(old, f"{name}: {len(old)} reports", f"older than {policy.reports_days} days")


def _linked(root: Path, registry: Registry, name: str, stay: Sequence[str]) -> list[str]:
    """Pages that the newest checks, and the causes of the bundles that stay, link to."""
    causes = [registry.provenance(name, id).get("cause") or {} for id in stay]
    told = [cause["report"].rpartition("/")[2] for cause in causes if cause.get("report")]
    newest = sorted(page.name for page in (root / "reports" / name).glob("drift-????-??-??.html"))[-1:]
    return [drift_page.HISTORY, realized_drift.PAGE, *newest, *told]


def _logs(root: Path, horizon: Horizon, now: datetime) -> Iterator[Going]:
    """What all horizons write together: the first one's policy holds, as for the store itself."""
    policy = horizon.retention
    if policy.logs_days is not None:
        old = [*run_logs(root, now - timedelta(days=policy.logs_days))]
        if old:
            yield _together(old, f"logs of {len(old)} runs", f"older than {policy.logs_days} days")
    for log in long_logs(root, LOGS, policy.log_mib):
        taken = log.stat().st_size - (policy.log_mib << 20)
        yield Going(
            f"{log.name}: its beginning",
            f"the last {policy.log_mib} MiB stay",
            taken,
            partial(cut, log, policy.log_mib),
        )


def _together(paths: Sequence[Path], what: str, why: str) -> Going:
    return Going(what, why, sum(map(bytes_of, paths)), partial(_remove, paths))


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        remove(path)
