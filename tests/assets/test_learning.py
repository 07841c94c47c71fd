"""Out-of-fold predictions, other labels, weights, ensembles and preprocessing, through the real steps."""

import io
import itertools
from collections import Counter
from dataclasses import replace
from datetime import UTC

import numpy as np
import polars as pl
import pytest

from assets.dataset import Dataset, folds, load, split
from assets.learning import HELD_OUT, OUT_OF_FOLD, learn, out_of_fold, predict
from assets.plan import Plan
from quant.bundle import Bundle
from quant.inputs import bar_panel
from quant.novelty import fit as fit_novelty
from quant.panel import instants
from quant.served_label import served_label
from tests.assets.conftest import SMALL, Pipeline

REFRESH = ("bars", "features", "factors")
PARTS = ("train", "valid", "test", "purged", "embargoed", "outside")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    made = Pipeline(tmp_path_factory.mktemp("learning"), *SMALL, "tuning=none")
    made.run(*REFRESH)
    return made


def over(made: Pipeline, *words: str) -> Pipeline:
    """The same store under further words; three folds unless they say otherwise."""
    root = made.registry.path("5m", "none").parents[3]
    few = [] if any(word.startswith("folds") for word in words) else ["folds.count=3"]
    return Pipeline(root, *made.words[:-1], *few, *words)


def planned(made: Pipeline, *words: str) -> Plan:
    return over(made, *words).plan()


def trained(made: Pipeline, *words: str) -> tuple[Bundle, pl.DataFrame]:
    """The bundle of these words, and its out-of-fold predictions."""
    told = over(made, *words).run("model").metadata["model"]
    bundle = made.registry.load("5m", told["bundle"])
    return bundle, pl.read_parquet(io.BytesIO((made.registry.path("5m", bundle.id) / OUT_OF_FOLD).read_bytes()))


def apart(data: Dataset, learned: np.ndarray, tested: np.ndarray) -> bool:
    """No label of the one shares a moment with a label of the other."""
    begin, end = data.known[tested], data.label_known[tested]
    order = np.argsort(begin)
    latest = np.maximum.accumulate(end[order])
    before = np.searchsorted(begin[order], data.label_known[learned], side="right")  # tested that begin by its end
    reaches = latest[np.maximum(before, 1) - 1] >= data.known[learned]
    return not (reaches & (before > 0)).any()


@pytest.mark.parametrize("words", [[], ["folds=rolling", "folds.sections=100"], ["folds=combinatorial"]])
def test_folds_lie_before_the_judging_window_and_account_for_every_row(made: Pipeline, words: list[str]) -> None:
    plan = planned(made, *words)
    data = load(plan, made.lake)
    judged = data.known[split(plan, data).test].min()
    for fold in folds(plan, data):
        assert fold.counts["rows"] == len(data.y) == sum(fold.counts[part] for part in PARTS)
        assert fold.counts["purged"] > 0
        learned = np.concatenate([fold.train, fold.valid])
        assert apart(data, learned, fold.test)
        assert apart(data, fold.train, fold.valid)
        for rows in (fold.train, fold.valid, fold.test):
            assert len(rows)
            assert data.label_known[rows].max() < judged


def test_a_fold_sees_nothing_of_what_it_predicts_nor_of_what_comes_later(made: Pipeline) -> None:
    plan, data = planned(made), load(planned(made), made.lake)
    cuts = folds(plan, data)
    before = out_of_fold(plan, plan.horizon.model, data, cuts)
    first = data.known[cuts[1].test].min()
    later = data.known >= first
    y, target = (np.where(later, -9.0, held) for held in (data.y, data.target))
    after = out_of_fold(plan, plan.horizon.model, replace(data, y=y, target=target), cuts)
    for fold, same in ((0, True), (1, True), (2, False)):
        mine, theirs = (frame.filter(fold=fold)["prediction"].to_numpy() for frame in (before, after))
        assert np.array_equal(mine, theirs) == same


