"""Alerts from end to end: what Dagster, the lake, the ledger and the services say becomes messages, each told once."""

import http.server
import json
import re
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from assets.plan import Plan
from assets.reports import Reports
from conf.alerting import Alerts
from conf.compose import compose
from conf.errors import ConfigError
from conf.schema import Horizon
from defs import cli
from defs.alert_facts import World, checks_failed, data_late, failure, retraining_stopped, runs_failed, services_stale
from defs.alerting import facts, tell_alerts
from defs.refresh import ASKED, HORIZON, WHAT
from defs.retraining_facts import TRAIN
from resources.alert_rules import Fact
from resources.alerts import AlertState
from resources.clock import FixedClock
from resources.lake import Lake
from resources.registry import Registry
from tests.conftest import SHIPPED
from tests.resources.test_alert_channels import Hook, listening

# A Tuesday of regular hours in New York: bars of 14:30 to 21:00 UTC.
NOW = datetime(2024, 3, 5, 22, 30, tzinfo=UTC)
UI, SERVICE = "http://127.0.0.1:3000", "http://127.0.0.1:8321"
BARS, DRIFT = dg.AssetKey(["5m", "bars"]), dg.AssetKey(["5m", "drift"])
CHECK = dg.AssetCheckKey(DRIFT, "looks_like_training")


@cache
def horizons() -> Mapping[str, Horizon]:
    return compose(["horizon=5m", "source.sessions=null"])  # a market that goes on


@cache
def plans() -> Mapping[str, Plan]:
    return {name: Plan(horizon) for name, horizon in horizons().items()}


def rules(**changed: Any) -> dict[str, Alerts]:
    return {"5m": horizons()["5m"].alerts.model_copy(update=changed)}


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


@pytest.fixture
def world(tmp_path: Path, instance: dg.DagsterInstance) -> Callable[..., World]:
    def at(now: datetime = NOW, services: tuple[str, ...] = ()) -> World:
        return World(
            instance, Lake(tmp_path / "lake"), Registry(tmp_path), Reports(tmp_path, SERVICE, UI), services, now
        )

    return at


def bars(lake: Lake, *stamps: datetime) -> None:
    rows = [{"symbol": "AAA", "timestamp": stamp, "partition": f"{stamp:%Y-%m-%d}"} for stamp in stamps]
    frame = pl.DataFrame(rows)
    lake.write("bars/5m", [frame], frame["partition"].unique().to_list(), {})


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


class Switch:
    """What the next run of the assets does."""

    def __init__(self) -> None:
        self.broken: str | None = None
        self.passed, self.severity = True, dg.AssetCheckSeverity.WARN


def graph(switch: Switch) -> list[dg.AssetsDefinition]:
    @dg.asset(key=BARS)
    def bars_step() -> None:
        if switch.broken:
            try:
                raise OSError("no route to the exchange")
            except OSError as error:
                raise RuntimeError(switch.broken) from error

    @dg.asset(key=DRIFT, deps=[BARS], check_specs=[dg.AssetCheckSpec(CHECK.name, asset=DRIFT)])
    def drift_step():  # type: ignore[no-untyped-def]
        report = dg.MetadataValue.url("http://127.0.0.1:8321/reports/5m/drift.html")
        result = dg.AssetCheckResult(
            check_name=CHECK.name,
            passed=switch.passed,
            severity=switch.severity,
            metadata={"report": report, "share drifted": 0.4, "worst": "rsi_14"},
        )
        return dg.MaterializeResult(check_results=[result])

    return [bars_step, drift_step]


def run(switch: Switch, instance: dg.DagsterInstance) -> str:
    return dg.materialize(graph(switch), instance=instance, raise_on_error=False).run_id


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


