"""`tenor vacuum` beside a running service: not one answer fails, and what serves can be loaded anew."""

import shutil
import threading
from pathlib import Path

import pytest

from conf.compose import compose
from defs.processes import Processes
from defs.service import start_service
from resources import removal
from resources.inference import Inference
from resources.lake import Lake
from resources.registry import Registry
from tests.defs.test_vacuum import aged, horizon, swept
from tests.resources.test_registry import make_bundle

pytestmark = pytest.mark.slow  # starts from a whole `tenor run`, and a service


def test_a_running_service_answers_through_a_vacuum_and_follows_the_ledger_after_it(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(removal, "SETTLING", 0.1)
    root = tmp_path / "store"
    shutil.copytree(store, root, ignore=shutil.ignore_patterns("postgres"))
    registry, lake = Registry(root), Lake(root / "lake")
    champion = registry.champion("5m")
    assert champion is not None
    for content in ("first", "second"):
        registry.write(make_bundle(content, "5m"), {})
    layout, days = lake.layout("bars/5m"), lake.partitions("bars/5m")
    assert layout is not None
    rows = lake.scan("bars/5m").collect()
    # A session is taken away and brought back: its file of then is only of older versions.
    lake.write("bars/5m", [rows.filter(partition=days[-1]).head(1)], days[-1:], layout)
    lake.write("bars/5m", [rows.filter(partition=days[-1])], days[-1:], layout)
    aged(root, 30)
    failed: list[Exception] = []
    answered = 0
    done = threading.Event()
    with Processes() as processes:
        url = start_service(processes, root, compose(["horizon=5m", "serving.port=1"])["5m"].serving)
        with Inference(url) as service:
            service.wait_ready(60)
            bars = rows.drop("partition")
            symbols = registry.load("5m", champion.id).recipe.symbols

            def ask() -> None:
                nonlocal answered
                with Inference(url) as mine:
                    while not done.is_set():
                        try:
                            assert mine.predict_bars("5m", bars, absent=set(symbols) - set(bars["symbol"])).bundle
                            answered += 1
                        except Exception as error:
                            failed.append(error)

            asking = threading.Thread(target=ask)
            asking.start()
            told = swept(root, {"5m": horizon(bundles=0, versions_days=1, reports_days=1, logs_days=1)["1h"]})
            assert service.load("5m")["bundle"] == champion.id
            done.set()
            asking.join()
            assert service.health()["status"] == "serving"
            assert service.health()["horizons"]["5m"]["problem"] is None
    assert failed == []
    assert answered > 0
    assert any("bundles" in line for line in told)
    assert any(line.startswith("bars/5m") for line in told)
