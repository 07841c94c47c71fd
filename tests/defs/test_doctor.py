"""`tenor doctor`: each thing is broken once, and its line says so, with what to do."""

import json
import os
import shutil
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

import polars as pl
import psycopg2
import pytest
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.scheduler.instigation import InstigatorTick, TickData, TickStatus
from dagster._daemon.types import DaemonHeartbeat
from dagster._utils.error import SerializableErrorInfo
from deltalake import DeltaTable

from assets.plan import Plan
from conf.alerting import Webhook
from conf.compose import compose
from conf.schema import Horizon
from defs import cli, doctor
from defs import doctor_machine as machine
from defs import doctor_sources as sources
from defs import doctor_store as store
from defs.finding import Finding, looked
from resources import alerts as alerts_state
from resources import formats
from resources.alerts import AlertState, Memory, Trouble, queued
from resources.dagster_storage import instance
from resources.database import Database
from resources.lake import Lake
from resources.registry import Registry
from resources.schemas import schemas
from tests.defs.alerting import Service
from tests.defs.test_migrate import FIRST, TABLE
from tests.resources.test_alert_channels import ITEM, MESSAGE

NOW = datetime(2024, 6, 3, 12, tzinfo=UTC)


@cache
def horizons() -> dict[str, Horizon]:
    return dict(compose(["horizon=1h", "calendar=24x7"]))


