"""Models change under a running service: no wrong answer, and a bad bundle changes nothing."""

import re
import shutil
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import httpx
import numpy as np
import pytest

from quant.bundle import Bundle
from resources.inference import Inference, InferenceError
from resources.registry import Registry

Serve = Callable[..., AbstractContextManager[str]]


def test_loading_serves_what_the_ledger_says_and_is_idempotent(
    inference: Inference, registry: Registry, bundles: list[Bundle]
) -> None:
    assert inference.load("5m")["changed"] is False
    registry.promote("5m", bundles[1].id, "better")
    loaded = inference.load("5m")
    assert (loaded["bundle"], loaded["previous"], loaded["changed"]) == (bundles[1].id, bundles[0].id, True)
    assert inference.load("5m")["changed"] is False
    registry.rollback("5m", "worse after all")
    assert inference.load("5m")["bundle"] == bundles[0].id
    [model] = inference.models()
    assert (model["number"], model["why"]) == (3, "worse after all")


def test_every_answer_during_swaps_is_that_of_the_bundle_it_names(
    url: str, registry: Registry, bundles: list[Bundle], tmp_path: Path
) -> None:
    golden = bundles[0].golden.drop("prediction")
    X = np.ascontiguousarray(golden.select(bundles[0].factors).to_numpy())
    expected = {bundle.id: bundle.predict_rows(X).tolist() for bundle in bundles}
    assert expected[bundles[0].id] != expected[bundles[1].id]
    seen: set[str] = set()
    wrong: list[str] = []
    stop = threading.Event()

    def ask() -> None:
        with Inference(url) as inference:
            while not stop.is_set():
                try:
                    answer = inference.predict_rows("5m", golden)
                    bars = inference.predict_bars("5m", bundles[0].golden_bars, last=1)
                except InferenceError as error:
                    wrong.append(str(error))
                    return
                if answer.frame["prediction"].to_list() != expected[answer.bundle]:
                    wrong.append(f"{answer.bundle} answered another bundle's rows")
                newest = bars.frame["prediction"].to_list()
                if newest != expected[bars.bundle][-len(newest) :]:
                    wrong.append(f"{bars.bundle} answered another bundle's bars")
                seen.add(answer.bundle)

    askers = [threading.Thread(target=ask) for _ in range(4)]
    for asker in askers:
        asker.start()
    with Inference(url) as inference:
        for number in range(10):
            registry.promote("5m", bundles[(number + 1) % 2].id, f"swap {number}")
            inference.load("5m")
            time.sleep(0.02)
    stop.set()
    for asker in askers:
        asker.join()
    assert wrong == []
    assert seen == {bundle.id for bundle in bundles}


@pytest.mark.parametrize("file", ["model.txt", "forest.safetensors", "golden.parquet", "manifest.json"])
def test_a_damaged_bundle_leaves_the_old_one_serving_and_says_why(
    inference: Inference, registry: Registry, bundles: list[Bundle], file: str
) -> None:
    target = registry.path("5m", bundles[1].id) / file
    data = bytearray(target.read_bytes())
    data[len(data) // 2] ^= 1
    target.write_bytes(data[:-100] if file == "manifest.json" else data)  # a flipped bit there may be in a number
    registry.promote("5m", bundles[1].id, "damaged")
    with pytest.raises(InferenceError, match=re.escape(file)) as caught:
        inference.load("5m")
    assert caught.value.problem["status"] == 409
    assert caught.value.problem["serving"] == bundles[0].id
    answer = inference.predict_rows("5m", bundles[0].golden.drop("prediction"))
    assert answer.bundle == bundles[0].id
    health = inference.health()
    assert health["status"] == "degraded"
    assert bundles[1].id in health["horizons"]["5m"]["problem"]


def test_a_half_copied_bundle_is_refused_and_served_once_it_is_whole(
    inference: Inference, registry: Registry, bundles: list[Bundle], tmp_path: Path
) -> None:
    missing = registry.path("5m", bundles[1].id) / "golden_bars.parquet"
    registry.promote("5m", bundles[1].id, "being copied")
    shutil.move(missing, tmp_path / "later")
    with pytest.raises(InferenceError, match=r"golden_bars\.parquet"):
        inference.load("5m")
    shutil.move(tmp_path / "later", missing)
    assert inference.load("5m")["bundle"] == bundles[1].id
    assert inference.health()["status"] == "serving"


def test_a_bundle_that_fails_its_golden_data_is_refused(
    inference: Inference, registry: Registry, bundles: list[Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    predict = Bundle.predict_rows
    monkeypatch.setattr(
        Bundle,
        "predict_rows",
        lambda self, *given: predict(self, *given) + (1.0 if self.id == bundles[1].id else 0.0),
    )
    registry.promote("5m", bundles[1].id, "its operators changed")
    with pytest.raises(InferenceError, match="differ from LightGBM's"):
        inference.load("5m")
    assert inference.models()[0]["bundle"] == bundles[0].id


def test_a_damaged_ledger_leaves_the_bundle_serving(
    inference: Inference, registry: Registry, bundles: list[Bundle], tmp_path: Path
) -> None:
    file = tmp_path / "registry" / "5m" / "ledger" / "000002.json"
    file.write_text("{")
    with pytest.raises(InferenceError, match=r"000002\.json.* serves on"):
        inference.load("5m")
    assert inference.models()[0]["bundle"] == bundles[0].id
    assert "000002.json is damaged" in inference.health()["horizons"]["5m"]["problem"]
    file.rename(file.with_name("000002.json.damaged"))
    with pytest.raises(InferenceError, match=r"entry 2 of 5m is set aside.* serves on"):
        inference.load("5m")
    assert registry.promote("5m", bundles[1].id, "decided anew").number == 3
    assert inference.load("5m")["bundle"] == bundles[1].id
    assert inference.health()["horizons"]["5m"]["problem"] is None


def test_the_service_follows_the_ledger_without_being_told(
    registry: Registry, bundles: list[Bundle], tmp_path: Path, serve: Serve
) -> None:
    with serve(tmp_path, follow_seconds=0.05) as url, Inference(url) as inference:
        inference.wait_ready(30)
        registry.promote("5m", bundles[1].id, "better")
        until = time.monotonic() + 20
        while inference.models()[0]["bundle"] != bundles[1].id:
            assert time.monotonic() < until
            time.sleep(0.05)


def test_one_horizon_that_fails_does_not_keep_the_others_from_serving(
    registry: Registry, tmp_path: Path, serve: Serve
) -> None:
    broken = tmp_path / "registry" / "1h" / "ledger"
    broken.mkdir(parents=True)
    (broken / "000001.json").write_text("not JSON")
    with serve(tmp_path) as url, Inference(url) as inference:
        inference.wait_ready(30)
        health = inference.health()
    assert health["horizons"]["1h"]["status"] == "refused"
    assert health["horizons"]["5m"]["status"] == "serving"


def test_a_horizon_added_later_needs_no_restart(
    url: str, registry: Registry, bundles: list[Bundle], tmp_path: Path
) -> None:
    with httpx.Client(base_url=url) as client:
        assert client.get("/models/30m").status_code == 404
        (tmp_path / "registry" / "30m").mkdir()
        assert client.get("/models/30m").json()["status"] == "empty"
        assert client.post("/models/30m/load").status_code == 409
