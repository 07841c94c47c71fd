"""Several models as one: the mean of what LightGBM predicts with each, LightGBM reading the result too."""

import numpy as np
import pytest

from quant import forest
from quant.ensemble import average
from quant.forest_text import Model, read


def models(objective: str, seeds: tuple[int, ...], features: int = 4) -> tuple[np.ndarray, list]:
    import lightgbm as lgb

    chance = np.random.default_rng(0)
    X = chance.normal(size=(800, features)).astype(np.float32)
    X[chance.random(X.shape) < 0.1] = np.nan
    y = np.nan_to_num(X[:, 0]) + chance.normal(size=len(X))
    y = (y > 0).astype(float) if objective == "binary" else y
    params = {"objective": objective, "num_leaves": 7, "bagging_fraction": 0.5, "bagging_freq": 1, "verbosity": -1}
    trees = {seed: 5 + 3 * place for place, seed in enumerate(seeds)}
    return X, [
        lgb.train(params | {"seed": seed, "num_threads": 1}, lgb.Dataset(X, y), rounds)
        for seed, rounds in trees.items()
    ]


@pytest.mark.parametrize("objective", ["regression", "regression_l1", "huber", "quantile"])
def test_the_average_predicts_the_mean_of_lightgbms_predictions(objective: str) -> None:
    import lightgbm as lgb

    X, boosters = models(objective, (1, 2, 3))
    text = average([booster.model_to_string() for booster in boosters])
    expected = np.mean([booster.predict(X) for booster in boosters], axis=0)
    np.testing.assert_allclose(lgb.Booster(model_str=text).predict(X), expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(forest.compile(text).predict(X), expected, rtol=0, atol=1e-9)
    assert forest.compile(text).predict(X, "mlx").tobytes() == forest.compile(text).predict(X).tobytes()


def test_of_classes_the_log_odds_are_averaged() -> None:
    import lightgbm as lgb

    X, boosters = models("binary", (1, 2))
    text = average([booster.model_to_string() for booster in boosters])
    expected = np.mean([booster.predict(X, raw_score=True) for booster in boosters], axis=0)
    np.testing.assert_allclose(lgb.Booster(model_str=text).predict(X, raw_score=True), expected, atol=1e-12)
    np.testing.assert_allclose(forest.compile(text).predict(X), 1 / (1 + np.exp(-expected)), atol=1e-9)


def test_the_text_is_as_lightgbm_writes_it_itself() -> None:
    import lightgbm as lgb

    _, boosters = models("regression", (1, 2))
    text = average([booster.model_to_string() for booster in boosters])
    again = lgb.Booster(model_str=text).model_to_string()

    def sizes(of: str) -> list[int]:
        return [int(n) for line in of.split("\n") if line.startswith("tree_sizes=") for n in line[11:].split()]

    blocks = text.partition("\nend of trees")[0].split("\nTree=")[1:]
    assert sizes(text) == [len(f"Tree={block}\n") for block in blocks]
    assert len(sizes(again)) == len(blocks) == 5 + 8
    assert _values(read(text)) == pytest.approx(_values(read(again)), rel=1e-15)


def _values(model: Model) -> list[float]:
    return [value for tree in model.trees for value in tree.value]


def test_one_model_is_itself() -> None:
    _, [booster] = models("regression", (1,))
    assert average([booster.model_to_string()]) == booster.model_to_string()


def test_models_of_other_columns_or_objectives_are_refused() -> None:
    texts = [models("regression", (1,))[1][0].model_to_string()]
    for other in (models("binary", (1,)), models("regression", (1,), features=5)):
        with pytest.raises(ValueError, match="differ in their columns or objective"):
            average([*texts, other[1][0].model_to_string()])
