"""Which waiting run starts first: short horizons before long ones, and every refresh before any training."""

from assets.plan import Plan

MOST = 10_000  # minutes: longer than any interval


def priority(plan: Plan) -> dict[str, str]:
    """The tag of a horizon's refreshes, and of what follows them."""
    return {"dagster/priority": str(MOST - plan.horizon.minutes)}


def training_priority(plan: Plan) -> dict[str, str]:
    """The tag of a horizon's training."""
    return {"dagster/priority": str(-plan.horizon.minutes)}


def vacuum_priority() -> dict[str, str]:
    """The tag of vacuums: they wait for everything else."""
    return {"dagster/priority": str(-2 * MOST)}


def deployment_priority() -> dict[str, str]:
    """The tag of deployments: they take seconds, and a champion waits for them."""
    return {"dagster/priority": str(2 * MOST)}
