"""The deployment follows the ledger and what services serve, whatever ticks were missed, and no failure is repeated."""

import shutil
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from assets import names
from assets.reports import Reports
from conf.compose import compose
from defs.alert_facts import failure
from defs.deploying import _champions, last_told
from defs.graph import build
from resources.clock import FixedClock
from resources.inference import Inference
from resources.instances import DOWN, UNLOADED, Instances, Served
from resources.registry import Entry, Registry
from tests.defs.conftest import STRUCTURAL
from tests.resources.test_registry import make_bundle

ONE, TWO = "http://one:1", "http://two:2"


class Services(Instances):
    """Two services that tests stop, start and break; those that run follow the ledger when they are asked to."""

    def __init__(self, registry: Registry) -> None:
        super().__init__([ONE, TWO])
        self.registry = registry
        self.serves: dict[str, Served] = {url: Served(url, problem=DOWN) for url in self.urls}
        self.refusing: set[str] = set()

    def start(self, *urls: str) -> None:
        for url in urls:
            self.serves[url] = self._follows(url)

    def stop(self, url: str) -> None:
        self.serves[url] = Served(url, problem=DOWN)

    def look(self) -> list[dict[str, Served]]:
        return [{} if one.problem == DOWN else {"5m": one} for one in self.serves.values()]

    def load(self, horizon: str) -> list[Served]:
        for url, one in self.serves.items():
            if one.problem not in (DOWN, UNLOADED):
                self.serves[url] = self._follows(url)
        return list(self.serves.values())

    def _follows(self, url: str) -> Served:
        entry = self.registry.champion("5m")
        if url in self.refusing:
            return replace(self.serves[url], problem="bundle is refused: golden data differs", refused=True)
        return Served(url, entry.id, entry.number, entry.at) if entry else Served(url, problem="nothing is promoted")


@cache
def graph() -> tuple[dg.Definitions, dg.RepositoryDefinition]:
    """Made once: its steps read what the test gives them, nothing of their own store."""
    made = build(compose(["horizon=5m", *STRUCTURAL, "store.root=nowhere"]))
    return made, made.get_repository_def()


class Deployed:
    """The graph of one horizon over a registry and services of the test."""

    def __init__(self, root: Path) -> None:
        self.clock = FixedClock(datetime(2024, 3, 1, tzinfo=UTC))
        self.registry = Registry(root, self.clock)
        self.services = Services(self.registry)
        self.instance = dg.DagsterInstance.ephemeral()
        self.graph, self.repository = graph()
        self.resources: dict[str, Any] = {
            "clock": self.clock, "registry": self.registry, "instances": self.services,
            "reports": Reports(root, "http://service", "http://ui"),
        }  # fmt: skip
        self.asked: set[str] = set()

    def promote(self, name: str, why: str = "better") -> Entry:
        id = self.registry.write(
            make_bundle(name, "5m"), {"run": "run-1", "cause": {"kind": "drift", "why": "w", "url": "http://ui/c"}}
        )
        return self.registry.promote("5m", id, why, by="me")

    def tick(self) -> list[dg.RunRequest]:
        """What the sensor asks for and Dagster would start: a run's key starts one run."""
        sensor = self.repository.get_sensor_def("deploy_champions")
        with dg.build_sensor_context(
            instance=self.instance, resources=self.resources, repository_def=self.repository
        ) as context:
            requests = sensor.evaluate_tick(context).run_requests or []
        return [request for request in requests if str(request.run_key) not in self.asked]

    def run(self, request: dg.RunRequest) -> dg.ExecuteInProcessResult:
        self.asked.add(str(request.run_key))
        wanted = set(request.asset_selection or ())
        return dg.materialize(
            [one for one in self.graph.assets or () if isinstance(one, dg.AssetsDefinition) and one.keys & wanted],
            instance=self.instance,
            resources={**(self.graph.resources or {}), **self.resources},
            tags=dict(request.tags),
            raise_on_error=False,
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        )

    def settle(self, ticks: int = 5) -> list[dg.ExecuteInProcessResult]:
        """The sensor's ticks, a minute apart, with the runs that they ask for."""
        made = []
        for _ in range(ticks):
            made += [self.run(request) for request in self.tick()]
            self.clock.set(self.clock.now() + timedelta(minutes=1))
        return made

    def told(self) -> Mapping[str, Any]:
        event = self.instance.get_latest_materialization_event(names.key("5m", "deployment"))
        assert event is not None
        assert event.asset_materialization is not None
        return {name: value.value for name, value in event.asset_materialization.metadata.items()}


