"""Novelty and abstaining: in every kind of answer and in the log they are the bundle's own, to the bit."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import polars as pl
import pytest
import tritonclient.http as triton

from quant.bundle import Bundle
from resources.inference import Inference
from resources.registry import Registry
from serving.log_novelty import Measures
from serving.log_rows import frame, line
from tests.serving.conftest import Serve, random_bars, recipe, train
from tests.serving.test_live import LIVE, push, section, warm
from tests.serving.test_prediction_log import predictor, record

ABOVE = 0.6


@pytest.fixture(scope="module")
def cautious() -> Bundle:
    """A bundle that abstains."""
    return train(recipe(), random_bars(recipe()), seed=1, abstain_above=ABOVE)


def promoted(root: Path, bundle: Bundle) -> Registry:
    registry = Registry(root)
    registry.write(bundle, {})
    registry.promote("5m", bundle.id, "first")
    return registry


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory, cautious: Bundle, serve: Serve) -> Iterator[str]:
    root = tmp_path_factory.mktemp("novelty")
    promoted(root, cautious)
    with serve(root) as url:
        with Inference(url) as inference:
            inference.wait_ready(30)
        yield url


def rows(bundle: Bundle) -> np.ndarray:
    return np.ascontiguousarray(bundle.golden.select(bundle.factors).to_numpy())


def novelty(bundle: Bundle, X: np.ndarray) -> np.ndarray:
    found = bundle.novelty_of(X)
    assert found is not None
    return found


def test_the_golden_rows_hold_both_kinds(cautious: Bundle) -> None:
    found = novelty(cautious, rows(cautious)) > ABOVE
    assert 0 < found.sum() < len(found)


@pytest.mark.parametrize("count", [1, 8, 9, 30, 600])
def test_predict_tells_novelty_and_abstains_by_the_bundle_s_rule(address: str, cautious: Bundle, count: int) -> None:
    table = pl.concat([cautious.golden] * 30).head(count)
    with Inference(address) as inference:
        told = inference.predict_rows("5m", table.select("symbol", "timestamp", *cautious.factors)).frame
    X = np.ascontiguousarray(table.select(cautious.factors).to_numpy())
    expected = novelty(cautious, X)
    assert told["novelty"].to_numpy().tobytes() == expected.tobytes()
    assert told["abstained"].to_list() == (expected > np.float32(ABOVE)).tolist()
    assert told["prediction"].to_numpy().tobytes() == cautious.predict_rows(X).tobytes()  # told all the same


def infer(address: str, X: np.ndarray, outputs: list[str], binary: bool) -> Any:
    sent = triton.InferInput("factors", list(X.shape), "FP32")
    sent.set_data_from_numpy(X, binary_data=binary)
    asked = [triton.InferRequestedOutput(name, binary_data=binary) for name in outputs] or None
    with triton.InferenceServerClient(address.removeprefix("http://")) as client:
        return client.infer("5m", [sent], outputs=asked)


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("count", [1, 9])
def test_v2_has_a_second_output_that_says_where_it_abstained(
    address: str, cautious: Bundle, binary: bool, count: int
) -> None:
    X = rows(cautious)[-count:]
    expected = novelty(cautious, X) > np.float32(ABOVE)
    for outputs in ([], ["predictions", "abstained"], ["abstained"]):
        told = infer(address, X, outputs, binary)
        assert told.as_numpy("abstained").tolist() == expected.tolist()
        if outputs != ["abstained"]:
            assert told.as_numpy("predictions").tobytes() == cautious.predict_rows(X).tobytes()
    alone = infer(address, X, ["predictions"], binary)
    assert alone.as_numpy("abstained") is None
    assert alone.get_response()["parameters"]["abstained"] == str(expected.sum())


def test_v2_tells_of_the_output_in_its_metadata(address: str) -> None:
    told = httpx.get(f"{address}/v2/models/5m").json()
    assert [(one["name"], one["datatype"]) for one in told["outputs"]] == [
        ("predictions", "FP64"),
        ("abstained", "BOOL"),
    ]


def test_a_model_without_the_rule_has_one_output_and_never_abstains(url: str, bundles: list[Bundle]) -> None:
    X = rows(bundles[0])
    assert list(infer(url, X, [], False).get_response()["parameters"]) == ["bundle", "request"]
    assert [one["name"] for one in httpx.get(f"{url}/v2/models/5m").json()["outputs"]] == ["predictions"]
    with Inference(url) as inference:
        told = inference.predict_rows("5m", bundles[0].golden.select("symbol", "timestamp", *bundles[0].factors)).frame
    assert told["novelty"].to_numpy().tobytes() == novelty(bundles[0], X).tobytes()
    assert not told["abstained"].any()


def test_signals_of_a_section_tell_novelty_and_so_do_they_after_a_restart(
    tmp_path: Path, cautious: Bundle, serve: Serve, bars: pl.DataFrame
) -> None:
    promoted(tmp_path, cautious)
    plain = bars.with_columns(price_factor=pl.lit(1.0))
    stamp = plain["timestamp"].max()
    with serve(tmp_path, live=LIVE) as address, httpx.Client(base_url=address, timeout=30) as client:
        warm(client)
        push(client, plain)
        told = section(client, stamp)
    keys, X = cautious.recipe.rows(plain, 1)
    expected = dict(zip(keys["symbol"], novelty(cautious, X).tolist(), strict=True))
    assert {one["symbol"]: np.float32(one["novelty"]) for one in told["signals"]} == expected
    assert {one["symbol"]: one["abstained"] for one in told["signals"]} == {
        symbol: found > np.float32(ABOVE) for symbol, found in expected.items()
    }
    with serve(tmp_path, live=LIVE) as address, httpx.Client(base_url=address, timeout=30) as client:
        warm(client)
        assert section(client, stamp)["signals"] == told["signals"]


# -- the log -----------------------------------------------------------------------------------------------------------


def test_the_log_has_novelty_measured_from_the_logged_inputs(tmp_path: Path, cautious: Bundle) -> None:
    registry = promoted(tmp_path, cautious)
    one = record(predictor(cautious), rows=12)
    made = frame([line(one)], keep=True, measure=Measures(registry).get("5m", cautious.id))
    expected = novelty(cautious, one.X)
    assert made["novelty"].to_numpy().tobytes() == expected.tobytes()
    assert made["abstained"].to_list() == (expected > np.float32(ABOVE)).tolist()


def test_answers_of_a_bundle_that_is_gone_or_older_are_logged_without_novelty(
    tmp_path: Path, cautious: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    older = replace(cautious, novelty=None, manifest={**cautious.manifest, "novelty": None})
    measures = Measures(promoted(tmp_path, older))
    for id in (older.id, "0" * 16):
        made = frame([line(record(predictor(cautious)))], keep=True, measure=measures.get("5m", id))
        assert made.select("novelty", "abstained").null_count().row(0) == (2, 2)
        assert made["prediction"].null_count() == 0
    assert sum("novelty is not logged" in one.message for one in caplog.records) == 1
