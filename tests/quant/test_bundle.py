"""A bundle goes from bars to predictions by itself, proves it, and notices every kind of damage."""

import json
from dataclasses import replace
from datetime import date

import lightgbm as lgb
import numpy as np
import polars as pl
import pytest

from quant.bundle import FILES, MANIFEST, NOVELTY, Bundle, BundleError, identity
from quant.bundle_build import build, feature_statistics
from quant.folds import holdout
from quant.grid import CalendarSpec, Grid
from quant.inputs import bar_panel, names
from quant.novelty import fit as fit_novelty
from quant.panel import Panel
from quant.program import Program
from quant.recipe import Recipe, RecipeError
from quant.train import fit

SYMBOLS = ("AAA", "BBB", "CCC", "DDD", "EEE")
GRID = Grid(CalendarSpec("XNYS"), "30m")
FEATURES = {
    "back": "close / lag(close, 1) - 1",
    "trend": "mean(close, 5) / close - 1",
    "minute": "minute_of_session",
}
FACTORS = {"back": "back", "trend_rank": "rank(trend)", "wild": "std(back, 4)", "minute": "minute"}
DIGESTS = {"content": "a", "config": "b", "source": "c", "lock": "d"}


def make_bars(first: date = date(2024, 1, 2), last: date = date(2024, 1, 31), seed: int = 0) -> pl.DataFrame:
    """Bars of a random walk with a tenth of them missing, but the first and last slot whole."""
    rng = np.random.default_rng(seed)
    slots = GRID.slots(first, last)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.01, (len(slots), len(SYMBOLS))), axis=0))
    kept = rng.random(close.shape) > 0.1
    kept[[0, -1]] = True
    at, of = np.nonzero(kept)
    price = close[at, of]
    return pl.DataFrame(
        {
            "symbol": [SYMBOLS[column] for column in of],
            "timestamp": pl.Series(slots[at]).dt.replace_time_zone("UTC"),
            "open": price,
            "high": price * 1.01,
            "low": price * 0.99,
            "close": price,
            "volume": rng.integers(1, 1000, len(at)).astype(float),
            "source": "made up",
            "known_at": pl.Series(GRID.ends(slots)[at]).dt.replace_time_zone("UTC"),
            "price_factor": 1.0 + (of == 2),
            "volume_factor": 1.0,
        }
    )


def make_recipe(**changes: object) -> Recipe:
    whole = {"calendar": GRID.calendar, "interval": GRID.interval, "symbols": SYMBOLS, "columns": names()}
    return Recipe(**whole | {"features": FEATURES, "factors": FACTORS} | changes)


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    recipe, bars = make_recipe(), make_bars()
    keys, X = recipe.rows(bars)
    time = keys["timestamp"].dt.replace_time_zone(None).to_numpy()
    y = np.nan_to_num(X[:, 0]) + np.random.default_rng(1).normal(0, 0.01, len(X))
    split = holdout(time, time, valid=0.2, test=0.2, embargo=1)
    params = {"num_leaves": 7, "min_data_in_leaf": 5}
    trained = fit(
        X, y, split.train, split.valid, params, names=list(FACTORS), seeds=[1], rounds=30, early_stopping_rounds=10
    )  # fmt: skip
    newest = bars.filter(pl.col("timestamp") >= pl.lit(GRID.slots(date(2024, 1, 29), date(2024, 1, 29))[0])
                         .dt.replace_time_zone("UTC"))  # fmt: skip
    return build(
        horizon="30m",
        recipe=recipe,
        trained=trained,
        config={"interval": "30m"},
        label={"name": "forward_return", "text": "lead(close, 1) / close - 1", "lookahead": 1},
        digests=DIGESTS,
        golden_bars=newest,
        counts=split.counts,
        spans={},
        scores={"model": {"rank_ic": 0.1}},
        statistics=feature_statistics(X, list(FACTORS)),
        novelty=fit_novelty(
            X, list(FACTORS), split.train, GRID.numbers(time),
            columns=list(FACTORS), sample=100, neighbours=5, apart=recipe.lookback, seed=1,
        ),
        abstain_above=0.9,
    )  # fmt: skip


def test_a_recipe_computes_what_the_two_steps_of_the_pipeline_compute():
    bars, recipe = make_bars(), make_recipe()
    keys, X = recipe.rows(bars)
    slots = GRID.slots(date(2024, 1, 2), date(2024, 1, 31))
    features = Program.compile(FEATURES, names(), section=False)
    values = features.run(bar_panel(bars, GRID, slots, SYMBOLS, features.inputs))
    dense = pl.DataFrame(
        {
            "symbol": list(SYMBOLS) * len(slots),
            "timestamp": pl.Series(np.repeat(slots, len(SYMBOLS))).dt.replace_time_zone("UTC"),
            **{name: array.ravel() for name, array in values.items()},
        }
    )
    table = dense.join(bars.select("symbol", "timestamp"), on=["symbol", "timestamp"])  # rows where a bar is
    factors = Program.compile(FACTORS, (*names(), *FEATURES))
    expected = factors.run(Panel.from_frame(table, slots, SYMBOLS, list(FEATURES)))
    at = np.searchsorted(slots, keys["timestamp"].dt.replace_time_zone(None).to_numpy())
    of = np.array([SYMBOLS.index(symbol) for symbol in keys["symbol"]])
    assert at.min() == recipe.lookback
    assert keys.height == bars.filter(pl.col("timestamp").is_in(keys["timestamp"].unique().implode())).height
    for column, name in enumerate(FACTORS):
        assert X[:, column].tobytes() == expected[name][at, of].tobytes()


