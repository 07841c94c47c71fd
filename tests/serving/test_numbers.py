"""Numbers beyond float32 are infinite, as in the pipeline: no warning of numpy's comes of them, and no error."""

import warnings
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest

from quant.bundle import Bundle
from resources.inference import Inference
from resources.lake import Lake
from resources.registry import Registry
from tests.serving.conftest import Serve
from tests.serving.feed import until
from tests.serving.test_openapi import LAYOUT, body_of, changed


@pytest.mark.parametrize("value", [1e39, 1e308])
def test_numbers_beyond_float32_are_answered_without_a_warning(
    tmp_path: Path, registry: Registry, bundles: list[Bundle], bars: pl.DataFrame, serve: Serve, value: float
) -> None:
    rows = bars.with_columns(bars["timestamp"].dt.strftime("%Y-%m-%d").alias("partition"))
    Lake(f"{tmp_path}/lake").write("bars/5m", [rows], rows["partition"].unique().to_list(), LAYOUT)
    with serve(tmp_path) as url, httpx.Client(base_url=url, timeout=30) as client:
        with Inference(url) as inference:
            inference.wait_ready(30)
        until(lambda: client.get("/signals/5m").status_code == 200)  # the live state stands
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for route, place in (
                ("/predict", ("rows", 0, "factors", "momentum")),
                ("/v2/models/5m/infer", ("inputs", 0, "data", 0)),
            ):
                body = changed(body_of(route, client, bundles[0]), place, value)
                assert client.post(route, json=body).status_code == 200
            sent = body_of("/predict from bars", client, bundles[0])
            assert client.post("/predict", json=priced(sent, value)).status_code == 200
            answer = client.post("/bars", json=priced(body_of("/bars", client, bundles[0]), value))
            assert answer.status_code == 422
            assert "kept apart" in answer.json()["detail"]


def priced(body: dict[str, Any], price: float) -> dict[str, Any]:
    """The bars of the body's newest slot at another price."""
    newest = max(bar["timestamp"] for bar in body["bars"])
    prices = dict.fromkeys(("open", "high", "low", "close"), price)
    return {**body, "bars": [{**bar, **prices} if bar["timestamp"] == newest else bar for bar in body["bars"]]}
