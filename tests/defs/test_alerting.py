"""Alerts from end to end: what is wrong becomes messages, each told once, by the sensor and by the command."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from assets.plan import Plan
from assets.reports import Reports
from conf.compose import compose
from defs import cli
from defs.alerting import tell_alerts
from resources.alerts import AlertState
from resources.clock import FixedClock
from resources.lake import Lake
from resources.registry import Registry
from tests.defs.alerting import NOW, SERVICE, UI, Service, Switch, bars, graph, instance, plans, run, service
from tests.resources.test_alert_channels import Hook, listening

__all__ = ["instance", "service"]  # fixtures

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
    sensor = tell_alerts(mine, assets, tmp_path, [service.url], {})

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
    sensor = tell_alerts(plans(), graph(Switch()), tmp_path, ["http://127.0.0.1:9"], {})
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
    body = hook.got[0][1]
    assert (body["kind"], body["state"], body["items"]) == ("test", "test", [])  # no page, and nothing to be resolved
    assert body["subject"] == "Tenor: TEST, nothing is wrong: 5m"
    assert not AlertState(tmp_path).file.exists()
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
