"""What follows a refresh by itself, as Dagster's declarative automation: a condition for each step.

A step follows what it reads where the rows there changed (assets/versions.py), not where they were only made again; so
a late or a revised bar makes anew exactly the partitions whose look-back it touches. Bars of a source are asked for by
the sensors of defs/refresh.py, and models by those of defs/retraining.py: neither has a condition.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

import dagster as dg

from assets import names
from assets.plan import Plan
from conf.refreshing import AfterInterval, Off
from defs.due import longest_pause, rule_of
from defs.priority import priority

AC = dg.AutomationCondition
SECONDS = 15
SCORES = (names.OUTCOMES, names.REALIZED)  # of what was served
# On runs that make what follows too, so that it need not be asked for again: its value is the horizon.
FOLLOWS = "tenor/follows"
HOURLY = "0 * * * *"
RETRY = {"hourly": HOURLY, "daily": "0 0 * * *"}
# Partitions of other horizons that may still be empty: their newest, for another horizon's session may end later.
RECENT = timedelta(days=7)

# Never made: what a first tick finds, and what comes to be.
NEW = (AC.missing().newly_true() | (AC.missing() & AC.initial_evaluation())).with_label("never made")


def follow(plan: Plan) -> dg.AutomationCondition:
    """The condition of a step that is made partition by partition: what it reads changed, and all of that is there.

    A request answers every change before it, and none after it: a change while the step runs asks for it once more.
    """
    own = dg.AssetSelection.groups(names.group(plan.horizon.name))
    # Dagster's own `any_deps_missing`, less what another horizon may not have yet.
    lacks = AC.any_deps_missing().allow(own)
    absent = AC.missing() & ~AC.will_be_requested() & ~AC.in_latest_time_window(RECENT)
    ready = ~lacks & ~AC.any_deps_match(absent).ignore(own) & ~AC.any_deps_in_progress() & ~AC.in_progress()
    return (_since_asked(plan, _changed(plan) | NEW) & ready).with_label("follows what it reads")


def score(plan: Plan, step: str) -> dg.AutomationCondition:
    """The condition of what scores answers. It takes what is there: an unfinished session has no bars yet.

    Every run is a process to start, and what reads scores counts in sessions: where bars come after each interval, they
    are scored once an hour.
    """
    # Outcomes have no partitions, so a run that makes bars never makes them too.
    changed = _changed(plan) if step != names.OUTCOMES else AC.any_deps_match(AC.data_version_changed())
    ready = ~AC.any_deps_in_progress() & ~AC.in_progress()
    condition = _since_asked(plan, changed) & ready
    if step == names.OUTCOMES and isinstance(rule_of(plan), AfterInterval):
        condition = condition & AC.cron_tick_passed(HOURLY).since(AC.newly_requested()).with_label("an hour began")
    return condition.with_label("scores what was served")


def _changed(plan: Plan) -> dg.AutomationCondition:
    """The rows of something it reads are others, and the run that made them did not make this step, or ask for it, too.

    (`executed_with_root_target` says that of the newest partition alone.)
    """
    followed = AC.all_new_updates_have_run_tags(tag_values={FOLLOWS: plan.horizon.name})
    changed = (AC.data_version_changed() & ~followed).with_label("rows changed")
    return AC.any_deps_match(changed | AC.will_be_requested())


def _since_asked(plan: Plan, wanted: dg.AutomationCondition) -> dg.AutomationCondition:
    """What came to be wanted since it was asked for last, or failed when it is time to try again."""
    rule = rule_of(plan)
    if rule.retry_failed:
        failed = AC.execution_failed() & AC.cron_tick_passed(RETRY[rule.retry_failed])
        wanted = wanted | failed.with_label(f"failed: tried again {rule.retry_failed}")
    # `since` lets a reset win over what came in the same tick: a change just after a request would be lost.
    answered = AC.newly_requested() & ~wanted
    return wanted.since(answered).with_label("to be made")


def automated(
    plan: Plan, made: Sequence[dg.AssetsDefinition], now: datetime, goes_on: bool
) -> list[dg.AssetsDefinition]:
    """The steps of a horizon with their conditions and, where the source goes on, how old the newest bars may be."""
    if isinstance(plan.horizon.automation, Off):
        return [*made]
    follows = {step: follow(plan) for step in names.REFRESH if step != "bars" or plan.finer}
    conditions = {**follows, **{step: score(plan, step) for step in SCORES}}
    policy = _freshness(plan, now) if goes_on and not plan.finer else None

    def with_both(spec: dg.AssetSpec) -> dg.AssetSpec:
        step = spec.key.path[-1]
        if step in conditions:
            spec = spec.replace_attributes(automation_condition=conditions[step])
        if policy is not None and step in ("bars", "features", "factors"):
            spec = spec.replace_attributes(freshness_policy=policy)
        return spec

    return [asset.map_asset_specs(with_both) for asset in made]


def follower(plan: Plan) -> dg.AutomationConditionSensorDefinition:
    """The sensor that evaluates a horizon's conditions; one for each, so that its runs have the horizon's priority."""
    horizon, rule = plan.horizon.name, rule_of(plan)
    steps = [step for step in (*names.REFRESH, *SCORES) if step != "bars" or plan.finer]
    return dg.AutomationConditionSensorDefinition(
        name=f"follow_{horizon}",
        target=dg.AssetSelection.assets(*(names.key(horizon, step) for step in steps)),
        run_tags={
            "tenor/horizon": horizon,
            FOLLOWS: horizon,
            "dagster/max_runtime": str(rule.most_minutes * 60),
            **priority(plan),
        },
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=SECONDS,
        description=f"Makes what follows from {horizon}'s bars where they changed.",
    )


def _freshness(plan: Plan, now: datetime) -> dg.FreshnessPolicy:
    """As old as the calendar's longest pause makes them, and as late as they may be; the alerts are more exact."""
    rule = rule_of(plan)
    allowed = longest_pause(plan, now) + timedelta(minutes=rule.late_minutes + rule.expected_minutes)
    return dg.FreshnessPolicy.time_window(fail_window=allowed)
