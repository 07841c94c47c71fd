"""`tenor doctor`: what is fine, what is not, and what to do about it."""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from dagster._core.definitions.run_request import InstigatorType
from dagster._core.errors import SensorExecutionError
from dagster._core.scheduler.instigation import InstigatorTick, TickStatus
from dagster._utils.error import SerializableErrorInfo
from rich.console import Console

from assets.plan import Plan
from conf.compose import asked, compose
from conf.schema import Horizon
from defs import doctor_machine as machine
from defs import doctor_sources as sources
from defs import doctor_store as store
from defs.finding import Check, Finding, looked, note, ok, wrong
from defs.look import root_of, with_all_horizons
from defs.service import another_store, ui_of, urls_of
from resources.clock import SystemClock
from resources.database import Database
from resources.inference import Inference, InferenceError, ServiceDown
from resources.registry import Registry, RegistryError

FLAGS = ("--json", "--deep")
COLOURS = {"ok": "green", "note": "yellow", "wrong": "bold red"}
TICKS = 5  # of a sensor that are looked at: the newest may not be over
SILENT = 180.0  # seconds without a sign of life, of a daemon that gives one each half minute
SECONDS = 5.0  # that a service may take to answer


def doctor(words: Sequence[str]) -> int:
    """Look at everything; 1 where something is wrong. --deep: bundles prove themselves, tables are read whole."""
    overrides = with_all_horizons([word for word in words if word not in FLAGS])
    found = compose(overrides)
    wanted = {name: found[name] for name in found if name in asked(overrides)}
    console, findings = Console(highlight=False, markup=False), []
    for finding in examined(root_of(next(iter(found.values()))), wanted, deep="--deep" in words):
        findings.append(finding)
        if "--json" not in words:
            show(console, finding)
    bad = sum(finding.state == "wrong" for finding in findings)
    if "--json" in words:
        print(json.dumps({"well": not bad, "findings": [finding.to_json() for finding in findings]}, indent=1))
    else:
        console.print("all is well" if not bad else f"{bad} of {len(findings)} findings are wrong")
    return 1 if bad else 0


def examined(root: Path, horizons: Mapping[str, Horizon], *, deep: bool) -> Iterator[Finding]:
    """Every finding, in the order in which one would look."""
    plans: dict[str, Plan] = {}
    # Not the clock of a replay: what is asked here is whether this machine's is right.
    now = SystemClock().now()
    yield from looked("config", partial(configs, horizons, plans))
    checks: list[tuple[str, Check]] = [
        ("python", machine.python),
        ("packages", machine.packages),
        ("MLX", machine.mlx),
        ("numba cache", machine.numba_cache),
        ("disk", partial(machine.disk, root)),
        ("time", lambda: machine.time(now, store.newest_stamp(root))),
        ("sources", partial(sources.sources, plans, horizons, now)),
        ("database", partial(store.database, root)),
        ("vectors", partial(store.vectors, root, plans)),
        ("tables", partial(store.tables_of, root, plans, now, deep=deep)),
        ("journals", partial(store.journals, root, plans)),
        ("registry", partial(store.registry, root, plans, deep=deep)),
        ("alerts", lambda: store.alerts(root, {name: one.alerts for name, one in horizons.items()})),
        ("services", partial(services, root, horizons)),
        ("daemon", partial(daemon, root, horizons)),
    ]
    for what, check in checks:
        yield from looked(what, check)


def configs(horizons: Mapping[str, Horizon], plans: dict[str, Plan]) -> Iterator[Finding]:
    """Whether each horizon's expressions compile; fills `plans` with those that do."""
    for name, horizon in horizons.items():
        yield from looked(f"config {name}", partial(_planned, name, horizon, plans))


def _planned(name: str, horizon: Horizon, plans: dict[str, Plan]) -> Iterator[Finding]:
    plan = Plan(horizon)
    counts = {"features": len(plan.features.outputs), "factors": len(plan.factors.outputs)}
    counts |= {"numbers in a vector": len(plan.vectors.outputs)}
    plans[name] = plan
    told = ", ".join(f"{count} {what}" for what, count in counts.items())
    yield ok(f"config {name}", f"is valid: {told}; it predicts {plan.label.text}")


def services(root: Path, horizons: Mapping[str, Horizon]) -> Iterator[Finding]:
    """Whether each service answers, and serves what the ledger says."""
    registry, serving = Registry(root), next(iter(horizons.values())).serving
    for url in urls_of(serving):
        what = f"service {url}"
        with Inference(url, timeout=SECONDS) as service:
            try:
                health = service.health()
            except ServiceDown:
                yield note(what, "does not run", "start it with `tenor serve` or `tenor up`")
                continue
            except InferenceError as error:
                yield wrong(what, str(error), f"look at {root}/service.log, and start it anew")
                continue
        if (theirs := another_store(serving, url, health, root)) is not None:
            fix = "stop it (another `tenor up` or `tenor serve`?), or choose another serving.port for one of them"
            yield wrong(what, f"serves another store, {theirs}", fix)
            continue
        yield ok(what, f"is {health['status']}, up for {health['uptime_seconds'] / 3600:.1f} h")
        if health["log_problem"]:
            yield wrong(what, f"does not log its answers: {health['log_problem']}", "repair what the message names")
        for name in (name for name in registry.horizons() if name in horizons):
            yield from _serves(what, name, registry, health["horizons"].get(name))


