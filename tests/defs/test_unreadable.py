"""A horizon whose files cannot be read: the others load and run, and it says what is wrong wherever one looks."""

import re
import shlex
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import polars as pl
import pytest
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.api import create_execution_plan, execute_run

from assets import names
from conf.compose import compose
from defs.alert_facts import failure
from defs.graph import build
from defs.refresh import RANGE_END, RANGE_START
from defs.unreadable import needed, with_readers
from resources.alerts import AlertState
from resources.clock import FixedClock
from resources.settings import OVERRIDES_VARIABLE
from resources.sources import SourceError
from tests.conftest import SHIPPED

NOW = datetime(2024, 1, 3, 22, tzinfo=UTC)
HORIZON = """# @package _global_
defaults:
  - override /source: {source}
  - override /universe: {universe}
  - override /calendar: XNYS
  - override /features: [{features}]
  - override /factors: [pass_through]
  - override /label: forward_return

interval: {interval}
bars: {{from: {bars}}}
partition: day
{rest}
"""
READER = """# @package features.reader
theirs: {expr: 'at("filed", close) / close - 1', description: of another horizon}
"""
ALL = ("made", "filed", "coarse", "reader", "sector")
SMALL = ["source.symbols=2"]


@pytest.fixture
def conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the files that horizons read: bars of `filed`, and the attributes of `sector`.

    `coarse` resamples `filed`, `reader` reads it, and `made` needs no file.
    """
    folder, files = tmp_path / "conf", tmp_path / "files"
    shutil.copytree(SHIPPED, folder, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    files.mkdir()
    made = {"source": "synthetic", "universe": "demo", "features": "volatility", "interval": "5m", "bars": "source"}
    filed = {**made, "source": "parquet", "universe": "all", "rest": f"source: {{path: '{files}/bars.parquet'}}"}
    horizons = {
        "made": {**made, "rest": ""},
        "filed": filed,
        "coarse": {**made, "interval": "15m", "bars": "filed", "rest": ""},
        "reader": {**made, "features": "volatility, reader", "rest": ""},
        "sector": {**made, "rest": f"universe: {{attributes: '{files}/sectors.csv'}}"},
    }
    for name, written in horizons.items():
        (folder / "horizon" / f"{name}.yaml").write_text(HORIZON.format(**written))
    (folder / "features" / "reader.yaml").write_text(READER)
    stamps = [datetime(2024, 1, 3, 15, tzinfo=UTC) + n * timedelta(minutes=5) for n in range(3)]
    prices = {name: pl.lit(1.0) for name in ("open", "high", "low", "close", "volume")}
    pl.DataFrame({"symbol": "S000", "timestamp": stamps}).with_columns(**prices).write_parquet(files / "bars.parquet")
    (files / "sectors.csv").write_text("symbol,sector\nS000,tech\nS001,energy\n")
    monkeypatch.setenv("TENOR_CONF", str(folder))
    return files


def loaded(tmp_path: Path, *horizons: str, spare: bool = True, now: datetime = NOW) -> dg.RepositoryDefinition:
    words = [f"horizon={','.join(horizons)}", f"store.root='{tmp_path}/store'", "alerts.after.service_stale=null"]
    return build(compose(words), clock=FixedClock(now), spare=spare).get_repository_def()


def cut(files: Path) -> None:
    """As an upload leaves it that was cut off."""
    held = (files / "bars.parquet").read_bytes()
    (files / "bars.parquet").write_bytes(held[: len(held) // 2])


def ticked(repository: dg.RepositoryDefinition, sensor: str, instance: dg.DagsterInstance, now: datetime = NOW) -> str:
    """What a tick of a sensor says or raises."""
    found = repository.get_sensor_def(sensor)
    resources = {**repository.get_top_level_resources(), "clock": FixedClock(now)}
    given = {name: resources[name] for name in found.required_resource_keys}
    with dg.build_sensor_context(instance, repository_def=repository, resources=given) as context:
        try:
            told = found.evaluate_tick(context)
        except SourceError as error:
            return f"SourceError: {error}"
    return told.skip_message or f"{len(told.run_requests or [])} runs"


# -- what loads -------------------------------------------------------------------------------------------------------


def test_who_reads_a_file_that_cannot_be_read_is_not_loaded_and_all_others_are(
    conf: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = loaded(tmp_path, *ALL)
    cut(conf)
    (conf / "sectors.csv").unlink()
    repository = loaded(tmp_path, *ALL)
    assert {job.name for job in repository.get_all_jobs()} == {job.name for job in whole.get_all_jobs()}
    graph, before = repository.asset_graph, whole.asset_graph
    assert graph.get_all_asset_keys() == before.get_all_asset_keys()
    assert graph.asset_check_keys == before.asset_check_keys
    parts = graph.get(names.key("made", "factors")).partitions_def
    assert parts == before.get(names.key("made", "factors")).partitions_def is not None
    sensors = {sensor.name for sensor in repository.sensor_defs}
    assert {"refresh_made", "follow_made", "retrain_made", "vacuum_made"} <= sensors
    for name, said in {
        "filed": "bars.parquet cannot be read",
        "coarse": "bars.parquet cannot be read",
        "reader": "it reads filed, which is not loaded: .*bars.parquet cannot be read",
        "sector": "there is no file .*sectors.csv",
    }.items():
        assert re.search(said, graph.get(names.key(name, "bars")).description or "")
        assert re.search(f"{name} is not loaded: .*{said}", caplog.text)
        assert {f"refresh_{name}", f"vacuum_{name}"} <= sensors
        assert not {f"follow_{name}", f"retrain_{name}"} & sensors


@pytest.mark.parametrize("horizon", ["coarse", "sector"])
def test_whoever_asks_for_such_a_horizon_by_name_is_refused(conf: Path, tmp_path: Path, horizon: str) -> None:
    cut(conf)
    (conf / "sectors.csv").write_bytes(b"")
    with pytest.raises(SourceError, match=r"(bars\.parquet|sectors\.csv) cannot be read"):
        loaded(tmp_path, horizon, spare=False)


def test_a_horizon_with_automation_off_has_no_sensors_then_either(conf: Path, tmp_path: Path) -> None:
    cut(conf)
    words = ["horizon=filed", f"store.root='{tmp_path}/store'", "automation=off"]
    repository = build(compose(words), clock=FixedClock(NOW), spare=True).get_repository_def()
    assert {sensor.name for sensor in repository.sensor_defs} == {"deploy_champions", "tell_alerts"}


def test_horizons_that_read_each_other_are_loaded_together() -> None:
    plans = {name: SimpleNamespace(reads=reads) for name, reads in {"a": "b", "b": "ac", "c": "", "d": ""}.items()}
    assert needed(plans, "a") == needed(plans, "b") == {"a", "b", "c"}  # type: ignore[arg-type]
    why = with_readers(plans, {"c": "it is gone"})  # type: ignore[arg-type]
    assert why["a"] == "it reads b, which is not loaded: it reads c, which is not loaded: it is gone"
    assert why.keys() == {"a", "b", "c"}


# -- what tells it ----------------------------------------------------------------------------------------------------


def test_its_sensor_fails_with_the_reason_until_the_code_location_is_loaded_anew(conf: Path, tmp_path: Path) -> None:
    held = (conf / "bars.parquet").read_bytes()
    cut(conf)
    repository = loaded(tmp_path, "made", "filed", "reader")
    with dg.DagsterInstance.ephemeral() as instance:
        for sensor in ("refresh_filed", "refresh_reader"):
            assert re.match(r"SourceError: filed: .*bars\.parquet cannot be read", ticked(repository, sensor, instance))
        assert ticked(repository, "refresh_made", instance) == "1 runs"
        (conf / "bars.parquet").write_bytes(held)
        for horizon in ("filed", "reader"):
            said = ticked(repository, f"refresh_{horizon}", instance)
            assert re.match(f"SourceError: {horizon} can be read now.* reload the code location", said)
        assert ticked(loaded(tmp_path, "made", "filed"), "refresh_filed", instance) == "1 runs"


def test_an_alert_tells_it_and_ends_when_it_is_loaded(conf: Path, tmp_path: Path) -> None:
    held = (conf / "bars.parquet").read_bytes()
    cut(conf)
    repository = loaded(tmp_path, "made", "filed")
    with dg.DagsterInstance.ephemeral() as instance:
        assert ticked(repository, "tell_alerts", instance) == "nothing new to tell"  # it may be written anew
        later = NOW + timedelta(minutes=12)
        assert ticked(repository, "tell_alerts", instance, later) == "Tenor: data late: filed"
        [late] = [one for one in AlertState(tmp_path / "store").read().held if one.kind == "data_late"]
        assert re.match(r"not loaded, .*bars\.parquet cannot be read", late.why)
        (conf / "bars.parquet").write_bytes(held)
        whole = loaded(tmp_path, "made", "filed")
        ticked(whole, "tell_alerts", instance, later)
        end = ticked(whole, "tell_alerts", instance, later + timedelta(minutes=2))
        assert end == "Tenor: resolved: data late: filed"


# -- what runs --------------------------------------------------------------------------------------------------------


def test_a_run_that_waited_when_the_file_was_cut_fails_with_the_reason_and_another_horizons_goes_on(
    conf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(OVERRIDES_VARIABLE, shlex.join([f"store.root='{tmp_path}/store'", *SMALL]))
    queued = loaded(tmp_path, "made", "filed")
    cut(conf)
    repository = loaded(tmp_path, "made", "filed")  # as the process of each run does

    def ran(horizon: str, day: str, instance: dg.DagsterInstance) -> dg.DagsterRun:
        tags = {RANGE_START: day, RANGE_END: day}
        job = queued.get_job(f"bars_{horizon}")
        plan = create_execution_plan(job, tags=tags)
        run = instance.create_run_for_job(job, execution_plan=plan, tags=tags)
        execute_run(InMemoryJob(repository.get_job(f"bars_{horizon}")), run, instance)
        found = instance.get_run_by_id(run.run_id)
        assert found is not None
        return found

    with dg.DagsterInstance.ephemeral() as instance:
        run = ran("filed", "2024-01-03", instance)
        assert run.status == dg.DagsterRunStatus.FAILURE
        assert re.search(r"bars\.parquet cannot be read", failure(instance, run.run_id))
        parts = repository.assets_defs_by_key[names.key("made", "bars")].partitions_def
        assert parts is not None
        assert ran("made", parts.get_partition_keys()[0], instance).is_success
