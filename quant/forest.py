"""A LightGBM model compiled into integers: each leaf as LightGBM chooses it, the same bits everywhere.

LightGBM compares float64 values with float64 thresholds. For float32 input the largest float32 not above the
threshold decides alike, and a float32's bits, read as sign and magnitude, are an integer in the same order.
So each split becomes one integer comparison `key > threshold`: no device's rounding, denormals or fast-math
can turn it. What LightGBM does with missing values and zeros is folded into the key once per row.
Leaf values are summed as scaled int64, and integers add to the same bits in any order.
"""

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

import numpy as np

from quant import tensors
from quant.forest_text import CATEGORICAL, DEFAULT_LEFT, MISSING_NONE, MISSING_ZERO, ForestError, Tree, read

if TYPE_CHECKING:
    from lightgbm import Booster

Name = Literal["native", "mlx", "gpu"]

ZERO_BITS = int(np.float32(1e-35).view(np.int32))  # LightGBM's kZeroThreshold: nearer to zero is zero
INFINITY_BITS = int(np.float32(np.inf).view(np.int32))  # a larger magnitude is NaN
GO_LEFT, GO_RIGHT = -(2**31), 2**31 - 1  # keys below and above every threshold
FORMAT = "tenor-forest-1"


class Evaluator(Protocol):
    """Walks rows down the forest. X: float32 [N, F], C-contiguous."""

    def leaves(self, X: np.ndarray) -> np.ndarray:
        """Leaf numbers as LightGBM counts them, int32 [N, trees]."""

    def totals(self, X: np.ndarray) -> np.ndarray:
        """Sums of scaled leaf values, int64 [N]."""


@dataclass(frozen=True)
class Forest:
    """The compiled model. C columns, M nodes over all trees, R trees, S category sets of W words.

    A *column* is a feature together with one way to read missing values, `(feature, nan_key, zero_key, set)`.
    A row's key in it is nan_key where x is NaN, zero_key where |x| <= 1e-35, else the ordered integer of x;
    in a column with a category set (set >= 0) it is 0 where trunc(x) is in the set and 1 elsewhere.

    A *node* is one int64, `threshold << 32 | column << 16 | step`. The walk goes to `node + step`, plus one
    more where `key > threshold`: siblings are neighbours. A leaf has step 0 and a threshold that no key
    exceeds, so a walk that has arrived stays.
    """

    names: tuple[str, ...]
    transform: str
    slope: float
    divisor: int  # trees of a random forest, else 1
    exponent: int  # totals are in units of 2**-exponent
    depth: int  # steps from a root to the deepest leaf
    columns: np.ndarray  # int32 [C, 4]
    sets: np.ndarray  # int32 [S, W]: bit k of the words is category k
    nodes: np.ndarray  # int64 [M]
    leaf: np.ndarray  # int32 [M]: the leaf's number in its tree, -1 at splits
    value: np.ndarray  # int64 [M]: the leaf's scaled value, 0 at splits
    roots: np.ndarray  # int32 [R]
    _evaluators: dict[str, Evaluator] = field(default_factory=dict, repr=False, compare=False)

    def evaluator(self, name: Name) -> Evaluator:
        """The evaluator of that name, built at first use: native (numba, CPU), mlx (any device) or gpu."""
        if name not in self._evaluators:
            self._evaluators[name] = _evaluator(self, name)
        return self._evaluators[name]

    def warm(self, evaluator: Name = "native") -> None:
        """Compile and load what the first prediction would otherwise wait for."""
        row = np.zeros((1, len(self.names)), np.float32)
        self.leaves(row, evaluator)
        self.raw(row, evaluator)

    def leaves(self, X: np.ndarray, evaluator: Name = "native") -> np.ndarray:
        """Leaf of each row in each tree, int32 [N, trees]: `Booster.predict(X, pred_leaf=True)`."""
        return self.evaluator(evaluator).leaves(self._rows(X))

    def raw(self, X: np.ndarray, evaluator: Name = "native") -> np.ndarray:
        """Raw score, float64 [N]: `Booster.predict(X, raw_score=True)`."""
        totals = self.evaluator(evaluator).totals(self._rows(X))
        raw = totals * 2.0**-self.exponent  # exact: the exponent is within ±1,000
        return raw / self.divisor if self.divisor > 1 else raw

    def predict(self, X: np.ndarray, evaluator: Name = "native") -> np.ndarray:
        """Prediction, float64 [N]: `Booster.predict(X)`. X: float32 [N, F], NaN = missing."""
        raw = self.raw(X, evaluator)
        match self.transform:
            case "square":
                return np.sign(raw) * raw * raw
            case "exp":
                return np.exp(raw)
            case "logistic":
                return 1 / (1 + np.exp(-self.slope * raw))
            case "log1p_exp":
                return np.log1p(np.exp(raw))
        return raw

    def dumps(self) -> bytes:
        """The forest as a safetensors file."""
        return tensors.dumps(
            {name: getattr(self, name) for name in _ARRAYS},
            {"format": FORMAT, **{name: getattr(self, name) for name in _SCALARS}},
        )

    @classmethod
    def loads(cls, data: bytes) -> "Forest":
        """Read what `dumps` wrote; ForestError where it is another format or damaged."""
        try:
            arrays, meta = tensors.loads(data)
            if meta.pop("format", None) != FORMAT:
                raise ForestError(f"not a compiled forest of format {FORMAT}; compile model.txt again")
            values: dict[str, Any] = {**arrays, **meta, "names": tuple(meta["names"])}
            return cls(**values)
        except (tensors.TensorsError, KeyError, TypeError) as error:
            raise ForestError(f"the compiled forest is damaged: {error}") from error

    def check(self, X: np.ndarray) -> None:
        """ForestError for rows that are not float32 or not as wide as the model."""
        if X.dtype != np.float32:
            raise ForestError(f"rows are {X.dtype}, the forest is exact for float32: convert them first")
        if X.ndim != 2 or X.shape[1] != len(self.names):
            raise ForestError(f"rows have shape {list(X.shape)}, the model reads {len(self.names)} columns a row")

    def _rows(self, X: np.ndarray) -> np.ndarray:
        self.check(X)
        return np.ascontiguousarray(X)


