"""Sensors read what is there: a new entry of the ledger, or new bars, become one run, whatever ticks were missed."""

import json
import shutil
from functools import cache
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from assets import names
from conf.compose import compose
from defs.graph import build
from defs.look import with_all_horizons
from resources.inference import Inference
from resources.lake import Lake
from resources.registry import Registry
from tests.defs.conftest import STRUCTURAL


@pytest.fixture
def registry(store: Path, tmp_path: Path) -> Registry:
    """A copy of the registry that the run made, to promote and roll back in."""
    shutil.copytree(store / "registry", tmp_path / "registry")
    return Registry(tmp_path)


@cache
def repository() -> dg.RepositoryDefinition:
    return build(compose(with_all_horizons([]))).get_repository_def()


def tick(registry: Registry, cursor: str | None = None) -> tuple[list[dg.RunRequest], str | None]:
    """One evaluation of the graph's sensor: the runs it asks for, and the cursor after it."""
    sensor = repository().get_sensor_def("deploy_champions")
    with dg.build_sensor_context(
        cursor=cursor, resources={"registry": registry}, repository_def=repository()
    ) as context:
        data = sensor.evaluate_tick(context)
    return list(data.run_requests or ()), data.cursor or cursor


def test_a_new_entry_is_one_run_of_its_deployment_and_a_second_tick_asks_for_none(registry: Registry) -> None:
    requests, cursor = tick(registry)
    assert [request.asset_selection for request in requests] == [
        [names.key("5m", "deployment")],
        [names.key("30m", "deployment")],
    ]
    assert tick(registry, cursor) == ([], cursor)
    champion = registry.champion("30m")
    assert champion is not None
    entry = registry.promote("30m", champion.id, "again, by hand")
    requests, after = tick(registry, cursor)
    [request] = requests
    assert request.asset_selection == [names.key("30m", "deployment")]
    assert request.tags["tenor/ledger"] == str(entry.number)
    assert request.tags["tenor/why"] == "again, by hand"
    assert tick(registry, after) == ([], after)


def test_entries_that_came_between_two_ticks_become_one_run_for_the_newest(registry: Registry) -> None:
    _, cursor = tick(registry)
    champion = registry.champion("5m")
    assert champion is not None
    keys = set()
    for why in ("one", "two", "three"):
        newest = registry.promote("5m", champion.id, why)
    [request], cursor = tick(registry, cursor)
    keys.add(request.run_key)
    assert request.tags["tenor/ledger"] == str(newest.number)
    assert json.loads(cursor or "")["5m"] == f"{newest.number} {newest.at.isoformat()}"
    # A run of the same key would never start: each number has its own.
    registry.promote("5m", champion.id, "four")
    [request], _ = tick(registry, cursor)
    assert request.run_key not in keys


def test_a_ledger_that_starts_anew_is_followed_though_its_numbers_are_lower(registry: Registry, tmp_path: Path) -> None:
    """`tenor clean` takes the ledger; a database of the user's own keeps the cursor and the keys of past runs."""
    champion = registry.champion("5m")
    assert champion is not None
    registry.promote("5m", champion.id, "a second one")
    requests, cursor = tick(registry)
    keys = {request.run_key for request in requests}
    shutil.rmtree(tmp_path / "registry" / "5m" / "ledger")
    entry = registry.promote("5m", champion.id, "the first after cleaning")
    assert entry.number == 1
    [request], after = tick(registry, cursor)
    assert request.tags["tenor/why"] == "the first after cleaning"
    assert request.run_key not in keys
    assert tick(registry, after) == ([], after)


def test_a_ledger_that_cannot_be_read_fails_the_tick_and_is_caught_up_with_later(
    registry: Registry, tmp_path: Path
) -> None:
    _, cursor = tick(registry)
    champion = registry.champion("5m")
    assert champion is not None
    entry = registry.promote("5m", champion.id, "next")
    file = tmp_path / "registry" / "5m" / "ledger" / f"{entry.number:06}.json"
    whole = file.read_text()
    file.write_text(whole[:20])
    with pytest.raises(Exception, match="damaged"):
        tick(registry, cursor)
    file.write_text(whole)
    requests, _ = tick(registry, cursor)
    assert [request.tags["tenor/ledger"] for request in requests] == [str(entry.number)]


def test_a_registry_without_a_champion_asks_for_nothing(tmp_path: Path) -> None:
    assert tick(Registry(tmp_path)) == ([], None)


def test_the_run_it_asks_for_makes_the_service_serve_the_newest_entry(store: Path, service: Inference) -> None:
    registry = Registry(store)
    champion = registry.champion("30m")
    assert champion is not None
    _, cursor = tick(registry)
    entry = registry.promote("30m", champion.id, "by hand")
    [request], _ = tick(registry, cursor)
    graph = build(compose(["horizon=30m", *STRUCTURAL, f"store.root='{store}'"]), service=service.url)
    result = dg.materialize(
        [asset for asset in graph.assets or () if isinstance(asset, dg.AssetsDefinition)],
        selection=list(request.asset_selection or ()),
        resources=graph.resources,
    )
    [event] = result.get_asset_materialization_events()
    told = event.step_materialization_data.materialization.metadata
    assert (told["bundle"].value, told["ledger number"].value, told["why"].value) == (entry.id, entry.number, "by hand")
    [served] = [model for model in service.models() if model["horizon"] == "30m"]
    assert (served["bundle"], served["number"], served["why"]) == (entry.id, entry.number, "by hand")


def write(lake: Lake, table: str, value: float) -> None:
    rows = pl.DataFrame({"value": [value], "partition": ["2024-01-02"]})
    lake.write(f"{table}/5m", [rows], ["2024-01-02"], {"format": "test"})


def test_new_bars_are_one_run_of_the_score_where_the_service_has_answered(
    tmp_path: Path,
) -> None:
    lake = Lake(tmp_path)
    cursor: str | None = None

    def tick() -> list[list[dg.AssetKey]]:
        nonlocal cursor
        sensor = repository().get_sensor_def("score_answers")
        with dg.build_sensor_context(cursor=cursor, resources={"lake": lake}, repository_def=repository()) as context:
            data = sensor.evaluate_tick(context)
        cursor = data.cursor or cursor
        return [list(request.asset_selection or ()) for request in data.run_requests or ()]

    write(lake, "bars", 1.0)
    assert tick() == [], "nothing was answered"
    write(lake, "predictions", 1.0)
    run = [[names.key("5m", names.OUTCOMES)]]
    assert (tick(), tick()) == (run, [])
    write(lake, "predictions", 2.0)
    assert tick() == [], "new answers have no outcome before new bars come"
    write(lake, "bars", 2.0)
    write(lake, "bars", 3.0)
    assert (tick(), tick()) == (run, []), "versions that came between two ticks are one run"
