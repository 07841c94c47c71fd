"""Read the trees out of LightGBM's model text: a parser for the parts that decide a prediction."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

CATEGORICAL, DEFAULT_LEFT = 1, 2  # bits of `decision_type`; bits 2-3 hold the missing type
MISSING_NONE, MISSING_ZERO, MISSING_NAN = 0, 1, 2

IDENTITY = ("regression", "regression_l1", "huber", "fair", "quantile", "mape", "lambdarank", "rank_xendcg")
EXPONENTIAL = ("poisson", "gamma", "tweedie")
LOGISTIC = ("binary", "cross_entropy")


class ForestError(ValueError):
    """A model, or rows for it, that the exact forest cannot answer for; the message says which part."""


@dataclass(frozen=True)
class Tree:
    """One tree as LightGBM writes it: `n - 1` splits for `n` leaves; a child below 0 is the leaf `~child`."""

    feature: np.ndarray  # int [n-1]
    threshold: np.ndarray  # float64 [n-1]; for a categorical split the number of its set
    decision: np.ndarray  # int [n-1]
    left: np.ndarray  # int [n-1]
    right: np.ndarray  # int [n-1]
    value: np.ndarray  # float64 [n]
    sets: tuple[np.ndarray, ...]  # uint32 words of each categorical split's categories


@dataclass(frozen=True)
class Model:
    """What the text says: trees in order, feature names, and how a raw score becomes a prediction."""

    trees: tuple[Tree, ...]
    features: tuple[str, ...]
    transform: str  # identity | square | exp | logistic | log1p_exp
    slope: float  # of the logistic
    average: bool  # random forests answer the mean of their trees


def read(text: str) -> Model:
    """Parse LightGBM model text (version v4); ForestError names what is missing or not supported."""
    if not text.startswith("tree\n"):
        raise ForestError("not LightGBM model text: its first line must be 'tree'")
    if "\nend of trees" not in text:
        raise ForestError("the model text is cut off: it has no 'end of trees' line")
    head, *blocks = text.partition("\nend of trees")[0].split("\nTree=")
    fields = _fields(head)
    if int(fields.get("num_tree_per_iteration", "1")) != 1:
        raise ForestError(
            f"objective {fields.get('objective')!r} grows several trees per iteration (multiclass); "
            "train one binary or regression model per class instead"
        )
    transform, slope = _transform(fields.get("objective", ""))
    return Model(
        trees=tuple(_tree(number, _fields(block)) for number, block in enumerate(blocks)),
        features=tuple(fields["feature_names"].split(" ")),
        transform=transform,
        slope=slope,
        average="average_output" in head.split("\n"),
    )


def _fields(block: str) -> dict[str, str]:
    pairs = (line.partition("=") for line in block.split("\n"))
    return {key: value for key, equals, value in pairs if equals}


def _transform(objective: str) -> tuple[str, float]:
    """How LightGBM's `ObjectiveFunction::ConvertOutput` maps the raw score, read off the objective line."""
    name, *options = objective.split(" ")
    if name in IDENTITY or not name:  # no objective: a custom one, whose raw score is the answer
        return ("square" if "sqrt" in options else "identity"), 1.0
    if name in EXPONENTIAL:
        return "exp", 1.0
    if name in LOGISTIC:
        slope = next((o.partition(":")[2] for o in options if o.startswith("sigmoid:")), "1")
        return "logistic", float(slope)
    if name == "cross_entropy_lambda":
        return "log1p_exp", 1.0
    known = ", ".join((*IDENTITY, *EXPONENTIAL, *LOGISTIC, "cross_entropy_lambda"))
    raise ForestError(f"objective {name!r} is not supported; the known ones are {known}")


def _tree(number: int, fields: dict[str, str]) -> Tree:
    if fields.get("is_linear", "0") != "0":
        raise ForestError(f"tree {number} has linear leaves; train with linear_tree=false")

    def numbers(key: str, dtype: type) -> np.ndarray:
        return np.array(fields.get(key, "").split(), dtype=dtype)

    tree = Tree(
        feature=numbers("split_feature", np.int64),
        threshold=numbers("threshold", np.float64),
        decision=numbers("decision_type", np.int64),
        left=numbers("left_child", np.int64),
        right=numbers("right_child", np.int64),
        value=numbers("leaf_value", np.float64),
        sets=tuple(_sets(numbers("cat_boundaries", np.int64), numbers("cat_threshold", np.uint32))),
    )
    leaves = int(fields["num_leaves"])
    if len(tree.value) != leaves or any(
        len(part) != leaves - 1 for part in (tree.feature, tree.threshold, tree.decision, tree.left, tree.right)
    ):
        raise ForestError(f"tree {number} is damaged: its lists do not fit num_leaves={leaves}")
    if not np.isfinite(tree.value).all():
        raise ForestError(f"tree {number} has a leaf value that is not finite")
    return tree


def _sets(bounds: np.ndarray, words: np.ndarray) -> Iterator[np.ndarray]:
    return (words[a:b] for a, b in pairwise(bounds))
