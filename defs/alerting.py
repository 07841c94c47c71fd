"""Alerts as the graph has them: the sensor that tells what is wrong; and `tenor alerts`."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path

import dagster as dg

from assets.plan import Plan
from assets.reports import Reports
from conf.alerting import Alerts
from conf.compose import compose
from conf.errors import ConfigError
from conf.origin import COMMAND_LINE
from conf.schema import Horizon
from defs.alert_facts import (
    World,
    checks_failed,
    data_late,
    known,
    not_loaded,
    retraining_stopped,
    runs_failed,
    services_stale,
)
from resources.alert_channels import ChannelError, channels
from resources.alert_rules import TITLES, Fact, Trial, decide
from resources.alerts import AlertState, Memory, deliver, queued
from resources.clock import Clock, clock_of_environment
from resources.lake import Lake
from resources.registry import Registry

SECONDS = 30


def tell_alerts(
    plans: Mapping[str, Plan],
    assets: Sequence[dg.AssetsDefinition],
    root: Path,
    services: Sequence[str],
    lost: Mapping[str, str],
) -> dg.SensorDefinition:
    """One sensor over all horizons. root: the store; services: addresses; lost: why a horizon is not loaded."""
    keys = [key for one in assets for key in one.keys]
    checks = [spec.key for one in assets for spec in one.check_specs]
    rules = {name: plan.horizon.alerts for name, plan in plans.items()}

    @dg.sensor(
        name="tell_alerts",
        minimum_interval_seconds=SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Says what is wrong, once, and when it is over: late data, failed runs and checks, stale services.",
    )
    def sensor(
        context: dg.SensorEvaluationContext,
        lake: dg.ResourceParam[Lake],
        registry: dg.ResourceParam[Registry],
        reports: dg.ResourceParam[Reports],
        clock: dg.ResourceParam[Clock],
    ) -> dg.SkipReason:
        world = World(context.instance, lake, registry, reports, services, clock.now())
        told, lines = tick(facts(world, plans, keys, checks, lost), rules, root, world.now)
        for line in lines:
            context.log.warning(line)
        return dg.SkipReason("; ".join(told) or "nothing new to tell")

    return sensor


def facts(
    world: World,
    plans: Mapping[str, Plan],
    keys: Sequence[dg.AssetKey],
    checks: Sequence[dg.AssetCheckKey],
    lost: Mapping[str, str],
) -> list[Fact]:
    """Everything that can be wrong, of every horizon."""
    rules = {name: plan.horizon.alerts for name, plan in plans.items()}
    horizons = {name: plan.horizon for name, plan in plans.items()}
    found: list[Fact] = []
    for name, plan in plans.items():
        late = (
            partial(not_loaded, world, name, lost[name]) if name in lost else partial(data_late, world, plan, horizons)
        )
        found.append(known(late, "data_late", name, "bars"))
        found.append(known(partial(retraining_stopped, world, plan), "retraining_stopped", name, "model"))
    found += runs_failed(world, keys)
    for name in plans:
        found += checks_failed(world, [key for key in checks if key.asset_key.path[0] == name], rules[name])
    found += services_stale(world, plans, rules)
    return found


def tick(found: Iterable[Fact], rules: Mapping[str, Alerts], root: Path, now: datetime) -> tuple[list[str], list[str]]:
    """Decide, remember, send: the subjects of new messages, and a line for each that could not be sent.

    What is to be sent is on the disk before it is: a process that is killed in between sends it after its restart, and
    at worst once more.
    """
    state = AlertState(root)
    memory, listed = state.read(), list(found)
    held, waiting, subjects = [], list(memory.waiting), []
    for theirs, horizons in _alike(rules):
        messages, still = decide(
            [fact for fact in listed if fact.horizon in horizons],
            theirs,
            [one for one in memory.held if one.horizon in horizons],
            now,
        )
        held += still
        waiting += queued(messages, [*channels(theirs, root)], horizons[0])
        subjects += [message.subject for message in messages]
    memory = Memory(tuple(held), tuple(waiting), memory.trouble)
    state.write(memory)
    left, lines = deliver(memory, {name: channels(theirs, root) for name, theirs in rules.items()}, now)
    if left != memory:
        state.write(left)
    return subjects, lines


def _alike(rules: Mapping[str, Alerts]) -> list[tuple[Alerts, list[str]]]:
    """Horizons by their config of alerts: what those of one config have to say comes together."""
    found: list[tuple[Alerts, list[str]]] = []
    for name, theirs in rules.items():
        same = next((names for one, names in found if one == theirs), None)
        if same is None:
            found.append((theirs, [name]))
        else:
            same.append(name)
    return found


def alerts(words: Sequence[str]) -> int:
    """Print what is wrong and what waits to be sent; with the word `test`, send one message through every channel."""
    from defs.look import root_of, with_all_horizons

    overrides = [word for word in words if word != "test"]
    if unknown := next((word for word in overrides if "=" not in word), None):
        raise ConfigError(COMMAND_LINE, f"alerts knows no {unknown}", fix="Write tenor alerts, or tenor alerts test")
    found = compose(with_all_horizons(overrides))
    root = root_of(next(iter(found.values())))
    if "test" in words:
        return _test(found, root)
    memory = AlertState(root).read()
    for one in memory.held:
        told = "not told yet" if one.told is None else f"told {one.told:%Y-%m-%d %H:%M}"
        told += f", over since {one.ended:%H:%M}" if one.ended else ""
        print(f"{TITLES[one.kind]}: {one.horizon} {one.what}: {one.why} (since {one.since:%Y-%m-%d %H:%M} UTC, {told})")
    if not memory.held:
        print("nothing is wrong, as far as the sensor tell_alerts has seen")
    troubles = {(channel, horizon): trouble for channel, horizon, trouble in memory.trouble}
    for waiting in memory.waiting:
        trouble = troubles.get((waiting.channel, waiting.horizon))
        why = (
            f"{trouble.why}; tried {trouble.attempts} times, again at {trouble.again:%H:%M} UTC" if trouble else "next"
        )
        print(f"not sent yet by {waiting.channel}: {waiting.message.subject} ({why})")
    return 0


def _test(found: Mapping[str, Horizon], root: Path) -> int:
    """Send one message through every channel of every horizon's alerts; 1 where one fails, or there is none."""
    now, status, sent = clock_of_environment().now(), 0, 0
    for rules, names in _alike({name: horizon.alerts for name, horizon in found.items()}):
        for name, send in channels(rules, root).items():
            about = f"{name} of {', '.join(names)}"
            try:
                send(Trial(now, tuple(names)))
            except (ChannelError, OSError) as error:
                print(f"{about}: NOT SENT: {error}")
                status = 1
            else:
                print(f"{about}: sent")
                sent += 1
    if not sent and not status:
        print("no channel is on: set alerts.log, alerts.webhook or alerts.email (conf/alerts)")
    return status if sent else 1
