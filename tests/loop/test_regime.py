"""A market that changes for good, under Dagster's own daemons: noticed, trained for, judged, deployed."""

from collections.abc import Iterator
from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from assets import drift_history, names
from assets.plan import Plan
from conf.compose import compose
from defs.refresh import ASKED, HORIZON, WHAT
from resources.registry import Registry
from tests.assets.conftest import FEW
from tests.loop.market import GRID, Vendor, bars, turbulent
from tests.loop.test_month import Month, replayed

FIRST, HISTORY, CALM, AFTER = date(2021, 8, 2), 60, 2, 4
COOLDOWN = 3


@pytest.fixture
def month(tmp_path: Path, configs: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Month]:
    root = tmp_path / "store"
    market = bars(FIRST, HISTORY + CALM + AFTER, seed=4)
    days = market["timestamp"].dt.date().unique().sort().to_list()
    vendor = Vendor(tmp_path / "vendor", turbulent(market, days[HISTORY + CALM]))
    words = [
        "horizon=5m", *FEW, "source=parquet", f"source.path='{vendor.glob}'", "universe=all", "vectors.window=20",
        "drift.window_sessions=2", "drift.rate=0.05", "drift.share=0.2", "serving.port=9",
        f"store.root='{root}'", "folds.count=2",
        f"retraining.cooldown_sessions={COOLDOWN}", "model.n_estimators=20",
    ]  # fmt: skip
    now = GRID.sessions(days[HISTORY - 1], days[HISTORY - 1])[0].close + timedelta(hours=1)
    with replayed(tmp_path, configs, monkeypatch, words, vendor, HISTORY, now) as running:
        yield Month(root, vendor, running, words)


def trainings(month: Month) -> list[dg.DagsterRun]:
    """Those that the sensor asked for, oldest first."""
    return month.daemon.instance.get_runs(dg.RunsFilter(tags={HORIZON: "5m", WHAT: "train"}))[::-1]


def told(month: Month, step: str) -> dict[str, Any]:
    event = month.daemon.instance.get_latest_materialization_event(names.key("5m", step))
    assert event is not None
    assert event.asset_materialization is not None
    return {name: value.value for name, value in event.asset_materialization.metadata.items()}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_change_of_regime_is_noticed_trained_for_and_told_from_cause_to_deployment(month: Month) -> None:
    days, registry = month.vendor.sessions, Registry(month.root)
    month.daemon.settle()
    [first] = trainings(month)
    assert (first.tags["tenor/cause"], first.status) == ("first", dg.DagsterRunStatus.SUCCESS)
    champion = registry.champion("5m")
    assert champion is not None
    assert told(month, "deployment")["bundle"] == champion.id

    for day in days[HISTORY : HISTORY + CALM]:
        month.vendor.send(day)
        month.close(day)
    assert len(trainings(month)) == 1  # nothing changed, and nothing was trained

    for day in days[HISTORY + CALM :]:
        month.vendor.send(day)
        month.close(day)

    # Noticed within two sessions of the change; every finished session after training was looked at, once.
    plan = Plan(compose(month.horizons)["5m"])
    table = drift_history.history(plan, month.lake, date.max, 1000).unique("session").sort("session")
    failed = table.filter("failed")["session"].to_list()
    assert min(failed) in days[HISTORY + CALM : HISTORY + CALM + 2]
    assert table["session"].to_list()[-CALM - AFTER :] == days[HISTORY:]

    # Trained for, within the policy: not within the cool-down, not twice in a day, each with its cause.
    made = trainings(month)
    assert len(made) >= 2
    assert {run.status for run in made} == {dg.DagsterRunStatus.SUCCESS}
    assert {run.tags["tenor/cause"] for run in made[1:]} == {"drift"}
    place = [sum(GRID.sessions(day, day)[0].close.isoformat() <= run.tags[ASKED] for day in days) for run in made]
    assert all(later - earlier >= COOLDOWN for earlier, later in pairwise(place))
    second = made[1]
    assert str(min(failed)) in second.tags["tenor/why"]
    assert second.tags["tenor/cause_url"].endswith(f"/assets/5m/drift?view=checks&checkDetail={names.NO_DRIFT}")
    assert second.tags["tenor/cause_report"].endswith(f"/reports/5m/drift-{min(failed)}.html")

    # From cause to deployment, each tells of the one before.
    bundles = {registry.provenance("5m", id)["run"]: id for id in registry.bundles("5m")}
    provenance = registry.provenance("5m", bundles[second.run_id])
    assert provenance["cause"] == {
        "kind": "drift",
        "why": second.tags["tenor/why"],
        "url": second.tags["tenor/cause_url"],
        "report": second.tags["tenor/cause_report"],
    }
    [judgement] = registry.judgements("5m", bundles[second.run_id])
    assert judgement["champion"] == champion.id
    newest = registry.champion("5m")
    assert newest is not None
    deployed = told(month, "deployment")
    assert (deployed["bundle"], deployed["ledger number"], deployed["why"]) == (newest.id, newest.number, newest.why)
    assert deployed["trained by"].endswith(f"/runs/{registry.provenance('5m', newest.id)['run']}")

    # What a person decides stays: neither the next refresh nor the same bundle again undoes it.
    other = next(id for id in registry.bundles("5m") if id != newest.id)
    registry.promote("5m", other, "let it serve", by="me")
    back = registry.rollback("5m", "it trades too much", by="me")
    month.daemon.settle()
    assert registry.champion("5m") == back
    assert told(month, "deployment")["by"] == "me"
    assert {run.status for run in month.daemon.instance.get_runs()} == {dg.DagsterRunStatus.SUCCESS}