@pytest.fixture
def made(tmp_path: Path) -> Deployed:
    return Deployed(tmp_path)


def check_of(result: dg.ExecuteInProcessResult) -> dg.AssetCheckEvaluation:
    [check] = result.get_asset_check_evaluations()
    return check


def test_a_registry_without_a_champion_asks_for_nothing(made: Deployed) -> None:
    assert made.settle() == []


def test_a_new_entry_is_one_run_and_tells_who_serves_what_since_when_and_why(made: Deployed) -> None:
    entry = made.promote("a", "it won")
    made.services.start(ONE, TWO)
    [result] = made.settle()
    assert result.success
    assert check_of(result).passed
    told = made.told()
    assert (told["bundle"], told["ledger number"], told["why"], told["by"]) == (entry.id, 1, "it won", "me")
    assert told["served"] == {ONE: 1, TWO: 1}
    assert told["served by"] == "2 of 2 services"
    assert f"| {ONE} | {entry.id} | 1 |" in told["services"]
    assert (told["trained by"], told["cause"], told["caused by"]) == ("http://ui/runs/run-1", "drift", "http://ui/c")
    assert told["evaluation"].endswith(f"/reports/5m/evaluation-{entry.id}.html")


def test_entries_that_came_while_no_tick_did_become_one_run_for_the_newest(made: Deployed) -> None:
    made.services.start(ONE, TWO)
    made.promote("a")
    made.settle()
    for name in ("b", "c", "d"):
        newest = made.promote(name)
    [result] = made.settle()
    assert result.success
    assert (made.told()["bundle"], made.told()["ledger number"]) == (newest.id, 4)


def test_a_service_that_is_down_is_no_failure_and_is_told_when_it_is_back(made: Deployed) -> None:
    made.promote("a")
    [alone] = made.settle()
    assert alone.success
    assert not check_of(alone).passed
    assert check_of(alone).severity == dg.AssetCheckSeverity.WARN
    assert DOWN in str(check_of(alone).description)
    assert made.told()["served"] == {ONE: None, TWO: None}
    assert made.settle(30) == []  # half an hour: no storm
    made.services.start(ONE)
    [half] = made.settle()
    assert half.success
    assert made.told()["served"] == {ONE: 1, TWO: None}
    made.services.start(TWO)
    [whole] = made.settle()
    assert check_of(whole).passed
    made.services.stop(ONE)
    [again] = made.settle()
    assert "1 of 2" in made.told()["served by"]
    assert again.success


def test_a_service_that_comes_and_goes_is_looked_at_once_a_minute(made: Deployed) -> None:
    made.promote("a")
    made.services.start(ONE, TWO)
    made.settle(1)
    made.clock.set(made.clock.now() - timedelta(minutes=1))
    runs = 0
    for second in range(90):
        (made.services.stop if second % 10 < 5 else made.services.start)(ONE)
        for request in made.tick():
            runs += made.run(request).success
        made.clock.set(made.clock.now() + timedelta(seconds=1))
    assert runs <= 2


def test_a_bundle_that_all_refuse_fails_once_and_succeeds_by_itself_when_one_serves_it(made: Deployed) -> None:
    made.services.start(ONE, TWO)
    first = made.promote("a")
    made.settle()
    made.services.refusing = {ONE, TWO}
    bad = made.promote("b")
    [failed] = made.settle(30)
    assert not failed.success
    assert made.told()["bundle"] == first.id  # what serves still
    made.services.refusing = set()
    made.services.load("5m")  # the services try again by themselves, each minute
    [result] = made.settle()
    assert result.success
    assert made.told()["bundle"] == bad.id


def test_one_that_refuses_beside_one_that_serves_is_an_error_of_the_check(made: Deployed) -> None:
    made.services.start(ONE, TWO)
    made.promote("a")
    made.settle()
    made.services.refusing = {TWO}
    made.promote("b")
    [result] = made.settle()
    assert result.success
    assert (check_of(result).passed, check_of(result).severity) == (False, dg.AssetCheckSeverity.ERROR)
    assert "golden data differs" in str(check_of(result).description)
    assert made.told()["served"] == {ONE: 2, TWO: 1}


def test_what_somebody_unloaded_stays_unloaded(made: Deployed) -> None:
    made.services.start(ONE, TWO)
    made.promote("a")
    made.settle()
    made.services.serves[TWO] = Served(TWO, problem=UNLOADED)
    made.settle()
    assert made.services.serves[TWO].problem == UNLOADED
    assert made.told()["served"] == {ONE: 1, TWO: None}