_ARRAYS = ("columns", "sets", "nodes", "leaf", "value", "roots")
_SCALARS = tuple(f.name for f in fields(Forest) if f.name not in _ARRAYS and not f.name.startswith("_"))


def _evaluator(forest: Forest, name: str) -> Evaluator:
    if name == "native":
        from quant.forest_native import Native

        return Native(forest)
    if name == "mlx":
        from quant.forest_mlx import Mlx

        return Mlx(forest)
    if name == "gpu":
        from quant.forest_gpu import Gpu

        return Gpu(forest)
    raise ForestError(f"no evaluator {name!r}: choose {', '.join(get_args(Name))}")


def compile(model: "str | Booster") -> Forest:
    """Compile LightGBM model text, or a Booster (its best iteration), into a Forest.

    Raises ForestError for what is not supported: linear leaves, several trees per iteration (multiclass),
    unknown objectives, more than 65,536 columns or 32,768 leaves in a tree.
    """
    parsed = read(model if isinstance(model, str) else model.model_to_string())
    exponent = _exponent(parsed.trees)
    columns = _Columns()
    packed = [_pack(tree, columns) for tree in parsed.trees]
    leaf = [numbers for _, numbers, _ in packed]
    value = [
        np.where(numbers >= 0, np.rint(np.ldexp(tree.value, exponent))[numbers], 0).astype(np.int64)
        for tree, numbers in zip(parsed.trees, leaf, strict=True)
    ]
    if len(columns.rows) > 2**16:
        raise ForestError(f"the model needs {len(columns.rows)} columns, the packed node holds 65,536")
    return Forest(
        names=parsed.features,
        transform=parsed.transform,
        slope=parsed.slope,
        divisor=max(1, len(parsed.trees)) if parsed.average else 1,
        exponent=exponent,
        depth=max((depth for *_, depth in packed), default=0),
        columns=np.array(list(columns.rows), np.int32).reshape(-1, 4),
        sets=columns.bits(),
        nodes=_join([nodes for nodes, *_ in packed], np.int64),
        leaf=_join(leaf, np.int32),
        value=_join(value, np.int64),
        roots=np.cumsum([0, *map(len, leaf)])[:-1].astype(np.int32),
    )


