"""`tenor doctor`: what is well, the machine and what runs: each is broken once, and its line says what to do."""

import json
import shutil
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.scheduler.instigation import InstigatorTick, TickData, TickStatus
from dagster._utils.error import SerializableErrorInfo

from assets.plan import Plan
from defs import cli, doctor
from defs import doctor_machine as machine
from defs import doctor_store as store
from resources.registry import Registry
from tests.defs.alerting import Service
from tests.defs.doctoring import bad, data_files, horizons, kept, root

__all__ = ["root"]  # a fixture

# -- what is well --------------------------------------------------------------------------------------------


def test_a_store_in_which_all_is_well_has_a_line_for_each_thing_and_status_0(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["doctor", "horizon=1h", "calendar=24x7", f"store.root='{root}'", "serving.port=9", "--deep"]
    assert cli.main(words) == 0
    told = capsys.readouterr().out
    for said in (
        "ok    config 1h: is valid: ",
        "packages are those of the lock",
        "ok    table bars/1h: 5 rows, version 3, newest bar 2024-01-12 23:00 UTC",
        "ok    registry 1h: 2 bundles are whole and prove themselves",
        "ok    ledger 1h: 372ec423dd18197f serves since 2024-05-01 12:00 UTC, number 1",
        "note  service http://127.0.0.1:9: does not run\n      → start it with `tenor serve` or `tenor up`",
    ):
        assert said in told
    assert told.endswith("all is well\n")
    assert not (root / "postgres").exists()


def test_json_has_every_finding_and_the_status_is_1_where_something_is_wrong(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data_files(root)[0].unlink()
    words = ["doctor", "horizon=1h", f"store.root='{root}'", "serving.port=9", "--json"]
    assert cli.main(words) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["well"] is False
    [found] = [one for one in told["findings"] if one["state"] == "wrong"]
    assert found["what"] == "table bars/1h"
    assert set(found) == {"state", "what", "told", "fix"}


# -- the machine ---------------------------------------------------------------------------------------------


def test_a_package_that_is_not_the_locks_or_not_there_is_named(tmp_path: Path) -> None:
    lock = tmp_path / "requirements.lock"
    lock.write_text(
        "polars==0.0.1 \\\n    --hash=sha256:00\n    # via tenor\nno-such-package==1.0 \\\n    --hash=sha256:00\n"
        "windows-only==1.0 ; sys_platform == 'win32' \\\n    --hash=sha256:00\n"
    )
    found = bad(machine.packages(lock))
    assert f"polars is {pl.__version__}, the lock has 0.0.1; no-such-package 1.0 is not installed" in found.told
    assert "make setup" in (found.fix or "")


def test_another_python_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.sys, "version_info", (3, 14, 0))
    assert "Tenor needs 3.11, 3.12 or 3.13" in bad(machine.python()).told


def test_a_device_that_computes_wrongly_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    import mlx.core as mx

    monkeypatch.setattr(mx, "sum", lambda _: mx.array(1))
    assert "adds wrongly" in bad(machine.mlx()).told


def test_a_numba_cache_that_cannot_be_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "file"))
    assert "cannot be written" in bad(machine.numba_cache()).told


@pytest.mark.parametrize(("free", "state"), [(0.5, "wrong"), (5, "note")])
def test_little_space_is_told_and_vacuum_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: float, state: str
) -> None:
    usage = shutil._ntuple_diskusage(100 << 30, 0, int(free * (1 << 30)))  # type: ignore[attr-defined]
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda _: usage)
    found = bad(machine.disk(tmp_path / "not" / "there"), state)
    assert "tenor vacuum --dry-run" in (found.fix or "")


def test_a_clock_behind_what_it_stamped_is_told(root: Path) -> None:
    newest = store.newest_stamp(root)
    assert newest is not None
    found = bad(machine.time(newest - timedelta(hours=1), newest))
    assert "set the clock" in (found.fix or "")
    assert [one.state for one in machine.time(newest, newest)] == ["ok"]


def test_a_config_that_does_not_compile_is_told_and_the_others_are_still_looked_at() -> None:
    broken = horizons()["1h"].model_copy(update={"factors": {"mine": {"bad": "no_such_name + 1"}}})
    made: dict[str, Plan] = {}
    found = bad(doctor.configs({"broken": broken, **horizons()}, made))
    assert found.what == "config broken"
    assert "no_such_name" in found.told
    assert [*made] == ["1h"]


# -- what runs ------------------------------------------------------------------------------------------------


