"""How a horizon's model learns: boosting, preprocessing, folds, and the search over them."""

from math import comb
from typing import Annotated, Any, Final, Literal

from pydantic import Field, TypeAdapter, ValidationError, field_validator, model_validator

from conf.errors import must_be, nearest
from conf.fields import Amount, Choice, Count, Inside, Share, Whole, Wrong
from conf.strict import Strict
from quant.space import Range, Space, Value

MOST_FOLDS: Final = 500  # each trains a model, in every trial


class Booster(Strict):
    """LightGBM's own parameters by their LightGBM names; None keeps LightGBM's value."""

    objective: Literal[
        "regression", "regression_l1", "huber", "fair", "quantile", "binary", "lambdarank", "rank_xendcg"
    ]
    n_estimators: Count
    learning_rate: Annotated[float, Field(gt=0)]
    num_leaves: Annotated[int, Field(ge=2)]
    max_depth: int | None = None
    max_bin: Annotated[int, Field(ge=2)] | None = None
    min_data_in_leaf: Whole | None = None
    min_sum_hessian_in_leaf: Amount | None = None
    min_gain_to_split: Amount | None = None
    feature_fraction: Annotated[float, Field(gt=0, le=1)] | None = None
    feature_fraction_bynode: Annotated[float, Field(gt=0, le=1)] | None = None
    bagging_fraction: Annotated[float, Field(gt=0, le=1)] | None = None
    bagging_freq: Whole | None = None
    lambda_l1: Amount | None = None
    lambda_l2: Amount | None = None
    path_smooth: Amount | None = None
    extra_trees: bool | None = None
    alpha: Annotated[float, Field(gt=0)] | None = None
    num_threads: Whole | None = None


TUNABLE: Final = tuple(
    name for name in Booster.model_fields if name not in ("objective", "num_threads")
)  # what makes another problem, or none, is not searched


def _parameter(name: str, value: Any) -> Any:
    """A value as the model's parameter of this name has it: whole numbers may stand for others."""
    field = Booster.model_fields[name]
    type_: Any = Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
    return TypeAdapter(type_).validate_python(value, strict=True)


class Preprocessing(Strict):
    """What happens to factors before the model reads them, learned from training rows alone; None: it does not."""

    coverage: Share | None = None
    best: Count | None = None
    winsorize: Annotated[float, Field(gt=0, lt=0.5)] | None = None
    impute: bool
    standardize: bool


class Model(Booster):
    """How the model learns, and on which rows it is stopped and judged."""

    seeds: Annotated[list[Whole], Field(min_length=1)]
    grades: Annotated[int, Field(ge=2, le=31)]
    uniqueness: bool
    half_life_days: Annotated[float, Field(gt=0)] | None = None
    preprocess: Preprocessing
    valid_share: Inside
    test_share: Inside
    embargo: Whole | None = None
    early_stopping_rounds: Count
    min_coverage: Share
    restated_after: Whole  # seconds after a section's bars end; a row known later is left out

    def params(self) -> dict[str, Any]:
        """LightGBM's parameters, those that are set, ready for `lightgbm.train`."""
        return self.model_dump(include=set(Booster.model_fields), exclude_none=True)

    @model_validator(mode="after")
    def _seeds_differ(self) -> "Model":
        if len(set(self.seeds)) < len(self.seeds):
            raise Wrong("must name each seed once: the same one twice grows the same trees", key="seeds")
        return self

    @model_validator(mode="after")
    def _something_is_left_to_train_on(self) -> "Model":
        if self.valid_share + self.test_share >= 1:
            raise Wrong(f"leaves no training rows beside valid_share, {self.valid_share}", key="test_share")
        return self


class Tuning(Strict):
    """Which of the model's parameters are searched, how long, and by what they are judged."""

    trials: Whole | None = None
    seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    workers: Count
    startup_trials: Whole
    metric: Literal["rank_ic", "ic", "loss"]
    seed: Whole
    space: dict[str, Choice]

    @property
    def wanted(self) -> bool:
        """Whether anything is searched at all."""
        return bool(self.space) and self.trials != 0

    def ranges(self) -> Space:
        """The space in the types of the model's parameters."""
        found: dict[str, Range | list[Value]] = {}
        for name, choice in self.space.items():
            if isinstance(choice, list):
                found[name] = [_parameter(name, value) for value in choice]
            else:
                low, high = (_parameter(name, choice[end]) for end in ("low", "high"))
                found[name] = Range(low, high, bool(choice.get("log")), choice.get("step"))
        return found

    @field_validator("space")
    @classmethod
    def _space_is_of_the_model(cls, space: dict[str, Any]) -> dict[str, Any]:
        for name, choice in space.items():
            if name not in TUNABLE:
                message = f"must be a parameter of the model that can be searched: {', '.join(TUNABLE)}"
                raise Wrong(message, nearest=nearest(name, TUNABLE), key=name)
            values = choice if isinstance(choice, list) else [choice["low"], choice["high"]]
            try:
                read = [_parameter(name, value) for value in values]
            except ValidationError as error:
                message = f"must hold values of model.{name}, each of which {must_be(error.errors()[0])}"
                raise Wrong(message, key=name) from None
            if isinstance(choice, dict) and isinstance(read[0], int) and isinstance(choice.get("step"), float):
                raise Wrong("must have a whole number for step: the parameter is one", key=name)
        return space

    @model_validator(mode="after")
    def _the_search_ends(self) -> "Tuning":
        if self.trials is None and self.seconds is None:
            raise Wrong("must be given where seconds is not: something has to end the search", key="trials")
        if self.trials and not self.space:
            raise Wrong("needs parameters to search: choose tuning=default, or write a space", key="trials")
        return self


class WalkForward(Strict):
    """Out-of-fold predictions of blocks of time, each by a model of what lies before it."""

    kind: Literal["expanding", "rolling"]
    count: Annotated[int, Field(ge=1, le=MOST_FOLDS)]
    share: Inside
    sections: Count | None = None

    @model_validator(mode="after")
    def _rolling_folds_have_a_length(self) -> "WalkForward":
        if (self.kind == "rolling") != (self.sections is not None):
            raise Wrong(
                "must be given for rolling folds, and for them alone: how many sections they learn from", key="sections"
            )
        return self


class Combinatorial(Strict):
    """Out-of-fold predictions of every choice of blocks of time by a model of the others."""

    kind: Literal["combinatorial"]
    groups: Annotated[int, Field(ge=2)]
    tested: Count

    @model_validator(mode="after")
    def _some_group_is_learned_from(self) -> "Combinatorial":
        if self.tested >= self.groups:
            raise Wrong(f"leaves none of the {self.groups} groups to learn from", key="tested")
        if (models := comb(self.groups, self.tested)) > MOST_FOLDS:
            raise Wrong(f"makes {models:,} models of {self.groups} groups, more than {MOST_FOLDS}", key="tested")
        return self
