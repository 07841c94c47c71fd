"""The compiled forest against its oracle, LightGBM itself: every leaf, every prediction, the same bits."""

import itertools
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import get_args

import lightgbm as lgb
import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra.numpy import array_shapes, arrays

from quant import forest
from quant.forest import Forest, ForestError, Name
from quant.forest_choice import available
from tests.quant.forests import ODD, adversarial, train

EVALUATORS = [
    pytest.param(name, marks=pytest.mark.skipif(name not in available(), reason="no such device here"))
    for name in get_args(Name)
]

MODELS = {
    "regression with NaN missing": ({"objective": "regression", "num_leaves": 31}, False),
    "no missing type": ({"objective": "regression", "num_leaves": 31, "use_missing": False}, False),
    "zero as missing": ({"objective": "regression", "num_leaves": 63, "zero_as_missing": True}, False),
    "categories": ({"objective": "regression", "num_leaves": 31}, True),
    "binary with categories": ({"objective": "binary", "num_leaves": 15, "sigmoid": 1.7}, True),
    "lambdarank": ({"objective": "lambdarank", "num_leaves": 31}, False),
    "wide leaves": ({"objective": "regression", "num_leaves": 255, "min_data_in_leaf": 1}, False),
}


@pytest.mark.parametrize("evaluator", EVALUATORS)
@pytest.mark.parametrize("kind", MODELS)
def test_every_leaf_is_the_one_lightgbm_chooses_for_adversarial_rows(kind, evaluator):
    params, categories = MODELS[kind]
    booster = train(params, 60, categories=categories)
    X = adversarial(booster, 3000)
    np.testing.assert_array_equal(forest.compile(booster).leaves(X, evaluator), booster.predict(X, pred_leaf=True))


@pytest.mark.parametrize("missing", ["None", "Zero", "NaN"])
@pytest.mark.parametrize("default_left", [False, True])
@pytest.mark.parametrize(
    "threshold", ["0.1", "-1e-36", "1e-36", "1e-40", "0", "-0.0", "inf", "-inf", "1e300", "-1e300"]
)
def test_any_threshold_with_any_missing_type_and_default_side_decides_alike(missing, default_left, threshold):
    text = train({"objective": "regression", "num_leaves": 2}, 1).model_to_string()
    decision = {"None": 0, "Zero": 4, "NaN": 8}[missing] | (2 if default_left else 0)
    edited = {"threshold": threshold, "decision_type": str(decision)}
    lines = [f"{k}={edited.get(k, v)}" if e else k for k, e, v in (line.partition("=") for line in text.split("\n"))]
    text = "\n".join(line for line in lines if not line.startswith("tree_sizes"))
    booster = lgb.Booster(model_str=text)
    assert f"threshold={threshold}\n" in text
    near = np.float32(float(threshold)) if abs(float(threshold)) < 3e38 else np.float32(np.inf)
    values = np.concatenate([ODD, [near, np.nextafter(near, np.float32(9)), np.nextafter(near, np.float32(-9))]])
    X = np.repeat(values.astype(np.float32)[:, None], booster.num_feature(), axis=1)
    for evaluator in available():
        np.testing.assert_array_equal(
            forest.compile(text).leaves(X, evaluator), booster.predict(X, pred_leaf=True).reshape(-1, 1)
        )


