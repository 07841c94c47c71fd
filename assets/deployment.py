"""deployment: what every service of the store serves, since when, and why; all of them converge on the ledger."""

from collections.abc import Sequence
from typing import Any

import dagster as dg

from assets import names
from assets.cause import Cause
from assets.plan import Plan
from assets.reports import Reports
from resources.clock import Clock
from resources.instances import Instances, Served
from resources.registry import Entry, Registry

ENTRY, SERVED, LOOKED = "ledger entry", "served", "looked at"  # what the sensor reads

ABOUT = "Every service of this store serves the newest entry of the promotion ledger."


def build(plan: Plan) -> dg.AssetsDefinition:
    """The `deployment` step of one horizon."""
    horizon = plan.horizon.name
    key = names.key(horizon, "deployment")

    @dg.asset(
        key=key,
        deps=[names.key(horizon, "model")],
        group_name=names.group(horizon),
        kinds={"fastapi"},
        check_specs=[names.check(horizon, "deployment", names.CONVERGED, ABOUT)],
    )
    def deployment(
        context: dg.AssetExecutionContext,
        registry: dg.ResourceParam[Registry],
        instances: dg.ResourceParam[Instances],
        reports: dg.ResourceParam[Reports],
        clock: dg.ResourceParam[Clock],
    ):
        """The bundle that answers predictions, by the newest entry of the promotion ledger, and who answers with it.

        A service that is down is no failure: it reads the ledger when it starts, and this step is then made again.
        """
        entry = registry.champion(horizon)
        if entry is None:
            raise dg.Failure(f"{horizon}: the ledger names no champion; {_what_to_do(registry, horizon)}")
        found = instances.load(horizon)
        metadata = told(registry, reports, entry, found)
        metadata[LOOKED] = clock.now().isoformat()
        lagging = [one for one in found if one.number != entry.number]
        refusing = [one for one in lagging if one.refused]
        if refusing and len(lagging) == len(found):
            raise dg.Failure(
                f"{horizon}: no service serves {entry.id}, number {entry.number} of the ledger. "
                + "; ".join(f"{one.url}: {one.problem}" for one in lagging),
                metadata=metadata,
                allow_retries=False,
            )
        severity = dg.AssetCheckSeverity.ERROR if refusing else dg.AssetCheckSeverity.WARN
        behind = "; ".join(f"{one.url}: {one.problem or f'serves number {one.number}'}" for one in lagging)
        check = dg.AssetCheckResult(
            check_name=names.CONVERGED,
            passed=not lagging,
            severity=severity,
            description=behind or f"all serve number {entry.number}",
            metadata={"ledger number": entry.number, "behind": behind or "none"},
        )
        return dg.MaterializeResult(metadata=metadata, check_results=[check])

    return deployment


def told(registry: Registry, reports: Reports, entry: Entry, found: Sequence[Served]) -> dict[str, Any]:
    """What is served, by whom, since when, why; with links to what led to it."""
    horizon = entry.horizon
    provenance = registry.provenance(horizon, entry.id)
    serving = [one for one in found if one.number == entry.number]
    metadata: dict[str, Any] = {
        "bundle": entry.id,
        "ledger number": entry.number,
        "action": entry.action,
        "why": entry.why,
        "by": entry.by or "not recorded",
        "promoted at": dg.MetadataValue.timestamp(entry.at),
    }
    since = min((one.since for one in serving if one.since), default=None)
    if since is not None:
        metadata["serves since"] = dg.MetadataValue.timestamp(since)
    if cause := Cause.kept(provenance):
        metadata |= cause.metadata()
    if run := provenance.get("run"):
        metadata["trained by"] = dg.MetadataValue.url(reports.run(str(run)))
    return metadata | {
        "evaluation": dg.MetadataValue.url(reports.page(horizon, f"evaluation-{entry.id}.html")),
        "model": dg.MetadataValue.url(reports.asset(horizon, "model")),
        "challengers": len(set(registry.bundles(horizon)) - {past.id for past in registry.ledger(horizon)}),
        "served by": f"{len(serving)} of {len(found)} services",
        "services": dg.MetadataValue.md(_table(found)),
        "service": dg.MetadataValue.url(f"{found[0].url}/models"),
        ENTRY: entry_text(entry),
        SERVED: dg.MetadataValue.json({one.url: one.number for one in found}),
    }


def entry_text(entry: Entry) -> str:
    """What tells an entry from every other, also from one of the same number in a ledger that began anew."""
    return f"{entry.number} {entry.at.isoformat()}"


def _table(found: Sequence[Served]) -> str:
    rows = [
        (
            one.url,
            one.bundle or "–",
            "–" if one.number is None else one.number,
            f"{one.since:%Y-%m-%d %H:%M:%S} UTC" if one.since else "–",
            one.problem or "serves",
        )
        for one in found
    ]
    return names.markdown_table(("service", "bundle", "number", "since", "state"), rows)


def _what_to_do(registry: Registry, horizon: str) -> str:
    challengers = registry.bundles(horizon)
    if not challengers:
        return f"materialize {horizon}/model first"
    return (
        f"none of {len(challengers)} bundles was promoted; `tenor models horizon={horizon}` says why, and "
        f"`tenor promote horizon={horizon} bundle={challengers[-1]}` lets the newest serve"
    )