def test_the_file_beside_the_bundle_holds_each_row_once_with_its_outcome(made: Pipeline) -> None:
    bundle, told = trained(made)
    plan, data = planned(made), load(planned(made), made.lake)
    cuts, parts = folds(plan, data), split(plan, data)
    assert told.select("time", "symbol").is_duplicated().sum() == 0
    assert told["fold"].unique().sort().to_list() == [HELD_OUT, 0, 1, 2]
    stamp = {number: cut.test for number, cut in enumerate(cuts)} | {HELD_OUT: parts.test}
    for fold, rows in stamp.items():
        mine = told.filter(fold=fold)
        assert (mine["time"].dt.replace_time_zone(None).to_numpy() == data.timestamp[rows]).all()
        assert mine["symbol"].to_list() == data.symbol[rows].tolist()
        np.testing.assert_array_equal(mine["outcome"].to_numpy(), data.y[rows])
        assert (mine["label_end"].dt.replace_time_zone(None).to_numpy() == data.label_known[rows]).all()
    held_out = told.filter(fold=HELD_OUT)["prediction"].to_numpy()
    np.testing.assert_array_equal(held_out, bundle.predict_rows(data.X[parts.test]))
    one = learn(plan.horizon.model, data, cuts[1].train, cuts[1].valid)
    np.testing.assert_array_equal(told.filter(fold=1)["prediction"].to_numpy(), predict(one, data, cuts[1].test))
    assert [fold["counts"] for fold in bundle.manifest["folds"]] == [cut.counts for cut in cuts]
    counts = bundle.manifest["counts"]
    assert counts["in"] == made.table("factors").height
    assert counts["in"] - counts["rows"] == sum(data.dropped.values())


def test_combinatorial_folds_predict_every_row_once_on_each_path(made: Pipeline) -> None:
    plan = planned(made, "folds=combinatorial", "folds.groups=4", "folds.tested=2")
    data = load(plan, made.lake)
    cuts = folds(plan, data)
    assert [cut.groups for cut in cuts] == list(itertools.combinations(range(4), 2))
    told = out_of_fold(plan, plan.horizon.model, data, cuts)
    assert told.select("time", "symbol", "path").is_duplicated().sum() == 0
    assert set(Counter(told.select("time", "symbol").rows()).values()) == {3}  # C(3, 1) paths
    assert told.group_by("path").len()["len"].n_unique() == 1


def test_a_triple_barrier_label_is_known_when_its_position_ends_and_rows_are_purged_by_that(made: Pipeline) -> None:
    plan = planned(made, "label=triple_barrier", "label.window=20")
    data = load(plan, made.lake)
    assert plan.label.lookahead == 12
    slots = plan.grid.slots(*plan.grid.session_dates(data.timestamp[[0, -1]]).tolist())
    ends = plan.grid.ends(slots)
    ahead = np.searchsorted(ends, data.label_known) - np.searchsorted(slots, data.timestamp)
    assert (ahead.min(), ahead.max()) == (1, 12)
    bars = made.table("bars").with_columns(pl.col("open", "high", "low", "close") * pl.col("price_factor"))
    price = {(s, t): row for s, t, *row in bars.select("symbol", "timestamp", "open", "high", "low", "close").rows()}
    for row in np.random.default_rng(0).choice(len(data.y), 200, replace=False):
        at = int(np.searchsorted(slots, data.timestamp[row]))
        path = [price.get((data.symbol[row], slot.item().replace(tzinfo=UTC))) for slot in slots[at + 1 : at + 13]]
        lasts = [bar for bar in path[: ahead[row]] if bar]
        start, until = path[0][0], lasts[-1]
        leaving = start * (1 + data.y[row])
        assert until[2] * (1 - 1e-6) <= leaving <= until[1] * (1 + 1e-6)  # at a price of the bar that ended it
        if ahead[row] == 12:
            continue
        # A barrier: nothing before it went as far.
        extremes = [bar[1] for bar in lasts[:-1]] if data.y[row] > 0 else [bar[2] for bar in lasts[:-1]]
        assert all((far < leaving) if data.y[row] > 0 else (far > leaving) for far in extremes)
    parts = split(plan, data)
    assert data.label_known[parts.train].max() < data.known[parts.valid].min()
    assert all(apart(data, fold.train, fold.test) for fold in folds(plan, data))


def test_a_triple_barrier_model_proves_itself_and_says_what_it_learned(made: Pipeline) -> None:
    bundle, told = trained(made, "label=triple_barrier", "label.window=20", "model.objective=binary")
    bundle.verify()
    assert bundle.manifest["label"]["lookahead"] == 12
    assert (
        "profit 1, loss 1 times std(close / lag(close, 1) - 1, 20) * sqrt(12), or 12 bars"
        in (bundle.manifest["label"]["text"])
    )
    # What the service makes of the bundle alone is what was learned.
    label = served_label(bundle)
    assert label.text == bundle.manifest["label"]["text"]
    frame, grid = made.table("bars"), bundle.recipe.grid
    slots = grid.slots(*grid.session_dates(instants(frame["timestamp"]))[[0, -1]].tolist())
    bars = bar_panel(frame, grid, slots, bundle.recipe.symbols, label.inputs)
    ours = planned(made, "label=triple_barrier", "label.window=20").label.run(bars)
    np.testing.assert_array_equal(label.run(bars).value, ours.value)
    assert told["prediction"].is_between(0, 1).all()
    assert told["outcome"].min() < 0 < told["outcome"].max()  # the return, whatever was learned of it