def test_while_a_run_waits_no_other_is_asked_for(made: Deployed) -> None:
    made.services.start(ONE)
    made.promote("a")
    [request] = made.tick()
    job = dg.Definitions(
        assets=list(made.graph.assets or ()), resources=made.graph.resources, executor=dg.in_process_executor,
        jobs=[dg.define_asset_job("deploy", [names.key("5m", "deployment")])],
    ).resolve_job_def("deploy")  # fmt: skip
    run = made.instance.create_run_for_job(job, tags=dict(request.tags), status=dg.DagsterRunStatus.STARTED)
    made.services.start(TWO)
    assert made.tick() == []
    made.instance.report_run_canceled(run)
    assert len(made.tick()) == 1


def test_a_ledger_that_starts_anew_is_followed_though_its_numbers_are_lower(made: Deployed, tmp_path: Path) -> None:
    """`tenor clean` takes the ledger; a database of the user's own keeps what deployments told, and past runs."""
    made.services.start(ONE, TWO)
    made.promote("a")
    made.settle()
    shutil.rmtree(tmp_path / "registry" / "5m" / "ledger")
    made.clock.set(made.clock.now() + timedelta(days=1))
    entry = made.registry.promote("5m", made.registry.bundles("5m")[0], "the first after cleaning")
    assert entry.number == 1
    [result] = made.settle()
    assert result.success
    assert made.told()["why"] == "the first after cleaning"


def test_a_ledger_that_cannot_be_read_fails_the_tick_and_is_caught_up_with_later(
    made: Deployed, tmp_path: Path
) -> None:
    made.services.start(ONE, TWO)
    made.promote("a")
    made.settle()
    entry = made.promote("b")
    file = tmp_path / "registry" / "5m" / "ledger" / f"{entry.number:06}.json"
    whole = file.read_text()
    file.write_text(whole[:20])
    with pytest.raises(Exception, match="damaged"):
        made.tick()
    file.write_text(whole)
    [result] = made.settle()
    assert result.success
    assert made.told()["ledger number"] == entry.number


def test_a_run_over_a_ledger_that_cannot_be_read_fails_with_the_file_and_what_to_do(
    made: Deployed, tmp_path: Path
) -> None:
    made.services.start(ONE, TWO)
    made.promote("a")
    [request] = made.tick()
    (tmp_path / "registry" / "5m" / "ledger" / "000001.json").write_text("{broken")
    result = made.run(request)
    told = failure(made.instance, result.run_id)
    assert "000001.json is damaged: it is not JSON; restore it from a copy, or rename it" in told
    assert "tenor promote horizon=5m" in told


def test_a_ledger_that_cannot_be_read_keeps_no_other_horizon_from_being_deployed(
    made: Deployed, tmp_path: Path
) -> None:
    made.promote("a")
    (tmp_path / "registry" / "1h" / "ledger").mkdir(parents=True)
    (tmp_path / "registry" / "1h" / "ledger" / "000001.json").write_text("{broken")
    champions, damaged = _champions(made.registry, ["1h", "5m"])
    assert list(champions) == ["5m"]
    assert "1h/ledger/000001.json is damaged" in damaged[0]


def test_a_deployment_of_an_older_tenor_is_made_again(made: Deployed) -> None:
    made.instance.report_runless_asset_event(
        dg.AssetMaterialization(names.key("5m", "deployment"), metadata={"bundle": "x"})
    )
    assert last_told(made.instance, "5m") is None
    made.services.start(ONE)
    made.promote("a")
    assert len(made.tick()) == 1


@pytest.fixture
def served(store: Path, service: Inference) -> tuple[Deployed, Inference]:
    """The real store and service of `tenor run`."""
    return Deployed(store), service


@pytest.mark.slow
def test_the_run_it_asks_for_makes_a_real_service_serve_the_newest_entry(served: tuple[Deployed, Inference]) -> None:
    made, service = served
    made.resources["instances"] = Instances([service.url, "http://127.0.0.1:9"])
    champion = made.registry.champion("5m")
    assert champion is not None
    entry = made.registry.promote("5m", champion.id, "by hand")
    [request] = made.tick()
    result = made.run(request)
    assert result.success
    assert made.told()["served"] == {service.url: entry.number, "http://127.0.0.1:9": None}
    assert f"127.0.0.1:9 | – | – | – | {DOWN}" in made.told()["services"]
    [model] = [one for one in service.models() if one["horizon"] == "5m"]
    assert (model["bundle"], model["number"], model["why"]) == (entry.id, entry.number, "by hand")