class Service:
    """Answers /health as a service would; `health` may be changed."""

    def __init__(self, store: Path) -> None:
        self.health: dict[str, Any] = {"store": str(store), "horizons": {}}
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = json.dumps(outer.health).encode()
                self.send_response(200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Quiet."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=lambda: self._server.serve_forever(0.01), daemon=True).start()

    def serves(
        self, number: int | None, newest_bar: str | None = None, problem: str | None = None, horizon: str = "5m"
    ) -> None:
        self.health["horizons"] = {
            horizon: {"status": "serving", "number": number, "newest_bar": newest_bar, "problem": problem}
        }

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    made = Service(tmp_path)
    yield made
    made.stop()


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


def test_what_is_broken_is_told_for_its_own_horizon_and_silences_nothing_else(
    world: Callable[..., World], service: Service, tmp_path: Path
) -> None:
    service.serves(1)
    (tmp_path / "registry" / "5m" / "ledger").mkdir(parents=True)
    (tmp_path / "registry" / "5m" / "ledger" / "000001.json").write_text("{")
    log = tmp_path / "lake" / "bars" / "5m" / "_delta_log"
    log.mkdir(parents=True)
    (log / "00000000000000000000.json").write_text("{")
    found = {fact.kind: fact for fact in facts(world(services=(service.url,)), plans(), [BARS], [CHECK])}
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


# -- the sensor ---------------------------------------------------------------------------------------------------


def test_the_sensor_tells_once_reminds_resolves_and_loses_nothing_while_the_webhook_is_down(
    instance: dg.DagsterInstance, tmp_path: Path, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    for proxy in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(proxy, raising=False)
    switch, clock, lake = Switch(), FixedClock(NOW), Lake(tmp_path / "lake")
    words = ["alerts.webhook={url_from: T_HOOK}", "alerts.after.service_stale=0.0"]
    mine = {"5m": Plan(compose(["horizon=5m", *words])["5m"])}
    assets = graph(switch)
    sensor = tell_alerts(mine, assets, tmp_path, [service.url])

    def tick(seconds: float = 30) -> str:
        clock.set(clock.now() + timedelta(seconds=seconds))
        given = {
            "lake": lake,
            "registry": Registry(tmp_path),
            "reports": Reports(tmp_path, SERVICE, UI),
            "clock": clock,
        }
        with dg.build_sensor_context(instance=instance, resources=given) as context:
            return str(sensor.evaluate_tick(context).skip_message)

    bars(lake, datetime(2024, 3, 5, 20, 55, tzinfo=UTC))
    with listening(Hook(answers=[503, 503, 200])) as hook:
        monkeypatch.setenv("T_HOOK", hook.url)
        run(switch, instance)
        assert tick() == "nothing new to tell"
        switch.broken, switch.passed = "the source is down", False
        run(switch, instance)
        assert tick() == "nothing new to tell"  # others of its kind may follow
        assert tick() == "Tenor: run failed: 5m"
        assert [body["subject"] for _, body in hook.got] == ["Tenor: run failed: 5m"]
        assert len(AlertState(tmp_path).read().waiting) == 1
        for _ in range(8):
            assert tick() == "nothing new to tell"
        assert len(hook.got) == 3  # refused twice, then taken, and not sent again
        assert AlertState(tmp_path).read().waiting == ()
        assert "Tenor: still: run failed: 5m" in tick(24 * 3600)
        switch.broken = None
        run(switch, instance)
        assert tick() == "nothing new to tell"  # others may end too
        assert "Tenor: resolved: run failed: 5m" in tick()
    last = [body["state"] for _, body in hook.got if body["kind"] == "run_failed"]
    assert last == ["raised"] * 3 + ["reminder", "resolved"]
    lines = [json.loads(line) for line in (tmp_path / "alerts" / "log.jsonl").read_text().splitlines()]
    assert [line["state"] for line in lines if line["kind"] == "run_failed"] == ["raised", "reminder", "resolved"]
    assert "s3cr3t" not in (tmp_path / "alerts" / "state.json").read_text()


def test_a_tick_without_a_service_or_a_store_still_tells(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    sensor = tell_alerts(plans(), graph(Switch()), tmp_path, ["http://127.0.0.1:9"])
    given = {"lake": Lake(tmp_path / "lake"), "registry": Registry(tmp_path), "clock": FixedClock(NOW)}
    given |= {"reports": Reports(tmp_path, SERVICE, UI)}
    for now in (NOW, NOW + timedelta(minutes=2), NOW + timedelta(minutes=3)):
        given["clock"] = FixedClock(now)
        with dg.build_sensor_context(instance=instance, resources=given) as context:
            told = sensor.evaluate_tick(context).skip_message
    assert told == "Tenor: service stale: 5m"


# -- the command --------------------------------------------------------------------------------------------------


def test_alerts_test_sends_one_message_through_every_channel_and_says_which_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["alerts", "test", "horizon=5m", f"store.root='{tmp_path}'", "alerts.webhook={url_from: T_HOOK}"]
    with listening(Hook()) as hook:
        monkeypatch.setenv("T_HOOK", hook.url)
        assert cli.main(words) == 0
    assert capsys.readouterr().out == "log of 5m: sent\nwebhook of 5m: sent\n"
    assert "this is only a test" in hook.got[0][1]["text"]
    assert cli.main(["config", "horizon=5m", "alerts.webhook={url_from: T_HOOK}"]) == 0
    assert "s3cr3t" not in capsys.readouterr().out
    monkeypatch.delenv("T_HOOK")
    assert cli.main(words) == 1
    told = capsys.readouterr().out
    assert "webhook of 5m: NOT SENT: the environment variable T_HOOK is not set" in told
    assert cli.main([*words[:4], "alerts.log=false"]) == 1
    assert "no channel is on" in capsys.readouterr().out


def test_alerts_shows_what_is_wrong_and_what_waits(
    instance: dg.DagsterInstance, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["alerts", "horizon=5m", f"store.root='{tmp_path}'"]
    assert cli.main(words) == 0
    assert capsys.readouterr().out == "nothing is wrong, as far as the sensor tell_alerts has seen\n"
    test_a_tick_without_a_service_or_a_store_still_tells(instance, tmp_path)
    assert cli.main(words) == 0
    assert "service stale: 5m service http://127.0.0.1:9: no inference service answers" in capsys.readouterr().out


def test_the_channels_of_the_documents_are_a_config_as_they_stand(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
    [block] = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    shutil.copytree(SHIPPED, tmp_path / "conf", ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    (tmp_path / "conf" / "alerts" / "desk.yaml").write_text(block)
    found = compose(["horizon=5m", "alerts=desk"], tmp_path / "conf")["5m"].alerts
    assert found.webhook is not None
    assert found.email is not None
    assert (found.webhook.url_from, found.email.password_from) == ("TENOR_ALERTS_URL", "TENOR_SMTP_PASSWORD")
    assert found.after == compose(["horizon=5m"], tmp_path / "conf")["5m"].alerts.after


WRONG = [
    ("alerts.webhook={url_from: 'https://hooks.example/s3cr3t'}", "alerts.webhook.url_from"),
    ("alerts.webhook={url_from: T_HOOK, header: Authorization}", "alerts.webhook.header_from"),
    (
        "alerts.email={host: h, port: 25, security: none, user: me, from: a@b, to: [a@b]}",
        "alerts.email.password_from",
    ),
    ("alerts.email={host: h, port: 25, security: none, from: a@b, to: []}", "alerts.email.to"),
    ("alerts.after.run_failed=-1", "alerts.after.run_failed"),
    ("alerts.severity=LOUD", "alerts.severity"),
    ("retention.versions_days=0", "retention.versions_days"),
    ("retention.bundels=3", "retention.bundles"),
]


@pytest.mark.parametrize(
    ("word", "told"),
    WRONG[:1] + [pytest.param(*one, marks=pytest.mark.slow) for one in WRONG[1:]],
)
def test_a_wrong_value_is_told_with_its_key(word: str, told: str) -> None:
    with pytest.raises(ConfigError) as refused:
        compose(["horizon=5m", word])
    assert told in str(refused.value)