class _Columns:
    """The distinct ways in which splits read a feature, numbered as they are first met."""

    def __init__(self) -> None:
        self.rows: dict[tuple[int, int, int, int], int] = {}
        self.sets: dict[bytes, int] = {}

    def of(self, tree: Tree, split: int, feature: int, decision: int) -> int:
        """Column of that split. Follows LightGBM's `Tree::NumericalDecision` and `CategoricalDecision`."""
        if decision & CATEGORICAL:
            words = np.trim_zeros(tree.sets[int(tree.threshold[split])], "b")
            row = (feature, 1, 1, self.sets.setdefault(words.tobytes(), len(self.sets)))
        else:
            missing = decision >> 2 & 3
            side = GO_LEFT if decision & DEFAULT_LEFT else GO_RIGHT
            nan_key = 0 if missing == MISSING_NONE else side  # type None reads NaN as 0
            row = (feature, nan_key, side if missing == MISSING_ZERO else 0, -1)
        return self.rows.setdefault(row, len(self.rows))

    def bits(self) -> np.ndarray:
        """The sets, int32 [S, W], padded with zeros; W >= 1."""
        words = [np.frombuffer(text, np.int32) for text in self.sets]
        table = np.zeros((len(words), max([1, *map(len, words)])), np.int32)
        for row, part in zip(table, words, strict=True):
            row[: len(part)] = part
        return table


def _pack(tree: Tree, columns: _Columns) -> tuple[np.ndarray, np.ndarray, int]:
    """Lay a tree out breadth first, siblings side by side: (nodes int64, leaf numbers int32, depth)."""
    if len(tree.value) > 2**15:
        raise ForestError(f"a tree has {len(tree.value)} leaves, the packed node holds 32,768")
    # Plain integers: a swap compiles under load, and numpy's scalars would take ten times as long in this loop.
    features, decisions, left, right = (part.tolist() for part in (tree.feature, tree.decision, tree.left, tree.right))
    thresholds = np.where(tree.decision & CATEGORICAL, 0, _keys(_floor(tree.threshold))).tolist()
    order = [0 if features else ~0]  # splits as they are, leaves as ~number
    depths, nodes = [0], []
    for place, item in enumerate(order):  # grows while it is walked
        if item < 0:
            nodes.append(GO_RIGHT << 32)
            continue
        column = columns.of(tree, item, features[item], decisions[item])
        nodes.append(thresholds[item] << 32 | column << 16 | (len(order) - place))
        order += (left[item], right[item])
        depths += (depths[place] + 1, depths[place] + 1)
    return np.array(nodes, np.int64), np.array([max(-1, ~item) for item in order], np.int32), max(depths)


def _floor(thresholds: np.ndarray) -> np.ndarray:
    """The largest float32 not above each float64 threshold."""
    with np.errstate(over="ignore"):
        near = thresholds.astype(np.float32)
    return np.where(near > thresholds, np.nextafter(near, np.float32(-np.inf)), near)


def _keys(x: np.ndarray) -> np.ndarray:
    """The ordered integers, int64, of float32 values: their magnitude bits, with their sign."""
    bits = x.view(np.int32).astype(np.int64)
    return np.where(bits >= 0, bits, -(bits & 0x7FFFFFFF))


def _exponent(trees: tuple[Tree, ...]) -> int:
    """Largest e (at most 1,000) with which no sum of leaf values times 2**e leaves int64."""
    bound = sum(float(np.abs(tree.value).max()) for tree in trees)
    return min(1000, 61 - int(np.frexp(bound)[1])) if bound else 0


def _join(parts: list[np.ndarray], dtype: type) -> np.ndarray:
    return np.concatenate([np.zeros(0, dtype), *parts])
