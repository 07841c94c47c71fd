"""Every refusal is a problem document that says where the trouble is and what to do."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest

from quant.bundle import Bundle
from resources.inference import Inference, InferenceError
from resources.registry import Registry
from serving.options import read

Serve = Callable[..., AbstractContextManager[str]]


def refused(response: httpx.Response, status: int) -> dict[str, Any]:
    """The document of a refusal, after checking that it is one."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    document = response.json()
    assert document["status"] == status
    assert document["correlation_id"] == response.headers["x-correlation-id"]
    return document


@pytest.fixture
def body(client: httpx.Client) -> dict[str, Any]:
    return client.get("/models/5m/example").json()


def test_a_misspelt_factor_is_named_with_its_row_and_the_nearest_name(client: httpx.Client, body: dict) -> None:
    good = body["rows"][0]
    wrong = {**good, "factors": {**good["factors"], "momentun": 1.0}}
    del wrong["factors"]["momentum"]
    body["rows"] = [good, wrong]
    document = refused(client.post("/predict", json=body), 422)
    first = document["errors"][0]
    assert (first["field"], first["row"], first["nearest"]) == ("rows[1].factors.momentun", 1, "momentum")
    assert first["pointer"] == "#/rows/1/factors/momentun"
    assert document["error_count"] == 2  # momentum is missing, too


def test_a_missing_factor_must_be_sent_as_null(client: httpx.Client, body: dict) -> None:
    del body["rows"][0]["factors"]["momentum"]
    document = refused(client.post("/predict", json=body), 422)
    assert document["errors"][0]["field"] == "rows[0].factors.momentum"
    assert "null" in document["detail"]


@pytest.mark.parametrize("value", ["1.5", True, [1]])
def test_what_is_no_number_is_never_taken_for_one(client: httpx.Client, body: dict, value: object) -> None:
    body["rows"][0]["factors"]["momentum"] = value
    document = refused(client.post("/predict", json=body), 422)
    assert document["errors"][0]["field"] == "rows[0].factors.momentum"


def test_nan_is_not_json_and_is_refused(client: httpx.Client) -> None:
    sent = b'{"horizon": "5m", "rows": [{"factors": {"momentum": NaN}}]}'
    document = refused(client.post("/predict", content=sent, headers={"content-type": "application/json"}), 422)
    assert document["errors"][0]["field"] == "rows[0].factors.momentum"


def test_an_unknown_key_is_refused(client: httpx.Client, body: dict) -> None:
    document = refused(client.post("/predict", json={**body, "horizn": "5m"}), 422)
    assert document["errors"][0]["field"] == "horizn"


def test_rows_and_bars_together_are_refused(client: httpx.Client, body: dict) -> None:
    assert "either" in refused(client.post("/predict", json={**body, "bars": []}), 422)["detail"]


def test_an_unknown_horizon_is_answered_with_the_nearest(client: httpx.Client, body: dict) -> None:
    document = refused(client.post("/predict", json={**body, "horizon": "5min"}), 404)
    assert document["nearest"] == "5m"
    refused(client.post("/models/5min/load"), 404)
    refused(client.get("/models/..%2F..%2Fetc"), 404)


def test_a_horizon_without_a_model_says_how_to_train_one(tmp_path: Path, serve: Serve) -> None:
    with serve(tmp_path, horizons=("1h",)) as url, httpx.Client(base_url=url) as client:
        response = client.post("/predict", json={"horizon": "1h", "rows": [{"factors": {}}]})
        assert "tenor run horizon=1h" in refused(response, 503)["detail"]
        assert int(response.headers["retry-after"]) > 0
        assert "tenor run horizon=1h" in refused(client.post("/models/1h/load"), 409)["detail"]
        assert client.get("/ready").status_code == 503
        assert client.get("/health").json()["status"] == "empty"


def test_missing_symbols_of_the_section_are_named(inference: Inference, bars: pl.DataFrame) -> None:
    with pytest.raises(InferenceError, match=r"CCC, DDD") as caught:
        inference.predict_bars("5m", bars.filter(pl.col("symbol").is_in(["AAA", "BBB"])))
    assert caught.value.problem["status"] == 422


def test_too_little_look_back_is_refused_because_it_would_give_other_values(
    inference: Inference, bundles: list[Bundle], bars: pl.DataFrame
) -> None:
    need = bundles[0].recipe.lookback
    newest = bars["timestamp"].unique().sort()[-need:]
    with pytest.raises(InferenceError, match=f"{need} slots of look-back") as caught:
        inference.predict_bars("5m", bars.filter(pl.col("timestamp").is_in(newest.implode())))
    assert caught.value.problem["look_back"] == need


def test_an_unknown_symbol_is_named_with_its_row(inference: Inference, bars: pl.DataFrame) -> None:
    wrong = bars.with_columns(symbol=pl.when(pl.int_range(pl.len()) == 3).then(pl.lit("AAB")).otherwise("symbol"))
    with pytest.raises(InferenceError) as caught:
        inference.predict_bars("5m", wrong)
    [error] = caught.value.problem["errors"]
    assert (error["field"], error["row"], error["nearest"]) == ("bars[3].symbol", 3, "AAA")


