"""What the service answers: exactly what LightGBM and the pipeline say, whichever way it is asked."""

from datetime import UTC, datetime

import httpx
import lightgbm as lgb
import numpy as np
import polars as pl
import pytest

from quant.bundle import Bundle
from resources.inference import Inference


@pytest.fixture(scope="module")
def factor_rows(bundles: list[Bundle], bars: pl.DataFrame) -> pl.DataFrame:
    """The factor table as a backfill over the whole history gives it."""
    keys, X = bundles[0].recipe.rows(bars)
    columns = {name: pl.Series(X[:, number]) for number, name in enumerate(bundles[0].factors)}
    return keys.with_columns(**columns)


def test_predictions_from_rows_are_those_of_lightgbm(
    inference: Inference, bundles: list[Bundle], factor_rows: pl.DataFrame
) -> None:
    answer = inference.predict_rows("5m", factor_rows)
    X = factor_rows.select(bundles[0].factors).to_numpy().astype(np.float64)
    expected = lgb.Booster(model_str=bundles[0].text).predict(X)
    np.testing.assert_allclose(answer.frame["prediction"].to_numpy(), expected, rtol=1e-12, atol=1e-12)
    assert answer.bundle == bundles[0].id
    assert answer.number == 1


def test_predictions_arrive_with_every_bit(
    inference: Inference, bundles: list[Bundle], factor_rows: pl.DataFrame
) -> None:
    X = factor_rows.select(bundles[0].factors).to_numpy()
    answer = inference.predict_rows("5m", factor_rows).frame["prediction"].to_numpy()
    assert answer.tobytes() == bundles[0].predict_rows(np.ascontiguousarray(X)).tobytes()


def test_bars_and_factor_rows_give_the_same_prediction_for_every_bar_of_a_day(
    inference: Inference, bundles: list[Bundle], bars: pl.DataFrame, factor_rows: pl.DataFrame
) -> None:
    day = pl.col("timestamp").dt.date() == datetime(2023, 11, 29).date()
    rows = factor_rows.filter(day)
    expected = inference.predict_rows("5m", rows).frame
    slots = np.unique(bundles[0].recipe.grid.slots(datetime(2023, 11, 20).date(), datetime(2023, 11, 29).date()))
    found = []
    for slot in rows["timestamp"].unique().sort():
        place = int(np.searchsorted(slots, np.datetime64(slot.replace(tzinfo=None), "us")))
        first = slots[place - bundles[0].recipe.lookback].item().replace(tzinfo=UTC)
        window = bars.filter(pl.col("timestamp").is_between(first, slot))
        found.append(inference.predict_bars("5m", window).frame)
    assert rows["timestamp"].n_unique() == 78
    assert pl.concat(found).equals(expected)


def test_the_newest_slots_are_predicted_together_as_one_by_one(
    inference: Inference, bars: pl.DataFrame, factor_rows: pl.DataFrame
) -> None:
    newest = factor_rows["timestamp"].unique().sort()[-5:]
    expected = inference.predict_rows("5m", factor_rows.filter(pl.col("timestamp").is_in(newest.implode())))
    answer = inference.predict_bars("5m", bars, last=5)
    assert answer.frame.equals(expected.frame)


def test_coverage_is_the_share_of_factors_with_a_value(client: httpx.Client) -> None:
    body = client.get("/models/5m/example").json()
    row = body["rows"][0]
    row["factors"] = dict.fromkeys(row["factors"], 0.5)
    row["factors"]["momentum"] = None
    [prediction] = client.post("/predict", json=body).raise_for_status().json()["predictions"]
    assert prediction["coverage"] == pytest.approx(2 / 3)
    assert prediction["symbol"] == row["symbol"]
    assert prediction["timestamp"] == row["timestamp"]


def test_the_example_is_a_request_that_is_answered(client: httpx.Client, bundles: list[Bundle]) -> None:
    answer = client.post("/predict", json=client.get("/models/5m/example").json()).raise_for_status().json()
    golden = bundles[0].golden.row(-1, named=True)
    assert answer["predictions"][0]["prediction"] == pytest.approx(golden["prediction"], rel=1e-9)
    assert datetime.fromisoformat(answer["predictions"][0]["timestamp"]) == golden["timestamp"]


def test_the_newest_section_of_the_golden_data_is_predicted(client: httpx.Client, bundles: list[Bundle]) -> None:
    golden = bundles[0].golden.filter(pl.col("timestamp") == pl.col("timestamp").max())
    example = client.get("/models/5m/example?section=true").json()
    answer = client.post("/predict", json=example).json()["predictions"]
    assert [row["symbol"] for row in answer] == golden["symbol"].to_list()
    np.testing.assert_allclose([row["prediction"] for row in answer], golden["prediction"], rtol=1e-9)


def test_a_symbol_declared_absent_need_not_be_sent(inference: Inference, bars: pl.DataFrame) -> None:
    answer = inference.predict_bars("5m", bars.filter(pl.col("symbol") != "DDD"), absent=["DDD"])
    assert "DDD" not in answer.frame["symbol"]
    assert answer.frame.height >= 2


def test_stamps_in_another_zone_mean_the_same_instant(client: httpx.Client) -> None:
    body = client.get("/models/5m/example").json()
    body["rows"][0]["timestamp"] = "2023-11-30T10:00:00-05:00"
    [prediction] = client.post("/predict", json=body).raise_for_status().json()["predictions"]
    assert datetime.fromisoformat(prediction["timestamp"]) == datetime(2023, 11, 30, 15, tzinfo=UTC)
