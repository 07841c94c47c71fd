"""The sensors that ask for models: clock, checks, ledger and past runs decide, and nothing is kept in a cursor."""

import dagster as dg

from assets import names
from assets.cause import Cause
from assets.plan import Plan
from assets.reports import Reports
from defs.priority import training_priority
from defs.refresh import ASKED, HORIZON, WHAT
from defs.retraining_facts import TRAIN, facts_of
from quant.retraining import Decision, Facts, Policy, decide
from resources.clock import Clock
from resources.lake import Lake
from resources.registry import Registry

SECONDS = 30


def policy_of(plan: Plan) -> Policy:
    """The horizon's policy, as its YAML declares it."""
    return Policy(**plan.horizon.retraining.model_dump())


def retrain(plan: Plan) -> dg.SensorDefinition:
    """The sensor `retrain_<horizon>`: one run of model and evaluation where the policy asks for it, with its cause.

    The run before it is part of the run's key: a tick that is repeated after a crash asks for the same run.
    """
    horizon = plan.horizon.name
    steps = [names.key(horizon, step) for step in names.TRAIN]

    @dg.sensor(
        name=f"retrain_{horizon}",
        asset_selection=dg.AssetSelection.assets(*steps),
        minimum_interval_seconds=SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Trains a model of {horizon} where retraining's policy asks for it; its run says why.",
    )
    def sensor(
        context: dg.SensorEvaluationContext,
        clock: dg.ResourceParam[Clock],
        lake: dg.ResourceParam[Lake],
        registry: dg.ResourceParam[Registry],
        reports: dg.ResourceParam[Reports],
    ):
        now = clock.now()
        facts = facts_of(context.instance, plan, lake, registry, reports, now)
        told = decide(facts, policy_of(plan), now)
        if told.cause is None:
            if told.stopped:
                context.log.warning(f"{horizon}: {told.why}")
            return dg.SkipReason(f"{horizon}: {told.why}")
        check = told.evidence
        cause = Cause(told.cause, told.why, check.url, check.report) if check else Cause(told.cause, told.why)
        return dg.RunRequest(
            run_key=f"{horizon} train after {_before(facts)}",
            asset_selection=steps,
            tags={
                HORIZON: horizon,
                WHAT: TRAIN,
                ASKED: now.isoformat(),
                **cause.tags(),
                **training_priority(plan),
            },
        )

    return sensor


def stopped(
    instance: dg.DagsterInstance, plan: Plan, lake: Lake, registry: Registry, reports: Reports, clock: Clock
) -> Decision | None:
    """Why a horizon's retraining stopped and how a person lets it go on; None where it has not."""
    now = clock.now()
    found = decide(facts_of(instance, plan, lake, registry, reports, now), policy_of(plan), now)
    return found if found.stopped else None


def _before(facts: Facts) -> str:
    """What tells the next training from every other: the one before it."""
    return facts.trainings[0].id if facts.trainings else "nothing"