def test_a_service_that_serves_something_else_or_logs_nothing_is_told(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = Service(root)
    monkeypatch.setattr(doctor, "urls_of", lambda _: [service.url])
    try:
        service.health |= {"status": "serving", "uptime_seconds": 60.0, "log_problem": None}
        service.serves(1, horizon="1h")
        assert [one.state for one in doctor.services(root, horizons())] == ["ok", "ok"]
        service.serves(7, problem="model.txt is damaged", horizon="1h")
        assert bad(doctor.services(root, horizons())).told == (
            "serves number 7, the ledger says 1: model.txt is damaged"
        )
        service.health["horizons"] = {}
        assert bad(doctor.services(root, horizons())).told == "serves nothing, the ledger says 1"
        service.serves(1, horizon="1h")
        service.health["log_problem"] = "the disk is full"
        assert "does not log its answers: the disk is full" in bad(doctor.services(root, horizons())).told
    finally:
        service.stop()


def test_a_service_of_another_store_is_told_with_it_and_not_held_against_this_ledger(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = Service(tmp_path / "another")
    monkeypatch.setattr(doctor, "urls_of", lambda _: [service.url])
    service.health |= {"status": "serving", "uptime_seconds": 60.0, "log_problem": None}
    service.serves(1, horizon="1h")  # the number that this ledger says too
    try:
        [found] = doctor.services(root, horizons())
        assert (found.state, found.told) == ("wrong", f"serves another store, {tmp_path / 'another'}")
        assert "serving.port" in (found.fix or "")
        # Of another machine the path says nothing: what it serves does.
        monkeypatch.setattr("serving.access.local", lambda _: False)
        assert [one.state for one in doctor.services(root, horizons())] == ["ok", "ok"]
    finally:
        service.stop()


def test_a_sensor_whose_newest_tick_failed_is_told_with_its_error(tmp_path: Path) -> None:
    def tick(status: TickStatus, error: SerializableErrorInfo | None = None) -> InstigatorTick:
        return InstigatorTick(1, TickData("id", "refresh_5m", InstigatorType.SENSOR, status, 0.0, error=error))

    error = SerializableErrorInfo("OSError: no route\n", [], "OSError")
    ticks = {"refresh_5m": [tick(TickStatus.FAILURE, error)], "retrain_5m": [tick(TickStatus.SKIPPED)], "new": []}
    found = bad(doctor.ticked(ticks, tmp_path))
    assert (found.what, found.told) == ("sensor refresh_5m", "its newest tick failed: OSError: no route")
    # The next tick is under way; and Dagster says first that a sensor raised, then what.
    wrapped = SerializableErrorInfo("… the execution of refresh_5m\n", [], "SensorExecutionError", cause=error)
    ticks = {"refresh_5m": [tick(TickStatus.STARTED), tick(TickStatus.FAILURE, wrapped), tick(TickStatus.SKIPPED)]}
    assert bad(doctor.ticked(ticks, tmp_path)).told == found.told
    assert not [*doctor.ticked({"refresh_5m": [tick(TickStatus.SKIPPED), tick(TickStatus.FAILURE, wrapped)]}, tmp_path)]


def test_a_damaged_ledger_entry_is_told_once_and_hides_no_other_look(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service, registry = Service(root), Registry(root)
    monkeypatch.setattr(doctor, "urls_of", lambda _: [service.url, "http://127.0.0.1:9"])
    service.health |= {"status": "serving", "uptime_seconds": 60.0, "log_problem": None}
    service.serves(1, horizon="1h")
    file = root / "registry" / "1h" / "ledger" / "000002.json"
    file.write_text("{broken")
    try:
        found = {one.what: one for one in doctor.examined(root, horizons(), deep=False)}
        assert [what for what, one in found.items() if "000002.json" in one.told] == ["ledger 1h"]
        assert (found["time"].state, found["ledger 1h"].state) == ("ok", "wrong")
        assert "to remove it undoes what it decided" in found["ledger 1h"].told
        assert "serves number 1, and goes on with it" in found[f"service {service.url}: 1h"].told
        assert found["service http://127.0.0.1:9"].told == "does not run"
        file.rename(file.with_name("000002.json.damaged"))
        assert "entry 2 of 1h is set aside" in bad(kept(root)).told
        registry.promote("1h", registry.bundles("1h")[0], "decided anew")
        assert "entries 2 were set aside as damaged" in bad(kept(root), "note").told
        assert not [one for one in kept(root) if one.state == "wrong"]
    finally:
        service.stop()