def _serves(what: str, name: str, registry: Registry, served: Mapping[str, object] | None) -> Iterator[Finding]:
    number = served["number"] if served else None
    try:
        entry = registry.champion(name)
    except RegistryError:  # told once, under the ledger
        now = "nothing" if number is None else f"number {number}"
        told = f"serves {now}, and goes on with it: what it should serve the ledger cannot tell"
        yield note(f"{what}: {name}", told, f"repair the ledger first, as `ledger {name}` says")
        return
    if entry is None:
        return
    if served and served["status"] == "unloaded":
        yield note(f"{what}: {name}", "was unloaded by hand", f"`POST /models/{name}/load` lets it serve again")
        return
    if number == entry.number and served is not None:
        age = f", its newest bar is of {served['newest_bar']}" if served["newest_bar"] else ""
        yield ok(f"{what}: {name}", f"serves {entry.id}, number {number} of the ledger{age}")
    else:
        because = f": {served['problem']}" if served and served["problem"] else ""
        said = f"serves {'nothing' if number is None else f'number {number}'}, the ledger says {entry.number}{because}"
        yield wrong(
            f"{what}: {name}", said, f"`tenor doctor --deep horizon={name}` proves the bundle; then POST {name}/load"
        )


def daemon(root: Path, horizons: Mapping[str, Horizon]) -> Iterator[Finding]:
    """Whether Dagster's daemon, which makes everything follow, gives signs of life."""
    from resources.dagster_storage import instance

    if not Database(root).begun:
        return
    with instance(root) as dagster:
        statuses = dagster.get_daemon_statuses()
        sensors = dagster.all_instigator_state(instigator_type=InstigatorType.SENSOR)
        ticks = {one.name: dagster.get_ticks(one.instigator_origin_id, one.selector_id, limit=TICKS) for one in sensors}
    yield from ticked(ticks, root)
    needed = {name: status for name, status in statuses.items() if status.required}
    beats = {name: status.last_heartbeat.timestamp for name, status in needed.items() if status.last_heartbeat}
    silent = SystemClock().now().timestamp() - SILENT
    dead = sorted(name for name, one in needed.items() if not one.healthy or beats[name] < silent)
    ui = ui_of(next(iter(horizons.values())).serving)
    if not dead:
        yield ok("daemon", f"all {len(statuses)} parts of Dagster's daemon are well; its pages are at {ui}")
    elif not beats:
        yield note("daemon", "Dagster's daemon never ran: nothing happens by itself", "start it with `tenor up`")
    elif len(dead) == len(needed):
        last = datetime.fromtimestamp(max(beats.values()), UTC)
        yield wrong(
            "daemon",
            f"Dagster's daemon gave its last sign of life at {last:%Y-%m-%d %H:%M:%S} UTC: nothing happens by itself",
            "start it with `tenor up`",
        )
    else:
        yield wrong("daemon", f"parts of it give no sign of life: {', '.join(dead)}", f"look at {root}/dagster.log")


def ticked(newest: Mapping[str, Sequence[InstigatorTick]], root: Path) -> Iterator[Finding]:
    """Sensors whose newest tick that is over failed. newest: ticks by sensor, the newest first."""
    for name, ticks in sorted(newest.items()):
        over = [tick for tick in ticks if tick.status != TickStatus.STARTED]
        if over and over[0].status == TickStatus.FAILURE:
            said = _first_line(over[0].error) or "it says nothing more"
            yield wrong(f"sensor {name}", f"its newest tick failed: {said}", f"look at {root}/dagster.log")


def _first_line(error: SerializableErrorInfo | None) -> str:
    """What was raised, where Dagster tells only that the sensor raised."""
    if error is not None and error.cause is not None and error.cls_name == SensorExecutionError.__name__:
        error = error.cause
    return error.message.strip().partition("\n")[0] if error else ""


def show(console: Console, finding: Finding) -> None:
    """One line, and what to do in a second."""
    state = "WRONG" if finding.state == "wrong" else finding.state
    console.print(f"{state:<6}", style=COLOURS[finding.state], end="")
    console.print(f"{finding.what}: {finding.told}", soft_wrap=True)
    if finding.fix:
        console.print(f"      → {finding.fix}", soft_wrap=True)
