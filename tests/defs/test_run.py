"""`tenor run`, end to end, with a horizon that one YAML file added: no Python knows its name."""

import subprocess
from datetime import UTC
from pathlib import Path

import dagster as dg
import numpy as np
import polars as pl
import psutil  # type: ignore[import-untyped]
import pytest

from assets import names
from assets.plan import Plan
from conf.compose import compose
from defs.cli import main
from defs.graph import build
from defs.look import with_all_horizons
from resources.dagster_storage import instance
from resources.database import Database
from resources.inference import Inference
from resources.lake import Lake
from resources.registry import Registry
from tests.defs.conftest import STRUCTURAL

Done = subprocess.CompletedProcess[str]


def test_a_horizon_added_by_a_file_runs_from_bars_to_a_served_prediction(ran: tuple[Path, Done]) -> None:
    root, done = ran
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "Traceback" not in done.stdout + done.stderr
    for horizon in ("5m", "30m"):
        champion = Registry(root).champion(horizon)
        assert champion is not None
        assert f"prediction served for {horizon}, bundle {champion.id}" in done.stdout
        for report in ("drift", "evaluation"):
            assert list((root / "reports" / horizon).glob(f"{report}-*.html"))


def test_its_runs_are_in_the_dagster_instance(store: Path) -> None:
    try:
        with instance(store) as kept:
            for step in names.STEPS:
                event = kept.get_latest_materialization_event(names.key("30m", step))
                assert event is not None, step
            runs = kept.get_runs()
    finally:
        Database(store).release()
    assert {run.status for run in runs} == {dg.DagsterRunStatus.SUCCESS}


def test_it_is_in_the_graph_with_its_jobs_and_its_sensors(configs: Path) -> None:
    graph = build(compose(with_all_horizons([])))
    keys = {asset.key for asset in graph.assets or () if isinstance(asset, dg.AssetsDefinition)}
    assert {names.key("30m", step) for step in names.STEPS} <= keys
    for what in ("refresh", "train", "drift", "deploy", "score"):
        assert graph.resolve_job_def(names.job("30m", what)).name == f"{what}_30m"
    repository = graph.get_repository_def()
    sensors = {sensor.name: sensor for sensor in repository.sensor_defs}
    assert {"follow_30m", "retrain_30m", "vacuum_30m", "refresh_5m", "tell_alerts"} <= sensors.keys()
    sensor = sensors["deploy_champions"]
    assert sensor.asset_selection is not None
    assert names.key("30m", "deployment") in sensor.asset_selection.resolve(repository.asset_graph)
    parts = repository.assets_defs_by_key[names.key("30m", "bars")].partitions_def
    assert parts is not None
    assert len(parts.get_partition_keys()) == compose(["horizon=5m"])["5m"].source.sessions  # type: ignore[union-attr]


def test_it_answers_predictions_over_http(store: Path, service: Inference) -> None:
    newest = rows(store, "30m").filter(pl.col("timestamp") == pl.col("timestamp").max())
    answer = service.predict_rows("30m", newest)
    champion = Registry(store).champion("30m")
    assert champion is not None
    assert (answer.bundle, answer.number) == (champion.id, champion.number)
    assert answer.frame["symbol"].to_list() == newest["symbol"].to_list()
    assert answer.frame["prediction"].is_finite().all()


def rows(store: Path, horizon: str) -> pl.DataFrame:
    """The factor table as the service is asked with it."""
    table = Lake(f"{store}/lake").scan(f"factors/{horizon}").drop("known_at", "partition")
    return table.sort("timestamp", "symbol").collect()


@pytest.mark.parametrize("horizon", ["5m", "30m"])
def test_bars_and_factor_rows_give_the_same_prediction_for_every_bar_of_a_session(
    store: Path, service: Inference, horizon: str
) -> None:
    champion = Registry(store).champion(horizon)
    assert champion is not None
    bundle = Registry(store).load(horizon, champion.id)
    plan = Plan(compose([f"horizon={horizon}", *STRUCTURAL])[horizon])
    table = rows(store, horizon)
    bars = Lake(f"{store}/lake").scan(f"bars/{horizon}").drop("partition").sort("timestamp", "symbol").collect()
    stamps = table["timestamp"].dt.replace_time_zone(None).to_numpy()
    newest = plan.grid.session_dates(stamps[-1:])[0].item()
    session, dates = plan.grid.slots(newest, newest), plan.grid.session_dates(stamps[[0, -1]]).tolist()
    slots = plan.grid.slots(*dates)
    if len(slots) - len(session) < bundle.recipe.lookback:  # so young a table has no whole look-back before
        session = session[-(len(slots) - bundle.recipe.lookback) :]
    asked, found = [], []
    for slot in session:
        at = int(np.searchsorted(slots, slot))
        since = slots[at - bundle.recipe.lookback].item().replace(tzinfo=UTC)
        until = slot.item().replace(tzinfo=UTC)
        section = table.filter(pl.col("timestamp") == until)
        if section.is_empty():
            continue
        asked.append(service.predict_rows(horizon, section).frame)
        found.append(service.predict_bars(horizon, bars.filter(pl.col("timestamp").is_between(since, until))).frame)
    assert len(asked) >= (78 if horizon == "5m" else 1)
    expected, answered = pl.concat(asked), pl.concat(found)
    assert answered.equals(expected)
    assert answered["prediction"].to_numpy().tobytes() == expected["prediction"].to_numpy().tobytes()
    assert expected["prediction"].n_unique() > 10


def test_what_is_served_is_the_bundle_applied_to_the_factor_table(store: Path, service: Inference) -> None:
    table = rows(store, "5m").tail(200)
    answer = service.predict_rows("5m", table)
    bundle = Registry(store).load("5m", answer.bundle)
    X = np.ascontiguousarray(table.select(bundle.factors).to_numpy())
    assert answer.frame["prediction"].to_numpy().tobytes() == bundle.predict_rows(X).tobytes()


def test_status_shows_what_is_there(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", f"store.root='{store}'"]) == 0
    shown = capsys.readouterr().out
    for horizon in ("5m", "30m"):
        champion = Registry(store).champion(horizon)
        assert champion is not None
        [line] = [line for line in shown.splitlines() if line.startswith(f"│ {horizon} ")]
        assert f"{champion.id[:8]} no. {champion.number}" in line
        assert Lake(f"{store}/lake").partitions(f"bars/{horizon}")[-1] in line


def test_no_database_server_is_left_behind(store: Path) -> None:
    left = [
        process.info["cmdline"]
        for process in psutil.process_iter(["cmdline", "name"])
        if process.info["name"] == "postgres" and str(store) in " ".join(process.info["cmdline"] or ())
    ]
    assert left == []
