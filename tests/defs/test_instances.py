"""Two real service processes over one registry, and a sensor whose ticks are lost: all end on the ledger's champion."""

import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conf.compose import compose
from conf.files import REPOSITORY
from defs.processes import Processes
from defs.service import command
from resources.inference import Inference
from resources.instances import DOWN, Instances
from resources.registry import Registry
from tests.assets.conftest import Pipeline
from tests.defs.conftest import STRUCTURAL, VALUES
from tests.defs.test_deploying import Deployed, check_of


class Two:
    """Two services of a store, started and stopped one by one."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.ports = [_free(), _free()]
        self.running: dict[int, Processes] = {}

    @property
    def urls(self) -> list[str]:
        return [f"http://127.0.0.1:{port}" for port in self.ports]

    def start(self, number: int) -> None:
        serving = compose(["horizon=5m", "serving.follow_seconds=0.5"])["5m"].serving
        processes = Processes()
        words = command(self.root, serving.model_copy(update={"port": self.ports[number]}))
        processes.start("service", words, {}, cwd=REPOSITORY, log=self.root / f"service{number}.log")
        self.running[number] = processes
        with Inference(self.urls[number]) as service:
            service.wait_ready(90)

    def stop(self, number: int) -> None:
        self.running.pop(number).stop()


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Two]:
    """Over a store with a champion."""
    Pipeline(tmp_path, "horizon=5m", *STRUCTURAL, *VALUES).run("bars", "features", "factors", "model")
    made = Two(tmp_path)
    try:
        for number in (0, 1):
            made.start(number)
        yield made
    finally:
        for number in list(made.running):
            made.stop(number)


@pytest.mark.slow
def test_two_services_and_a_sensor_that_missed_its_ticks_end_on_the_ledgers_champion(two: Two) -> None:
    made = Deployed(two.root)
    made.resources["instances"] = made.services = Instances(two.urls)  # type: ignore[assignment]
    registry = Registry(two.root)
    champion = registry.champion("5m")
    assert champion is not None
    [result] = made.settle()
    assert check_of(result).passed
    assert set(made.told()["served"].values()) == {champion.number}

    # Three promotions without a tick: both follow by themselves, and one run then tells the newest.
    for why in ("one", "two", "three"):
        newest = registry.promote("5m", champion.id, why)
    _until(lambda: _numbers(two) == [newest.number] * 2)
    [result] = made.settle()
    assert (made.told()["why"], set(made.told()["served"].values())) == ("three", {newest.number})

    # One is down while another is promoted: no failure, and no more runs than what changes.
    two.stop(1)
    newest = registry.promote("5m", champion.id, "while one is down")
    [result] = made.settle()
    assert result.success
    assert not check_of(result).passed
    assert made.told()["served"] == {two.urls[0]: newest.number, two.urls[1]: None}
    assert DOWN in made.told()["services"]

    # It comes back and reads the ledger; the deployment tells so by itself.
    two.start(1)
    assert _numbers(two) == [newest.number] * 2
    [result] = made.settle()
    assert check_of(result).passed
    assert made.told()["served by"] == "2 of 2 services"


def _numbers(two: Two) -> list[int | None]:
    return [one.number for one in Instances(two.urls).serving("5m")]


def _until(true: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"not within {seconds:g} s"
        time.sleep(0.2)


def _free() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
