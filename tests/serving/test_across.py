"""A model that reads another horizon is served from the bars of both, or says which ones are missing."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import UTC, date, datetime
from pathlib import Path

import httpx
import numpy as np
import polars as pl
import pytest

from quant.across import NEWEST, Other
from quant.bundle import Bundle, BundleError
from quant.grid import CalendarSpec, Grid
from quant.inputs import names
from quant.recipe import Recipe
from quant.resample import resample
from resources.inference import Inference, InferenceError
from resources.registry import Registry

Serve = Callable[..., AbstractContextManager[str]]
Train = Callable[..., Bundle]

FEATURES = {
    "momentum": "close / lag(close, 6) - 1",
    "stretch": 'close / at("1h", trend) - 1',
    "slow": 'at("1h", close / lag(close, 2) - 1)',
}
FACTORS = {
    "momentum": "momentum",
    "stretch": "stretch",
    "slow_rank": "mean(rank(slow), 3)",
    "hour": 'rank(at("1h", volume))',
}
HOUR = Other(CalendarSpec("XNYS"), "1h", names(), {"trend": "mean(close, 5)"})
FIVE = Grid(CalendarSpec("XNYS"), "5m")


def recipe() -> Recipe:
    symbols = ("AAA", "BBB", "CCC", "DDD")
    return Recipe(FIVE.calendar, "5m", symbols, names(), FEATURES, FACTORS, others={"1h": HOUR})


@pytest.fixture(scope="module")
def hours(bars: pl.DataFrame) -> pl.DataFrame:
    """The hourly bars of the same market."""
    return resample(bars, FIVE, HOUR.grid).sort("timestamp", "symbol")


@pytest.fixture(scope="module")
def bundle(bars: pl.DataFrame, hours: pl.DataFrame, train_across: Train) -> Bundle:
    return train_across(recipe(), bars, {"1h": hours})


@pytest.fixture
def inference(bundle: Bundle, tmp_path: Path, serve: Serve) -> Iterator[Inference]:
    registry = Registry(tmp_path)
    registry.write(bundle, {})
    registry.promote("5m", bundle.id, "reads 1h")
    with serve(tmp_path) as address, Inference(address) as made:
        made.wait_ready(30)
        yield made


def test_bars_of_both_horizons_give_the_prediction_of_the_whole_history_for_every_bar_of_a_day(
    inference: Inference, bundle: Bundle, bars: pl.DataFrame, hours: pl.DataFrame
) -> None:
    keys, X = bundle.recipe.rows(bars, others={"1h": hours})
    whole = keys.with_columns(expected=bundle.predict_rows(X))
    slots = FIVE.slots(date(2023, 11, 20), date(2023, 11, 29))
    for slot in slots[-78::7]:
        at = int(np.searchsorted(slots, slot))
        ours = between(bars, slots[at - bundle.recipe.lookback], slot)
        wanted = bundle.recipe.needs(ours, 1)["1h"]
        answer = inference.predict_bars("5m", ours, at={"1h": between(hours, wanted[0], wanted[-1])}).frame
        expected = whole.filter(pl.col("timestamp") == pl.lit(slot).dt.replace_time_zone("UTC"))
        assert answer["symbol"].to_list() == expected["symbol"].to_list()
        assert answer["prediction"].to_numpy().tobytes() == expected["expected"].to_numpy().tobytes()
    assert whole["expected"].n_unique() > 10


def between(bars: pl.DataFrame, first: np.datetime64, last: np.datetime64) -> pl.DataFrame:
    start, end = (slot.astype("datetime64[us]").item().replace(tzinfo=UTC) for slot in (first, last))
    return bars.filter(pl.col("timestamp").is_between(start, end))


def test_the_model_says_what_it_reads_and_its_example_is_answered(inference: Inference, bundle: Bundle) -> None:
    [model] = inference.models()
    assert model["at"] == {
        "1h": {
            "interval": "1h",
            "calendar": "XNYS",
            "look_back": bundle.recipe.reach["1h"],
            "columns": ["close", "volume"],
        }
    }
    assert bundle.recipe.reach["1h"] == 4 + NEWEST - 1
    with httpx.Client(base_url=inference.url, trust_env=False) as client:
        example = client.get("/models/5m/example").json()
        assert client.post("/predict", json=example).raise_for_status().json()["predictions"]


def test_bars_without_those_of_the_other_horizon_are_refused_with_the_span_that_is_needed(
    inference: Inference, bundle: Bundle, bars: pl.DataFrame, hours: pl.DataFrame
) -> None:
    needed = bundle.recipe.needs(bars, 1)["1h"]
    span = f"from {needed[0]} to {needed[-1]}"
    with pytest.raises(InferenceError, match=f"bars of horizon 1h too: send them, {span}") as caught:
        inference.predict_bars("5m", bars)
    assert caught.value.problem["status"] == 422
    short = between(hours, needed[1], needed[-1])
    stale = between(hours, needed[0], needed[-2])
    for wrong in (short, stale):
        with pytest.raises(InferenceError, match=f"the bars of horizon 1h {span}, the newest that had closed"):
            inference.predict_bars("5m", bars, at={"1h": wrong})
    one = hours.filter(pl.col("symbol") != "BBB")
    with pytest.raises(InferenceError, match="bars of horizon 1h are missing for BBB"):
        inference.predict_bars("5m", bars, at={"1h": one})
    answer = inference.predict_bars("5m", bars, at={"1h": one}, absent=["BBB"]).frame
    assert answer.filter(pl.col("symbol") == "BBB")["coverage"].item() < 1


def test_wrong_bars_of_the_other_horizon_are_named_with_their_place(
    inference: Inference, bars: pl.DataFrame, hours: pl.DataFrame
) -> None:
    late = pl.when(pl.int_range(pl.len()) == 5).then(pl.duration(minutes=5)).otherwise(pl.duration())
    with pytest.raises(InferenceError, match="not the start of a 1h bar") as caught:
        inference.predict_bars("5m", bars, at={"1h": hours.with_columns(timestamp=pl.col("timestamp") + late)})
    [error] = caught.value.problem["errors"]
    assert (error["field"], error["pointer"]) == ("at.1h[5].timestamp", "#/at/1h/5/timestamp")
    with pytest.raises(InferenceError, match="reads no bars of horizon '1d', only of 1h"):
        inference.predict_bars("5m", bars, at={"1d": hours})
    low = pl.when(pl.int_range(pl.len()) == 2).then(pl.col("low") / 2).otherwise("high")
    with pytest.raises(InferenceError, match=r"at\.1h\[\d+\]\.high: "):
        inference.predict_bars("5m", bars, at={"1h": hours.with_columns(high=low)})


def test_a_model_that_reads_no_other_horizon_takes_none(url: str, bars: pl.DataFrame, hours: pl.DataFrame) -> None:
    with Inference(url) as plain, pytest.raises(InferenceError, match="reads no bars of horizon '1h', nor of any"):
        plain.predict_bars("5m", bars, at={"1h": hours})


def test_a_bundle_without_the_other_horizons_golden_bars_is_incomplete(bundle: Bundle) -> None:
    files = bundle.to_files()
    assert Bundle.from_files(files).to_files() == files
    with pytest.raises(BundleError, match=r"missing golden_bars_1h\.parquet"):
        Bundle.from_files({name: data for name, data in files.items() if name != "golden_bars_1h.parquet"})
    with pytest.raises(BundleError, match=r"golden_bars_1h\.parquet is damaged"):
        Bundle.from_files(files | {"golden_bars_1h.parquet": files["golden_bars.parquet"]})


def test_the_golden_hours_are_part_of_what_a_bundle_proves(bundle: Bundle) -> None:
    bundle.verify()
    hours = bundle.golden_others["1h"]
    moved = hours.with_columns(close=pl.col("close") * pl.when(pl.col("symbol") == "CCC").then(1.001).otherwise(1.0))
    object.__setattr__(bundle, "golden_others", {"1h": moved})
    try:
        with pytest.raises(BundleError, match="factor stretch replays differently"):
            bundle.verify()
    finally:
        object.__setattr__(bundle, "golden_others", {"1h": hours})


def test_stamps_of_the_needed_hours_end_with_the_newest_closed_one(bundle: Bundle, bars: pl.DataFrame) -> None:
    newest = bars["timestamp"].max()
    assert isinstance(newest, datetime)
    needed = bundle.recipe.needs(bars, 1)["1h"]
    end = FIVE.ends(np.array([newest.replace(tzinfo=None)], "datetime64[us]"))[0]
    ends = HOUR.grid.ends(needed)
    assert ends[-1] <= end < ends[-1] + np.timedelta64(1, "h")
