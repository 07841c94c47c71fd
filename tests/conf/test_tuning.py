"""The tuned space as YAML: what it may say, and what a mistake in it is told."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conf.compose import compose
from conf.learning import Booster, Tuning
from quant.space import Range
from quant.train import settings_of

Mistake = Callable[..., str]


def test_the_shipped_choices_are_a_search_and_none(folder: Path) -> None:
    assert compose(["tuning=default"], folder)["5m"].tuning.wanted
    assert not compose(["tuning=none"], folder)["5m"].tuning.wanted
    assert not compose(["tuning=default", "tuning.trials=0"], folder)["5m"].tuning.wanted


def test_ranges_come_in_the_types_of_the_models_parameters(folder: Path) -> None:
    (folder / "tuning" / "mine.yaml").write_text(
        "trials: 3\nworkers: 1\nstartup_trials: 1\nmetric: ic\nseed: 1\nspace:\n"
        "  num_leaves: {low: 4, high: 8}\n  lambda_l2: {low: 1, high: 10, log: true}\n"
        "  feature_fraction: {low: 0.5, high: 1, step: 0.25}\n  max_depth: [null, 3]\n  extra_trees: [true, false]\n"
    )
    found = compose(["tuning=mine"], folder)["5m"].tuning.ranges()
    assert found == {
        "num_leaves": Range(4, 8),
        "lambda_l2": Range(1.0, 10.0, log=True),
        "feature_fraction": Range(0.5, 1.0, step=0.25),
        "max_depth": [None, 3],
        "extra_trees": [True, False],
    }
    drawn = {name: choice.whole for name, choice in found.items() if isinstance(choice, Range)}
    assert drawn == {"num_leaves": True, "lambda_l2": False, "feature_fraction": False}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("tuning.space.num_leafs=[1,2]", "tuning.space.num_leafs is & can be searched & num_leaves?"),
        ("tuning.space.objective=[binary]", "tuning.space.objective is & can be searched"),
        ("tuning.space.num_leaves.low=200", "tuning.space.num_leaves.low is 200 & below high, 127"),
        ("tuning.space.num_leaves.low=1", "tuning.space.num_leaves is & model.num_leaves & must be at least 2"),
        ("tuning.space.num_leaves.low=2.5", "tuning.space.num_leaves is & whole number"),
        ("tuning.space.num_leaves.lo=2", "tuning.space.num_leaves.lo is 2 & low, high, log and step & low?"),
        ("tuning.space.num_leaves.log=1", "tuning.space.num_leaves.log is 1 & true or false"),
        ("tuning.space.num_leaves.step=2", "tuning.space.num_leaves.step is 2 & log: true"),
        ("tuning.space.num_leaves=7", "tuning.space.num_leaves is 7 & a range & a list of choices"),
        ("tuning.space.feature_fraction.high=1.5", "tuning.space.feature_fraction is & at most 1"),
        ("tuning.space.feature_fraction.step=0", "tuning.space.feature_fraction.step is 0 & above 0"),
        ("tuning.space.lambda_l2.low=0", "tuning.space.lambda_l2.low is 0 & above 0 where log is true"),
        ("tuning.space.lambda_l2.high=null", "tuning.space.lambda_l2.high is null & finite number"),
        ("tuning.space.max_bin=[63,63]", "tuning.space.max_bin is & each once"),
        ("tuning.space.max_bin=[]", "tuning.space.max_bin is & at least one value"),
        ("tuning.space.max_bin=[63,many]", "tuning.space.max_bin is & model.max_bin & whole number"),
        ("tuning.trails=4", "tuning.trails (4) & tuning.trials?"),
        ("tuning.trials=null", "tuning.trials is null & seconds"),
        ("tuning.seconds=0", "tuning.seconds is 0 & greater than 0"),
        ("tuning.workers=0", "tuning.workers is 0 & at least 1"),
        ("tuning.metric=auc", "tuning.metric is auc & rank_ic, ic, loss"),
        ("tuning=non", "tuning is non & none? & conf/tuning/non.yaml"),
    ],
)
def test_a_mistake_names_the_key_and_what_it_may_be(mistake: Mistake, words: str, told: str) -> None:
    message = mistake(*([] if words.startswith("tuning=") else ["tuning=default"]), words)
    for part in told.split(" & "):
        assert part in message


def test_a_budget_without_a_space_is_refused(mistake: Mistake) -> None:
    assert "tuning.trials is 4; it needs parameters to search" in mistake("tuning=none", "tuning.trials=4")


def test_a_loss_that_cannot_be_compared_is_refused(mistake: Mistake) -> None:
    assert "rank_ic or ic" in mistake("tuning=default", "tuning.metric=loss", "model.objective=lambdarank")
    words = ["tuning=default", "tuning.metric=loss", "model.objective=quantile", "tuning.space.alpha=[0.1,0.5]"]
    assert "alpha" in mistake(*words)


@given(name=st.sampled_from(sorted(Booster.model_fields)))
def test_every_parameter_of_the_model_can_be_searched_unless_it_makes_another_problem(name: str) -> None:
    values = {"objective": ["binary"], "extra_trees": [True]}.get(name, [1])
    space = {"space": {name: values}, "trials": 1, "workers": 1, "startup_trials": 1, "metric": "ic", "seed": 1}
    if name in ("objective", "num_threads"):
        with pytest.raises(ValueError, match="can be searched"):
            Tuning.model_validate(space)
    elif name in ("num_leaves", "max_bin"):
        with pytest.raises(ValueError, match="at least 2"):
            Tuning.model_validate(space)
    else:
        assert Tuning.model_validate(space).wanted


def test_no_tunable_parameter_but_max_bin_makes_lightgbms_bins() -> None:
    """Bins are shared by trials that differ in anything but `quant.trial.BINNING`: LightGBM must agree."""
    import lightgbm as lgb
    import numpy as np

    from conf.learning import TUNABLE
    from quant.trial import BINNING

    values = {"extra_trees": True, "max_depth": 3, "num_leaves": 5, "bagging_freq": 2, "n_estimators": 3}
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((200, 3)), rng.standard_normal(200)
    for name in TUNABLE:
        if name not in BINNING:
            changed = settings_of({name: values.get(name, 0.5 if "fraction" in name else 7)})
            data = lgb.Dataset(X, y, params=settings_of({})).construct()
            lgb.train(changed, data, num_boost_round=1)
    with pytest.raises(lgb.basic.LightGBMError, match="max_bin"):
        lgb.train(settings_of({"max_bin": 9}), lgb.Dataset(X, y, params=settings_of({})).construct(), 1)


def test_a_list_of_choices_takes_the_place_of_a_range() -> None:
    horizon = compose(["horizon=5m", "tuning=default", "tuning.space.num_leaves=[15,31]"])["5m"]
    assert horizon.tuning.ranges()["num_leaves"] == [15, 31]
