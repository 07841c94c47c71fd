"""`tenor doctor` on tables, registry, database, sources and alerts: each is broken once, and its line says so."""

import json
import os
import shutil
import time
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import psycopg2
import pytest
from dagster._daemon.types import DaemonHeartbeat
from deltalake import DeltaTable

from assets.plan import Plan
from conf.alerting import Webhook
from conf.compose import compose
from defs import cli, doctor
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
from tests.defs.doctoring import NOW, bad, data_files, horizons, kept, plans, root, tables
from tests.defs.test_migrate import FIRST, TABLE
from tests.resources.test_alert_channels import ITEM, MESSAGE

__all__ = ["root"]  # a fixture


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


def test_a_database_that_does_not_start_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TENOR_DATABASE_URL", "postgresql://me:s3cr3t@127.0.0.1:1/none")
    found = bad(looked("database", lambda: store.database(tmp_path)))
    assert "no connection to host 127.0.0.1, port 1" in found.told
    assert "s3cr3t" not in found.told


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


def test_partitions_that_factors_lack_between_others_are_told_with_the_command_that_makes_them(root: Path) -> None:
    lake = Lake(root / "lake")
    layout = lake.layout(TABLE)
    assert layout is not None
    rows, months = lake.scan(TABLE).collect(), ["2024-02-01", "2024-03-01"]
    later = [
        rows.with_columns(pl.col("timestamp").dt.offset_by(f"{at + 1}mo"), partition=pl.lit(month))
        for at, month in enumerate(months)
    ]
    lake.write(TABLE, later, months, layout)
    lake.write("factors/1h", [rows, later[1]], ["2024-01-01", "2024-03-01"], layout)
    found = bad(tables(root))
    assert (found.what, found.told) == ("table factors/1h", "lacks 1 partitions that the bars have: 2024-02-01")
    assert "tenor backfill horizon=1h" in (found.fix or "")
