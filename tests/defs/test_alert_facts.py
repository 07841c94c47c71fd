"""What is wrong, as Dagster, the lake, the ledger and the services say it."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from assets.reports import Reports
from conf.alerting import Alerts
from defs.alert_facts import World, checks_failed, data_late, failure, retraining_stopped, runs_failed, services_stale
from defs.alerting import facts
from defs.refresh import ASKED, HORIZON, WHAT
from defs.retraining_facts import TRAIN
from resources.alert_rules import Fact
from resources.clock import FixedClock
from resources.lake import Lake
from resources.registry import Registry
from tests.defs.alerting import (
    BARS,
    CHECK,
    DRIFT,
    NOW,
    SERVICE,
    UI,
    Service,
    Switch,
    bars,
    graph,
    horizons,
    instance,
    plans,
    run,
    service,
)

__all__ = ["instance", "service"]  # fixtures


def rules(**changed: Any) -> dict[str, Alerts]:
    return {"5m": horizons()["5m"].alerts.model_copy(update=changed)}


@pytest.fixture
def world(tmp_path: Path, instance: dg.DagsterInstance) -> Callable[..., World]:
    def at(now: datetime = NOW, services: tuple[str, ...] = ()) -> World:
        return World(
            instance, Lake(tmp_path / "lake"), Registry(tmp_path), Reports(tmp_path, SERVICE, UI), services, now
        )

    return at


# -- data late ------------------------------------------------------------------------------------------------


def test_bars_are_late_once_the_newest_that_should_be_here_is_not(world: Callable[..., World]) -> None:
    lake, last = world().lake, datetime(2024, 3, 5, 20, 55, tzinfo=UTC)
    none = data_late(world(), plans()["5m"], horizons())
    assert (none.holds, none.why) == (False, "there are no bars yet")
    bars(lake, last - timedelta(days=1))
    late = data_late(world(), plans()["5m"], horizons())
    assert late.holds
    assert late.why == "the newest bar ended 2024-03-04 21:00 UTC, and one to 2024-03-05 21:00 should be here"
    assert late.link == f"{UI}/assets/5m/bars"
    # The session's bars are due at 21:01, and late an hour after.
    assert not data_late(world(NOW.replace(hour=22, minute=0)), plans()["5m"], horizons()).holds
    assert data_late(world(NOW.replace(hour=22, minute=1)), plans()["5m"], horizons()).holds
    bars(lake, last)
    there = data_late(world(), plans()["5m"], horizons())
    assert (there.holds, there.why) == (False, "the newest bar ended 2024-03-05 21:00 UTC")
    # A weekend brings no bars, and none is late.
    bars(lake, datetime(2024, 3, 8, 20, 55, tzinfo=UTC))
    assert not data_late(world(datetime(2024, 3, 10, 12, tzinfo=UTC)), plans()["5m"], horizons()).holds


# -- runs and checks --------------------------------------------------------------------------------------------


def test_a_failed_run_is_told_for_each_step_that_it_left_with_its_innermost_cause(
    world: Callable[..., World], instance: dg.DagsterInstance
) -> None:
    switch = Switch()
    assert [fact.holds for fact in runs_failed(world(), [BARS, DRIFT])] == [False, False]
    run(switch, instance)
    assert [fact.holds for fact in runs_failed(world(), [BARS, DRIFT])] == [False, False]
    switch.broken = "the source is down"
    id = run(switch, instance)
    found = [*runs_failed(world(), [BARS, DRIFT])]
    assert [(fact.what, fact.holds) for fact in found] == [("bars", True), ("drift", True)]
    assert all("no route to the exchange" in fact.why for fact in found)
    assert {fact.link for fact in found} == {f"{UI}/runs/{id}"}
    switch.broken = None
    run(switch, instance)
    assert [fact.holds for fact in runs_failed(world(), [BARS, DRIFT])] == [False, False]


def test_a_step_that_its_run_materialized_before_another_failed_is_fine(
    world: Callable[..., World], instance: dg.DagsterInstance
) -> None:
    @dg.asset(key=DRIFT, deps=[BARS])
    def broken() -> None:
        raise ValueError("too few rows")

    [bars_step, _] = graph(Switch())
    dg.materialize([bars_step, broken], instance=instance, raise_on_error=False)
    assert [(fact.what, fact.holds) for fact in runs_failed(world(), [BARS, DRIFT])] == [
        ("bars", False),
        ("drift", True),
    ]


def test_of_a_run_that_has_not_ended_or_that_was_canceled_nothing_is_known(
    world: Callable[..., World], instance: dg.DagsterInstance
) -> None:
    switch = Switch()
    switch.broken = "the source is down"
    run(switch, instance)
    job = dg.Definitions(assets=graph(switch), jobs=[dg.define_asset_job("all")]).resolve_job_def("all")
    for status in (dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTED):
        begun = instance.create_run_for_job(job, status=status)
        assert [fact.holds for fact in runs_failed(world(), [BARS])] == [None]
    instance.report_run_canceled(begun)
    assert [fact.holds for fact in runs_failed(world(), [BARS])] == [None]


def test_a_run_whose_process_was_killed_has_the_reason_that_dagster_gives(
    world: Callable[..., World], instance: dg.DagsterInstance
) -> None:
    job = dg.Definitions(assets=graph(Switch()), jobs=[dg.define_asset_job("all")]).resolve_job_def("all")
    dead = instance.create_run_for_job(job)
    instance.report_run_failed(dead, "Run worker was killed (exit code 137)")
    assert failure(instance, dead.run_id) == "Run worker was killed (exit code 137)"
    assert [fact.holds for fact in runs_failed(world(), [BARS])] == [True]


@pytest.mark.parametrize(
    ("passed", "severity", "least", "holds"),
    [
        (True, "WARN", "WARN", False),
        (False, "WARN", "WARN", True),
        (False, "WARN", "ERROR", False),
        (False, "ERROR", "ERROR", True),
        (False, "ERROR", "WARN", True),
    ],
)
def test_a_failed_check_is_told_with_its_numbers_and_its_report_from_the_least_severity_on(
    world: Callable[..., World], instance: dg.DagsterInstance, passed: bool, severity: str, least: str, holds: bool
) -> None:
    switch = Switch()
    [unknown] = checks_failed(world(), [CHECK], rules()["5m"])
    assert unknown.holds is False
    switch.passed, switch.severity = passed, dg.AssetCheckSeverity[severity]
    run(switch, instance)
    [fact] = checks_failed(world(), [CHECK], rules(severity=least)["5m"])
    assert fact.holds is holds
    assert fact.what == "drift: looks like training"
    assert fact.link == "http://127.0.0.1:8321/reports/5m/drift.html"
    if holds:
        assert fact.why == "share drifted 0.4; worst rsi_14"


def test_a_retraining_that_was_stopped_is_told_with_its_newest_run_until_one_by_hand_succeeds(
    world: Callable[..., World], instance: dg.DagsterInstance
) -> None:
    assert retraining_stopped(world(), plans()["5m"]).holds is False
    least = horizons()["5m"].retraining.failures
    ids = []
    for number in range(least):
        assert retraining_stopped(world(), plans()["5m"]).holds is False
        tags = {HORIZON: "5m", WHAT: TRAIN, ASKED: (NOW - timedelta(days=least - number)).isoformat()}
        failed = dg.DagsterRun(job_name="train_5m", tags=tags, status=dg.DagsterRunStatus.FAILURE)
        ids.append(instance.add_run(failed).run_id)
    fact = retraining_stopped(world(), plans()["5m"])
    assert fact.holds
    assert f"{least} trainings failed in a row" in fact.why
    assert fact.link == f"{UI}/runs/{ids[-1]}"

    @dg.asset(key=dg.AssetKey(["5m", "model"]))
    def model() -> None:
        """Trained by hand."""

    dg.materialize([model], instance=instance)
    assert retraining_stopped(world(), plans()["5m"]).holds is False


# -- services -------------------------------------------------------------------------------------------------


def stale(world: World, **changed: Any) -> list[Fact]:
    return [*services_stale(world, plans(), rules(**changed))]


def test_a_service_is_stale_where_it_serves_another_number_or_older_bars_or_an_old_model(
    world: Callable[..., World], service: Service, tmp_path: Path
) -> None:
    here = world(services=(service.url,))
    assert [fact.holds for fact in stale(here)] == [False]  # there is no champion to serve
    registry = Registry(tmp_path, FixedClock(NOW - timedelta(days=40)))
    manifest = registry.path("5m", "a bundle") / "manifest.json"
    manifest.parent.mkdir(parents=True)
    manifest.write_text("{}")
    registry.promote("5m", "a bundle", "the first")
    assert stale(here)[0].why == "serves nothing, and the ledger says number 1"
    service.serves(1)
    assert [fact.holds for fact in stale(here)] == [False]
    assert stale(here, model_days=30.0)[0].why == "its model serves for 40 days, and alerts.model_days is 30"
    service.serves(None)
    service.health["horizons"]["5m"]["status"] = "unloaded"
    assert [fact.holds for fact in stale(here)] == [False]  # somebody did that, and knows
    service.serves(3, problem="model.txt is damaged")
    assert stale(here)[0].why == "serves number 3, and the ledger says 1: model.txt is damaged"
    bars(here.lake, datetime(2024, 3, 5, 20, 55, tzinfo=UTC))
    service.serves(1, "2024-03-05T20:55:00Z")
    assert [fact.holds for fact in stale(here)] == [False]
    service.serves(1, "2024-03-05T20:50:00Z")
    assert stale(here)[0].why == "its newest bar ended 2024-03-05 20:55 UTC, and the table has one to 2024-03-05 21:00"
    service.health["store"] = "/another"
    assert stale(here)[0].why == "serves another store, /another"


def test_what_is_broken_is_told_for_its_own_horizon_and_silences_nothing_else(
    world: Callable[..., World], service: Service, tmp_path: Path
) -> None:
    service.serves(1)
    (tmp_path / "registry" / "5m" / "ledger").mkdir(parents=True)
    (tmp_path / "registry" / "5m" / "ledger" / "000001.json").write_text("{")
    log = tmp_path / "lake" / "bars" / "5m" / "_delta_log"
    log.mkdir(parents=True)
    (log / "00000000000000000000.json").write_text("{")
    found = {fact.kind: fact for fact in facts(world(services=(service.url,)), plans(), [BARS], [CHECK], {})}
    assert "ledger entry" in found["service_stale"].why
    assert found["data_late"].holds
    assert found["data_late"].why.startswith("cannot be told: ")
    assert found["run_failed"].holds is False


def test_a_service_that_does_not_answer_is_stale_for_each_horizon_and_the_others_are_asked_all_the_same(
    world: Callable[..., World], service: Service
) -> None:
    gone, there = stale(world(services=("http://127.0.0.1:9", service.url)))
    assert gone.holds
    assert "no inference service answers at http://127.0.0.1:9" in gone.why
    assert gone.what == "service http://127.0.0.1:9"
    assert there.holds is False
    service.health = {"not": "ours"}
    assert "is no Tenor service" in stale(world(services=(service.url,)))[0].why