def test_a_bar_off_the_grid_is_named_with_its_row(inference: Inference, bars: pl.DataFrame) -> None:
    late = pl.when(pl.int_range(pl.len()) == 5).then(pl.duration(minutes=1)).otherwise(pl.duration())
    with pytest.raises(InferenceError, match="not the start of a 5m bar") as caught:
        inference.predict_bars("5m", bars.with_columns(timestamp=pl.col("timestamp") + late))
    assert caught.value.problem["errors"][0]["row"] == 5


def test_a_bar_sent_twice_is_named_with_its_row(inference: Inference, bars: pl.DataFrame) -> None:
    with pytest.raises(InferenceError, match="sent before") as caught:
        inference.predict_bars("5m", pl.concat([bars, bars.head(1)]))
    [error] = caught.value.problem["errors"]
    assert (error["row"], error["field"]) == (bars.height, f"bars[{bars.height}].timestamp")


ORDER = "ohlc_order: high is not the highest or low not the lowest price"


@pytest.mark.parametrize(
    ("changes", "told", "field"),
    [
        ({"high": pl.col("low") / 2}, f"{ORDER} (high, low)", "high"),
        ({"low": pl.col("high") + 1}, f"{ORDER} (high, low)", "high"),
        ({"open": pl.col("high") + 1}, ORDER, "high"),
        ({"close": pl.lit(0.0)}, "non_positive: a price is zero or below", "close"),
        ({"open": pl.lit(-1.0), "low": pl.lit(-1.0)}, "non_positive: a price is zero or below (open, low)", "open"),
        ({"volume": pl.lit(-1.0)}, "negative_volume: the volume is below zero", "volume"),
    ],
)  # fmt: skip
def test_a_bar_that_breaks_a_rule_is_told_by_its_fields(
    inference: Inference, bars: pl.DataFrame, changes: dict[str, pl.Expr], told: str, field: str
) -> None:
    here = pl.int_range(pl.len()) == 7
    wrong = bars.with_columns(**{name: pl.when(here).then(value).otherwise(name) for name, value in changes.items()})
    with pytest.raises(InferenceError) as caught:
        inference.predict_bars("5m", wrong)
    assert caught.value.problem["status"] == 422
    [error] = caught.value.problem["errors"]
    assert (error["row"], error["pointer"], error["detail"]) == (7, f"#/bars/7/{field}", told)


def test_a_column_that_the_expressions_read_must_be_sent(
    tmp_path: Path, bars: pl.DataFrame, train_bundle: Callable[..., Bundle], serve: Serve
) -> None:
    made = train_bundle(bars.with_columns(vwap=pl.col("close") * 0.99), {"premium": "close / vwap - 1"}, ("vwap",))
    registry = Registry(tmp_path)
    registry.write(made, {})
    registry.promote("5m", made.id, "first")
    with serve(tmp_path) as url, Inference(url) as inference:
        inference.wait_ready(30)
        assert inference.predict_bars("5m", made.golden_bars).frame["coverage"].min() == 1.0
        with pytest.raises(InferenceError, match="read column 'vwap'") as caught:
            inference.predict_bars("5m", made.golden_bars.rename({"vwap": "vwop"}))
    assert caught.value.problem["errors"][0]["field"] == "bars[0].vwap"
    assert caught.value.problem["errors"][0]["nearest"] == "vwop"


def test_a_stamp_without_a_zone_is_refused(client: httpx.Client) -> None:
    bar = {"symbol": "AAA", "timestamp": "2023-11-30T14:30:00", "open": 1, "high": 1, "low": 1, "close": 1}
    document = refused(client.post("/predict", json={"horizon": "5m", "bars": [bar]}), 422)
    assert document["errors"][0]["field"] == "bars[0].timestamp"
    assert "timezone" in document["detail"]


def test_too_many_rows_are_refused(client: httpx.Client) -> None:
    document = refused(
        client.post("/predict", json={"horizon": "5m", "rows": [{"factors": {}}] * (read().limits.rows + 1)}), 422
    )
    assert document["errors"][0]["field"] == "rows"


@pytest.mark.parametrize("streamed", [False, True])
def test_a_body_too_large_is_refused_before_it_is_read(client: httpx.Client, streamed: bool) -> None:
    limit = read().limits.body_mib * 2**20
    size = limit + 1
    content = (b" " * 2**20 for _ in range(size // 2**20 + 1)) if streamed else b" " * size
    document = refused(client.post("/predict", content=content, headers={"content-type": "application/json"}), 413)
    assert document["limit_bytes"] == limit


def test_other_http_errors_are_problem_documents_too(client: httpx.Client) -> None:
    refused(client.get("/nowhere"), 404)
    refused(client.get("/predict"), 405)
    refused(client.post("/predict", content="{", headers={"content-type": "application/json"}), 400)
    assert "content-type" in refused(client.post("/predict", content="{}"), 415)["detail"]


def test_a_broken_handler_answers_with_a_document_and_no_secrets(
    client: httpx.Client, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.views.health", lambda *_: 1 / 0)
    document = refused(client.get("/health", headers={"x-correlation-id": "mine-1"}), 500)
    assert document["correlation_id"] == "mine-1"
    assert "division" not in str(document)