@pytest.mark.parametrize(
    "params",
    [
        {"objective": "regression"},
        {"objective": "regression", "reg_sqrt": True},
        {"objective": "regression_l1"},
        {"objective": "huber"},
        {"objective": "fair"},
        {"objective": "quantile", "alpha": 0.7},
        {"objective": "binary", "sigmoid": 0.5},
        {"objective": "cross_entropy"},
        {"objective": "cross_entropy_lambda"},
        {"objective": "poisson"},
        {"objective": "gamma"},
        {"objective": "tweedie"},
        {"objective": "lambdarank"},
        {"objective": "rank_xendcg"},
        {"objective": "regression", "boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.5},
        {"objective": "regression", "boosting": "dart", "drop_rate": 0.5},
    ],
    ids=lambda p: "-".join(map(str, p.values())),
)
def test_predictions_are_lightgbms_within_1e9_of_the_output_scale(params):
    booster = train(params | {"num_leaves": 15}, 30)
    X = adversarial(booster, 500)
    expected = booster.predict(X)
    compiled = forest.compile(booster)
    for evaluator in available():
        assert np.abs(compiled.predict(X, evaluator) - expected).max() <= 1e-9 * np.abs(expected).max()


@cache
def _of_every_kind() -> lgb.Booster:
    return train({"objective": "regression", "num_leaves": 31}, 20, categories=True)


@cache
def _compiled() -> Forest:
    return forest.compile(_of_every_kind())


@given(arrays(np.uint32, array_shapes(min_dims=1, max_dims=1, max_side=20).map(lambda shape: (*shape, 6))))
@settings(max_examples=200)
def test_any_bits_of_a_float_fall_into_lightgbms_leaf(bits):
    booster = _of_every_kind()
    X = bits.view(np.float32)
    expected = booster.predict(X, pred_leaf=True)
    compiled = _compiled()
    for evaluator in available():
        np.testing.assert_array_equal(compiled.leaves(X, evaluator), expected)


def test_all_evaluators_give_the_same_bits_at_every_batch_size():
    booster = train({"objective": "regression", "num_leaves": 31}, 40, categories=True)
    X, compiled = adversarial(booster, 1000), forest.compile(booster)
    whole = compiled.predict(X)
    for evaluator, size in itertools.product(available(), [*range(1, 71), 1000]):
        assert compiled.predict(X[:size], evaluator).tobytes() == whole[:size].tobytes(), (evaluator, size)


def test_blocks_of_the_mlx_walk_join_without_a_seam(monkeypatch):
    booster = train({"objective": "regression", "num_leaves": 7}, 10)
    X, compiled = adversarial(booster, 333), forest.compile(booster)
    monkeypatch.setattr("quant.forest_mlx.BLOCK", 100)
    np.testing.assert_array_equal(compiled.leaves(X, "mlx"), booster.predict(X, pred_leaf=True))


@pytest.mark.parametrize("evaluator", EVALUATORS)
def test_an_evaluator_built_on_one_thread_serves_another(evaluator):
    booster = train({"objective": "regression", "num_leaves": 15}, 20, categories=True)
    X, compiled = adversarial(booster, 100), forest.compile(booster)
    with ThreadPoolExecutor(1) as loader, ThreadPoolExecutor(1) as compute:
        loader.submit(compiled.warm, evaluator).result()
        found = compute.submit(compiled.leaves, X, evaluator).result()
    np.testing.assert_array_equal(found, booster.predict(X, pred_leaf=True))


@pytest.mark.parametrize("evaluator", EVALUATORS)
def test_read_only_and_unaligned_rows_and_a_forest_from_a_file_give_the_same_bits(evaluator):
    booster = train({"objective": "regression", "num_leaves": 15}, 20, categories=True)
    X, compiled = adversarial(booster, 100), forest.compile(booster)
    client = np.frombuffer(b"!" + X.tobytes(), np.float32, offset=1).reshape(X.shape)  # as a request's body holds them
    assert not client.flags.writeable
    assert not client.flags.aligned
    for made in (compiled, Forest.loads(compiled.dumps())):
        assert made.predict(client, evaluator).tobytes() == compiled.predict(X, evaluator).tobytes()
        np.testing.assert_array_equal(made.leaves(client, evaluator), booster.predict(X, pred_leaf=True))


def test_the_native_walk_has_one_compiled_form_so_none_is_compiled_under_load():
    forest.compile(train({"objective": "regression"}, 2)).warm("native")
    from quant import forest_native

    for walk in (forest_native._totals, forest_native._leaves):
        assert len(walk.signatures) == 1
        assert not walk._can_compile  # another type of argument is an error


@pytest.mark.parametrize("evaluator", EVALUATORS)
def test_no_rows_give_no_predictions(evaluator):
    compiled = forest.compile(train({"objective": "regression"}, 2))
    compiled.warm(evaluator)
    assert compiled.predict(np.zeros((0, 6), np.float32), evaluator).shape == (0,)
    assert compiled.leaves(np.zeros((0, 6), np.float32), evaluator).shape == (0, 2)


@pytest.mark.parametrize("evaluator", EVALUATORS)
def test_a_constant_label_grows_single_leaf_trees_and_predicts_the_constant(evaluator):
    X = np.random.default_rng(0).normal(size=(100, 2)).astype(np.float32)
    booster = lgb.train({"objective": "regression", "verbose": -1}, lgb.Dataset(X, np.full(100, 2.5)), 3)
    compiled = forest.compile(booster)
    np.testing.assert_array_equal(compiled.predict(X, evaluator), booster.predict(X))
    np.testing.assert_array_equal(compiled.leaves(X, evaluator), booster.predict(X, pred_leaf=True).reshape(100, -1))


def test_a_forest_survives_its_file_bit_for_bit_and_mlx_can_read_it(tmp_path):
    booster = train({"objective": "binary", "num_leaves": 15}, 20, categories=True)
    X, compiled = adversarial(booster, 200), forest.compile(booster)
    data = compiled.dumps()
    again = Forest.loads(data)
    assert again.dumps() == data
    assert again.predict(X).tobytes() == compiled.predict(X).tobytes()
    (tmp_path / "forest.safetensors").write_bytes(data)
    arrays = mx.load(str(tmp_path / "forest.safetensors"))
    np.testing.assert_array_equal(np.array(arrays["nodes"]), compiled.nodes)


def test_only_the_best_iteration_of_a_stopped_booster_is_compiled():
    booster = train({"objective": "regression"}, 20)
    booster.best_iteration = 7
    assert len(forest.compile(booster).roots) == 7


def test_what_cannot_be_exact_is_refused_with_the_reason():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 3)).astype(np.float32)
    params = {"objective": "regression", "linear_tree": True, "verbose": -1}
    linear = lgb.train(params, lgb.Dataset(X, X[:, 0].copy()), 3)
    with pytest.raises(ForestError, match="linear leaves"):
        forest.compile(linear)
    classes = lgb.train(
        {"objective": "multiclass", "num_class": 3, "verbose": -1}, lgb.Dataset(X, np.arange(300) % 3), 2
    )
    with pytest.raises(ForestError, match="multiclass"):
        forest.compile(classes)
    text = train({"objective": "regression"}, 2).model_to_string()
    with pytest.raises(ForestError, match="cut off"):
        forest.compile(text[: len(text) // 3])
    with pytest.raises(ForestError, match="mystery"):
        forest.compile(text.replace("objective=regression", "objective=mystery"))
    compiled = forest.compile(text)
    with pytest.raises(ForestError, match="float64"):
        compiled.predict(np.zeros((1, 6)))
    with pytest.raises(ForestError, match=r"\[1, 5\].*6 columns"):
        compiled.predict(np.zeros((1, 5), np.float32))
    with pytest.raises(ForestError, match="damaged"):
        Forest.loads(compiled.dumps()[:-50])