@cache
def plans() -> dict[str, Plan]:
    return {name: Plan(horizon) for name, horizon in horizons().items()}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A small store: a table, answers, two bundles, a champion."""
    shutil.copytree(FIRST, tmp_path / "store")
    for table in (TABLE, "predictions/1h"):
        formats.migrate(DeltaTable(tmp_path / "store" / "lake" / table))
    return tmp_path / "store"


def bad(findings: Iterator[Finding], state: str = "wrong") -> Finding:
    """The one finding of that state."""
    [found] = [one for one in findings if one.state == state]
    assert found.fix
    return found


def tables(root: Path, *, deep: bool = False) -> Iterator[Finding]:
    return looked("tables", lambda: store.tables_of(root, plans(), NOW, deep=deep))


def kept(root: Path, *, deep: bool = False) -> Iterator[Finding]:
    return looked("registry", lambda: store.registry(root, plans(), deep=deep))


def data_files(root: Path, table: str = TABLE) -> list[Path]:
    return [Path(uri) for uri in DeltaTable(root / "lake" / table).file_uris()]


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


# -- the store -----------------------------------------------------------------------------------------------


def test_a_table_whose_file_is_gone_is_told_with_the_file(root: Path) -> None:
    [file] = data_files(root)
    file.unlink()
    found = bad(tables(root))
    assert found.told == f"1 of its files are missing, the first: {file}"
    assert "tenor refresh horizon=1h" in (found.fix or "")


def test_a_table_with_a_damaged_file_is_told_when_it_is_read_whole(root: Path) -> None:
    [file] = data_files(root)
    data = bytearray(file.read_bytes())
    data[200:1600] = bytes(1400)
    file.write_bytes(bytes(data))
    assert bad(tables(root, deep=True)).what == f"table {TABLE}"


def test_a_table_whose_log_is_damaged_is_told(root: Path) -> None:
    (root / "lake" / TABLE / "_delta_log" / "00000000000000000003.json").write_text("{")
    assert bad(tables(root)).what == f"table {TABLE}"


def test_a_table_of_an_older_or_newer_tenor_is_told(root: Path, tmp_path: Path) -> None:
    shutil.copytree(FIRST, tmp_path / "older")
    older = [one for one in tables(tmp_path / "older") if one.state == "wrong"]
    assert [one.what for one in older] == ["table bars/1h", "table predictions/1h"]
    assert all("tenor migrate horizon=1h" in (one.fix or "") for one in older)
    layout = {**formats.layout_of(DeltaTable(root / "lake" / TABLE)), "format": "table-3"}
    DeltaTable(root / "lake" / TABLE).alter.set_table_description(json.dumps(layout))
    assert "of a newer Tenor" in bad(tables(root)).told


def test_files_that_a_crash_left_are_noted(root: Path) -> None:
    left = root / "lake" / TABLE / "partition=2024-01-01" / "left.parquet"
    left.write_bytes(b"half")
    os.utime(left, (0, 0))
    found = bad(tables(root), "note")
    assert "1 files that no version of it names" in found.told
    assert "tenor vacuum horizon=1h" in (found.fix or "")


def test_partitions_without_bars_are_noted_with_the_command_that_asks_again(root: Path) -> None:
    lake = Lake(root / "lake")
    rows, layout = lake.scan(TABLE).collect(), lake.layout(TABLE)
    assert layout is not None
    later = rows.with_columns(pl.col("timestamp").dt.offset_by("3mo"), partition=pl.lit("2024-04-01"))
    lake.write(TABLE, [later], ["2024-04-01"], layout)
    found = bad(tables(root), "note")
    assert found.told == "has no bars in 2 partitions of its calendar: 2024-02-01, 2024-03-01"
    assert "tenor backfill horizon=1h" in (found.fix or "")


def test_a_journal_that_cannot_be_read_is_told(root: Path) -> None:
    folder = root / "arrivals" / "1h"
    folder.mkdir(parents=True)
    (folder / "2024-05-01.x.0000.jsonl").write_text("garbage\ngarbage\n")
    found = bad(looked("journals", lambda: store.journals(root, plans())))
    assert "line 1 is damaged" in found.told


def test_a_damaged_bundle_is_told_and_where_it_is_the_champion_what_to_do(root: Path) -> None:
    registry = Registry(root)
    champion = registry.champion("1h")
    assert champion is not None
    other = next(id for id in registry.bundles("1h") if id != champion.id)
    (registry.path("1h", other) / "model.txt").write_text("damaged")
    found = bad(kept(root))
    assert f"bundle {other} of 1h: model.txt is damaged" in found.told
    (registry.path("1h", champion.id) / "model.txt").write_text("damaged")
    wrong = [one for one in kept(root) if one.state == "wrong"]
    assert [one.what for one in wrong] == ["registry 1h", "registry 1h", "ledger 1h"]
    assert "tenor rollback horizon=1h" in (wrong[-1].fix or "")


def test_a_bundle_that_breaks_the_reader_hides_no_other(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = Registry(root).bundles("1h")
    load = Registry.load

    def broken(self: Registry, horizon: str, id: str) -> object:
        if id == second:
            raise KeyError("golden")
        return load(self, horizon, id)

    monkeypatch.setattr(Registry, "load", broken)
    findings = [*kept(root)]
    assert [one.told for one in findings if one.state == "wrong"] == [f"bundle {second} of 1h: KeyError: 'golden'"]
    assert any(one.what == "ledger 1h" and first in one.told for one in findings)


def test_a_bundle_that_is_whole_but_proves_nothing_is_told_when_asked_deeply(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("quant.bundle.TOLERANCE", -1.0)
    assert [one.state for one in kept(root)] == ["ok", "ok"]
    assert [one.state for one in kept(root, deep=True)] == ["wrong", "wrong", "wrong"]


def test_a_ledger_with_a_hole_a_missing_champion_or_none_is_told(root: Path) -> None:
    registry = Registry(root)
    first, second = registry.bundles("1h")
    registry.promote("1h", second, "better")
    shutil.rmtree(registry.path("1h", first))
    assert f"bundles that served are gone: {first}" in bad(kept(root), "note").told
    ledger = root / "registry" / "1h" / "ledger"
    (ledger / "000001.json").unlink()
    assert "has the numbers [2]: entries are missing" in bad(kept(root)).told
    (ledger / "000002.json").rename(ledger / "000001.json")
    shutil.rmtree(registry.path("1h", second))
    (ledger / "000001.json").write_text((ledger / "000001.json").read_text().replace('"number": 2', '"number": 1'))
    assert f"the champion, {second}, is not in the registry" in bad(kept(root)).told
    (ledger / "000001.json").write_text("{")
    found = bad(kept(root))
    assert (found.what, "000001.json is damaged: it is not JSON" in found.told) == ("ledger 1h", True)
    (ledger / "000001.json").unlink()
    assert "names no champion of 0 bundles" in bad(kept(root), "note").told


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


def test_alerts_that_wait_or_lack_their_secret_are_told(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("T_HOOK", raising=False)
    rules = {"1h": horizons()["1h"].alerts.model_copy(update={"webhook": Webhook(url_from="T_HOOK")})}
    assert "T_HOOK is not set here" in bad(store.alerts(root, rules), "note").told
    monkeypatch.setenv("T_HOOK", "http://127.0.0.1:9/")
    assert [one.state for one in store.alerts(root, rules)] == ["ok"]
    trouble = (("webhook", "1h", Trouble(3, NOW, "webhook: the address in T_HOOK answered 503")),)
    AlertState(root).write(Memory((ITEM,), queued([MESSAGE], ["webhook"], "1h"), trouble))
    found = bad(store.alerts(root, rules))
    assert "answered 503" in found.told
    assert "tenor alerts test" in (found.fix or "")
    AlertState(root).file.write_text("{")
    assert "state.json is damaged" in bad(looked("alerts", lambda: store.alerts(root, rules))).told
    assert alerts_state.AlertsError in cli.told_errors()


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


@pytest.mark.slow  # an embedded Postgres
def test_the_database_is_looked_at_and_tables_of_another_release_are_told_and_migrated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("TENOR_DATABASE_URL", raising=False)
    database = Database(tmp_path)
    try:
        database.ensure()
        told = {one.what: one.told for one in store.database(tmp_path)}
        assert told["database"].endswith("embedded")
        assert "database: pgvector" in told
        assert told["database: dagster"] == told["database: optuna"] == "revision none yet"
        assert "Dagster's daemon never ran" in bad(doctor.daemon(tmp_path, horizons()), "note").told
        with instance(tmp_path) as living:
            kinds, now = living.get_required_daemon_types(), time.time()
            for ago, state in ((5.0, "ok"), (doctor.SILENT + 60, "wrong")):
                for kind in kinds:
                    living.add_daemon_heartbeat(DaemonHeartbeat(now - ago, kind, "one", []))
                [found] = doctor.daemon(tmp_path, horizons())
                assert found.state == state
            assert "gave its last sign of life at" in found.told
        dagster = next(one for one in schemas(tmp_path) if one.name == "dagster")
        assert dagster.found == dagster.newest
        connection = psycopg2.connect(database.url("dagster"))
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("UPDATE alembic_version SET version_num = '7e2f3204cf8e'")  # the newest but some
        connection.close()
        found = bad(store.database(tmp_path))
        assert found.what == "database: dagster"
        assert "tenor migrate" in (found.fix or "")
        assert cli.main(["migrate", "--dry-run", "horizon=1h", f"store.root='{tmp_path}'"]) == 0
        assert "database dagster: revision 7e2f3204cf8e to" in capsys.readouterr().out
    finally:
        database.release()


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


def test_a_source_that_cannot_be_read_has_a_line_of_its_own_and_so_has_one_that_can(tmp_path: Path) -> None:
    days = [datetime(2024, 1, day, 15, tzinfo=UTC) for day in (2, 3)]
    prices = {name: pl.lit(1.0) for name in ("open", "high", "low", "close", "volume")}
    for name in ("whole", "half"):
        pl.DataFrame({"symbol": "A", "timestamp": days}).with_columns(**prices).write_parquet(
            tmp_path / f"{name}.parquet"
        )
    held = (tmp_path / "half.parquet").read_bytes()
    (tmp_path / "half.parquet").write_bytes(held[: len(held) // 2])

    def told(path: str) -> list[Finding]:
        found = compose(["horizon=1h", "source=parquet", f"source.path='{tmp_path}/{path}'", "universe=all"])
        return [*sources.sources({"1h": Plan(found["1h"])}, found, NOW)]

    [fine] = told("whole.parquet")
    assert (fine.state, fine.what) == ("ok", "source 1h")
    assert "from 2024-01-02 to 2024-01-03" in fine.told
    lost = bad(iter(told("*.parquet")))
    assert lost.what == "source 1h"
    assert "half.parquet cannot be read" in lost.told
    assert "tenor refresh horizon=1h" in (lost.fix or "")
    assert not [*sources.sources(plans(), horizons(), NOW)]  # synthetic: there is nothing to read


def test_a_database_that_does_not_start_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TENOR_DATABASE_URL", "postgresql://me:s3cr3t@127.0.0.1:1/none")
    found = bad(looked("database", lambda: store.database(tmp_path)))
    assert "no connection to host 127.0.0.1, port 1" in found.told
    assert "s3cr3t" not in found.told
