"""deployment: what the service serves, and why. The service converges on the promotion ledger; this step asks it to."""

import dagster as dg

from assets import names
from assets.plan import Plan
from resources.inference import Inference
from resources.registry import Registry


def build(plan: Plan) -> dg.AssetsDefinition:
    """The `deployment` step of one horizon."""
    horizon = plan.horizon.name

    @dg.asset(
        key=names.key(horizon, "deployment"),
        deps=[names.key(horizon, "model")],
        group_name=names.group(horizon),
        kinds={"fastapi"},
        # A service that is just starting answers within this time; one that is down reads the ledger when it starts.
        retry_policy=dg.RetryPolicy(max_retries=2, delay=5),
    )
    def deployment(
        context: dg.AssetExecutionContext,
        registry: dg.ResourceParam[Registry],
        inference: dg.ResourceParam[Inference],
    ):
        """The bundle that answers predictions, by the newest entry of the promotion ledger."""
        entry = registry.champion(horizon)
        if entry is None:
            challengers = registry.bundles(horizon)
            do = (
                f"none of {len(challengers)} bundles was promoted; `tenor models horizon={horizon}` says why, and "
                f"`tenor promote horizon={horizon} bundle={challengers[-1]}` lets the newest serve"
                if challengers
                else f"materialize {horizon}/model first"
            )
            raise dg.Failure(f"{horizon}: the ledger names no champion; {do}", allow_retries=False)
        served = inference.load(horizon)
        return dg.MaterializeResult(
            metadata={
                "bundle": served["bundle"],
                "ledger number": entry.number,
                "why": entry.why,
                "by": entry.by or "not recorded",
                "challengers": len(set(registry.bundles(horizon)) - {past.id for past in registry.ledger(horizon)}),
                "promoted at": dg.MetadataValue.timestamp(entry.at),
                "service": dg.MetadataValue.url(f"{inference.url}/models"),
            }
        )

    return deployment