def test_weights_by_uniqueness_and_recency_are_told_and_change_the_model(made: Pipeline) -> None:
    plain, _ = trained(made)
    plan = planned(made, "model.uniqueness=true", "model.half_life_days=4.0")
    data = load(plan, made.lake)
    assert 0 < data.weight.min() < data.weight.max() <= 1
    inside = (data.known > data.known.min() + np.timedelta64(3, "h")) & (
        data.known < data.known.min() + np.timedelta64(4, "h")
    )
    days = (data.known.max() - data.known[inside]) / np.timedelta64(1, "D")
    np.testing.assert_allclose(data.weight[inside] / 0.5 ** (days / 4), 1 / 6, rtol=0.2)  # six labels share each bar
    weighted, _ = trained(made, "model.uniqueness=true", "model.half_life_days=4.0")
    assert weighted.text != plain.text
    told = weighted.manifest["weights"]
    assert told["rows"] == weighted.manifest["counts"]["train"] > told["effective"] > 1
    assert plain.manifest["weights"] is None


def test_an_ensemble_is_served_as_the_mean_of_its_models(made: Pipeline) -> None:
    both, _ = trained(made, "model.seeds=[1,2]")
    both.verify()
    assert set(both.manifest["trees"]) == {"1", "2"}
    assert len(both.forest.roots) == both.manifest["best_iteration"] == sum(both.manifest["trees"].values())
    alone = [trained(made, f"model.seeds=[{seed}]")[0] for seed in (1, 2)]
    X = load(planned(made), made.lake).X[:500]
    expected = np.mean([one.predict_rows(X) for one in alone], axis=0)
    np.testing.assert_allclose(both.predict_rows(X), expected, rtol=0, atol=1e-9)


def test_preprocessing_travels_in_the_bundle_and_is_served_alike(made: Pipeline) -> None:
    words = ["winsorize=0.05", "best=4", "impute=true", "standardize=true"]
    bundle, told = trained(made, *(f"model.preprocess.{word}" for word in words))
    bundle.verify()
    assert sum(bundle.manifest["preprocessing"]["kept"]) == 4
    plan = planned(made)
    data = load(plan, made.lake)
    rows = split(plan, data).test
    np.testing.assert_array_equal(told.filter(fold=HELD_OUT)["prediction"], bundle.predict_rows(data.X[rows]))
    assert bundle.predict_rows(data.X[rows[:1]])[0] == bundle.predict_rows(data.X[rows])[0]
    import lightgbm as lgb

    raw = lgb.Booster(model_str=bundle.text).predict(data.X[rows])
    assert np.abs(raw - bundle.predict_rows(data.X[rows])).max() > 1e-9  # without it, other predictions


def test_a_ranking_model_learns_the_grade_within_the_section(made: Pipeline) -> None:
    plan = planned(made, "model.objective=lambdarank", "model.grades=4")
    data = load(plan, made.lake)
    first = data.timestamp == data.timestamp[1000]
    assert sorted(data.target[first]) == [0, 1, 2, 3]
    assert np.argsort(data.y[first]).tolist() == np.argsort(data.target[first]).tolist()
    bundle, told = trained(made, "model.objective=lambdarank", "model.grades=4")
    bundle.verify()
    assert bundle.manifest["objective"] == "lambdarank"
    assert told["outcome"].abs().max() < 1


def test_novelty_is_against_the_rows_that_each_model_learned_from(made: Pipeline) -> None:
    bundle, frame = trained(made)
    plan, data = planned(made), load(planned(made), made.lake)
    assert bundle.novelty is not None
    for number, (train, rows) in enumerate((cut.train, cut.test) for cut in folds(plan, data)):
        measure = fit_novelty(
            data.X, data.names, train, plan.grid.numbers(data.timestamp),
            columns=plan.vector_names, sample=2048, neighbours=10,
            apart=plan.features.lookback + plan.factors.lookback, seed=plan.horizon.model.seeds[0],
        )  # fmt: skip
        assert frame.filter(fold=number)["novelty"].to_list() == measure.of(data.X[rows], data.names).tolist()
    test = split(plan, data).test
    expected = bundle.novelty.of(data.X[test], data.names)
    assert frame.filter(fold=HELD_OUT)["novelty"].to_list() == expected.tolist()