def test_the_newest_slot_alone_has_the_bits_of_the_whole_history():
    bars, recipe = make_bars(), make_recipe()
    keys, X = recipe.rows(bars)
    newest, latest = recipe.rows(bars, last=1)
    tail = len(newest)
    assert keys.tail(tail).equals(newest)
    assert X[-tail:].tobytes() == latest.tobytes()


def test_a_symbol_that_is_no_member_has_no_row_and_no_influence():
    left = date(2024, 1, 20)
    spans = [(symbol, date(2023, 1, 1), left if symbol == "BBB" else None) for symbol in SYMBOLS]
    recipe = make_recipe(members=tuple(spans))
    keys, X = recipe.rows(make_bars())
    assert keys.filter(pl.col("symbol") == "BBB")["timestamp"].max().date() <= left
    later = pl.Series(keys["timestamp"].dt.date() > date(2024, 1, 24)).to_numpy()
    wild = pl.col("close") * pl.col("volume")
    wrong = pl.when(pl.col("symbol") == "BBB").then(wild).otherwise("close")
    spoiled = make_bars().with_columns(close=wrong)
    assert X[later].tobytes() == recipe.rows(spoiled)[1][later].tobytes()


def test_a_recipe_survives_json():
    recipe = make_recipe(members=(("AAA", date(2024, 1, 1), None),))
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


def test_too_short_bars_are_refused_with_the_number_that_is_needed():
    recipe = make_recipe()
    few = make_bars().filter(pl.col("timestamp") > pl.col("timestamp").unique().sort().gather(-6).first())
    with pytest.raises(RecipeError, match=f"{recipe.lookback} slots of look-back.*send {recipe.lookback + 1}"):
        recipe.rows(few, last=1)


def test_a_missing_member_is_refused_unless_it_is_named_as_absent(bundle):
    bars = bundle.golden_bars.filter(pl.col("symbol") != "CCC")
    with pytest.raises(BundleError, match="CCC"):
        bundle.predict_bars(bars)
    predicted = bundle.predict_bars(bars, absent=["CCC"])
    assert predicted["symbol"].to_list() == ["AAA", "BBB", "DDD", "EEE"]
    with pytest.raises(BundleError, match="ZZZ"):
        bundle.predict_bars(bars.with_columns(symbol=pl.col("symbol").replace("AAA", "ZZZ")))


def test_without_factors_across_the_section_one_symbol_is_enough():
    recipe = make_recipe(factors={"back": "back"})
    keys, _ = recipe.rows(make_bars().filter(pl.col("symbol") == "BBB"), last=2)
    assert set(keys["symbol"]) == {"BBB"}


def test_a_symbol_that_factors_read_by_name_must_be_sent_with_the_others():
    features = {"back": "close / lag(close) - 1", "edge": 'back - of("BBB", back)'}
    recipe = make_recipe(features=features, factors={"edge": "edge"})
    bars = make_bars()
    pair = bars.filter(pl.col("symbol").is_in(["AAA", "BBB"]))
    keys, X = recipe.rows(pair, last=3)
    whole, values = recipe.rows(bars, last=3)
    of_pair = whole["symbol"].is_in(["AAA", "BBB"]).to_numpy()
    assert keys.equals(whole.filter(of_pair))
    np.testing.assert_array_equal(X, values[of_pair])
    alone = bars.filter(pl.col("symbol") == "AAA")
    with pytest.raises(RecipeError, match="read BBB by name: send its bars too"):
        recipe.rows(alone, last=3)
    assert np.isnan(recipe.rows(alone, last=3, absent=["BBB"])[1]).all()
    with pytest.raises(RecipeError, match="read SPY with of"):
        make_recipe(factors={"edge": 'of("SPY", close)'}).rows(bars, last=3)


def test_predictions_from_bars_are_those_of_lightgbm_on_the_factor_rows(bundle):
    predicted = bundle.predict_bars(bundle.golden_bars, last=None)
    assert predicted.columns == ["symbol", "timestamp", "prediction", "coverage"]
    assert predicted.select("symbol", "timestamp").equals(bundle.golden.select("symbol", "timestamp"))
    rows = np.stack([bundle.golden[name].to_numpy() for name in FACTORS], axis=1)
    expected = lgb.Booster(model_str=bundle.text).predict(rows)
    np.testing.assert_allclose(predicted["prediction"], expected, rtol=0, atol=1e-9 * np.abs(expected).max())
    np.testing.assert_array_equal(predicted["coverage"], 1 - np.isnan(rows).mean(axis=1))


