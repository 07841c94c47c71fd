"""Swaps under load, some of them to broken bundles: no request fails, and no answer is another bundle's."""

import http.client
import json
import threading
import time
from dataclasses import replace
from urllib.parse import urlsplit

import numpy as np
import polars as pl
import pytest

from quant.bundle import Bundle, identity
from resources.inference import Inference, InferenceError
from resources.registry import Registry

SWAPS, ASKERS, PAUSE = 20, 8, 0.008  # about a thousand requests a second
PATH = "/v2/models/5m/infer"


class Asker:
    """Asks for the same rows over one connection until it is told to stop, and judges every answer."""

    def __init__(self, url: str, X: np.ndarray, expected: dict[str, list[float]]) -> None:
        self.troubles: list[str] = []
        self.seconds: list[float] = []
        self.bundles: set[str] = set()
        tensor = {"name": "factors", "shape": list(X.shape), "datatype": "FP32", "data": X.astype(float).tolist()}
        self._body = json.dumps({"inputs": [tensor]})
        self._address = urlsplit(url).netloc
        self._expected = expected

    def run(self, stop: threading.Event) -> None:
        connection = http.client.HTTPConnection(self._address, timeout=30)
        while not stop.is_set():
            began = time.perf_counter()
            try:
                connection.request("POST", PATH, self._body)
                response = connection.getresponse()
                text = response.read()
            except (OSError, http.client.HTTPException) as error:
                self.troubles.append(f"no answer: {error!r}")
                return
            self.seconds.append(time.perf_counter() - began)
            self._judge(response.status, text)
            time.sleep(PAUSE)
        connection.close()

    def _judge(self, status: int, text: bytes) -> None:
        if status != 200:
            self.troubles.append(f"{status}: {text.decode()}")
            return
        answer = json.loads(text)
        bundle = answer["parameters"]["bundle"]
        self.bundles.add(bundle)
        if answer["outputs"][0]["data"] != self._expected.get(bundle):
            self.troubles.append(f"{bundle} answered something else: {text.decode()}")


def broken(registry: Registry, bundle: Bundle, number: int) -> str:
    """The id of a bundle in the registry that must be refused: damaged, or with golden predictions of another."""
    digests = {**bundle.manifest["digests"], "config": f"broken {number}"}
    manifest = {**bundle.manifest, "digests": digests, "id": identity(digests)}
    golden = bundle.golden if number % 2 else bundle.golden.with_columns(prediction=pl.col("prediction") + 1.0)
    id = registry.write(replace(bundle, manifest=manifest, golden=golden), {})
    if number % 2:
        file = registry.path("5m", id) / "forest.safetensors"
        file.write_bytes(file.read_bytes()[:-1])
    return id


@pytest.mark.slow
def test_swaps_under_load_fail_no_request_and_mix_no_bundles(
    url: str, registry: Registry, bundles: list[Bundle]
) -> None:
    X = np.ascontiguousarray(bundles[0].golden.select(bundles[0].factors).to_numpy(), np.float32)[:3]
    expected = {bundle.id: bundle.predict_rows(X).tolist() for bundle in bundles}
    assert expected[bundles[0].id] != expected[bundles[1].id]
    askers = [Asker(url, X, expected) for _ in range(ASKERS)]
    stop = threading.Event()
    threads = [threading.Thread(target=asker.run, args=(stop,)) for asker in askers]
    for thread in threads:
        thread.start()
    refused = 0
    try:
        with Inference(url) as inference:
            for number in range(SWAPS):
                if number % 5 == 4:
                    registry.promote("5m", broken(registry, bundles[0], number), "broken")
                    with pytest.raises(InferenceError, match="is refused"):
                        inference.load("5m")
                    refused += 1
                else:
                    wanted = bundles[(number + 1) % 2].id
                    registry.promote("5m", wanted, f"swap {number}")
                    assert inference.load("5m")["bundle"] == wanted
                time.sleep(0.1)
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)
    assert [trouble for asker in askers for trouble in asker.troubles] == []
    assert refused == SWAPS // 5
    assert set.union(*(asker.bundles for asker in askers)) == set(expected)
    assert sum(len(asker.seconds) for asker in askers) > 1_000