def test_bars_may_come_without_what_only_the_table_knows_and_in_any_order(bundle):
    sent = bundle.golden_bars.drop("known_at", "source").sample(fraction=1.0, shuffle=True, seed=3)
    assert bundle.predict_bars(sent).equals(bundle.predict_bars(bundle.golden_bars))


def test_a_bad_bar_is_refused_with_its_symbol_time_and_reason(bundle):
    bad = bundle.golden_bars.with_columns(
        high=pl.when(pl.int_range(pl.len()) == 7).then(pl.col("low") / 2).otherwise("high")
    )
    with pytest.raises(BundleError, match=r"1 of \d+ bars are refused.*ohlc"):
        bundle.predict_bars(bad)


def test_a_bundle_survives_its_files_and_still_proves_itself(bundle):
    files = bundle.to_files()
    again = Bundle.from_files(files)
    assert again.to_files() == files
    assert again.id == identity(DIGESTS)
    again.verify()


@pytest.mark.parametrize("name", [*FILES, NOVELTY, MANIFEST])
def test_a_damaged_or_missing_file_is_named(bundle, name):
    files = bundle.to_files()
    with pytest.raises(BundleError, match=name):
        Bundle.from_files(files | {name: files[name][:-20]})
    with pytest.raises(BundleError, match=name):
        Bundle.from_files({other: data for other, data in files.items() if other != name})


def test_a_manifest_with_another_id_is_refused(bundle):
    with pytest.raises(BundleError, match="does not follow"):
        Bundle.from_files(replace(bundle, manifest={**bundle.manifest, "id": "0" * 16}).to_files())


def test_changed_operator_code_is_caught_by_the_golden_bars(bundle):
    changed = {**FACTORS, "wild": "std(back, 5)"}
    with pytest.raises(BundleError, match="rows"):
        replace(bundle, recipe=make_recipe(factors=changed)).verify()
    changed = {**FACTORS, "wild": "std(back, 4) * 1.0001"}
    with pytest.raises(BundleError, match=r"factor wild replays differently in \d+ of \d+"):
        replace(bundle, recipe=make_recipe(factors=changed)).verify()


def test_a_forest_that_is_not_the_models_or_answers_otherwise_is_caught(bundle):
    doubled = replace(bundle, forest=replace(bundle.forest, value=bundle.forest.value * 2))
    with pytest.raises(BundleError, match=r"forest\.safetensors"):
        doubled.verify()
    shifted = replace(bundle, golden=bundle.golden.with_columns(prediction=pl.col("prediction") * (1 + 1e-8)))
    with pytest.raises(BundleError, match="predictions differ"):
        shifted.verify()


def test_novelty_travels_with_the_bundle_and_is_proved_with_the_golden_rows(bundle):
    again = Bundle.from_files(bundle.to_files())
    rows = np.stack([bundle.golden[name].to_numpy() for name in FACTORS], axis=1)
    assert again.novelty_of(rows).tobytes() == bundle.golden_novelty.tobytes() == again.golden_novelty.tobytes()
    assert again.abstains_above == 0.9
    assert again.manifest["novelty"]["columns"] == list(FACTORS)
    shifted = replace(bundle, novelty=replace(bundle.novelty, centre=bundle.novelty.centre + 1))
    with pytest.raises(BundleError, match=r"novelty of \w+ at .* replays as"):
        shifted.verify()
    elsewhere = {**bundle.manifest, "device": "another"}
    near = replace(bundle, golden_novelty=bundle.golden_novelty + np.float32(0.01), manifest=elsewhere)
    near.verify()


def test_a_bundle_made_before_novelty_is_read_and_says_nothing_of_it(bundle):
    manifest = {name: value for name, value in bundle.manifest.items() if name != "novelty"}
    older = replace(bundle, manifest=manifest, novelty=None, golden_novelty=None)
    files = older.to_files()
    assert NOVELTY not in files
    again = Bundle.from_files(files)
    again.verify()
    assert again.novelty_of(again.golden_rows) is None
    assert again.abstains_above is None


def test_the_id_depends_on_each_digest_and_on_nothing_else():
    assert identity(DIGESTS) == identity(dict(reversed(DIGESTS.items())))
    others = {identity({**DIGESTS, name: "other"}) for name in DIGESTS}
    assert len(others | {identity(DIGESTS)}) == 5


def test_statistics_give_the_share_missing_and_the_quantiles():
    X = np.array([[0, np.nan], [1, np.nan], [2, np.nan], [np.nan, np.nan]], np.float32)
    found = feature_statistics(X, ["a", "b"], bins=2)
    assert found == {"a": {"missing": 0.25, "edges": [0, 1, 2]}, "b": {"missing": 1.0, "edges": None}}
