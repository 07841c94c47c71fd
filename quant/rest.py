"""The value of each step where every bar so far is missing: what registers hold before the first row."""

from collections.abc import Callable, Sequence
from typing import Any

import mlx.core as mx
import numpy as np

from quant.evaluation import compute
from quant.primitive import Step

# One number at a time NumPy is much faster than MLX, and elementary arithmetic has one right answer.
_ELEMENTARY: dict[str, Callable[..., Any]] = {
    "add": np.add,
    "subtract": np.subtract,
    "multiply": np.multiply,
    "divide": np.divide,
    "negate": np.negative,
    "less": np.less,
    "less_equal": np.less_equal,
    "greater": np.greater,
    "greater_equal": np.greater_equal,
    "equal": np.equal,
    "not_equal": np.not_equal,
    "present": lambda x: np.equal(x, x),
    "both": np.logical_and,
    "as_float": np.float32,
    "select": lambda mask, x, y: x if mask else y,
    "minimum": np.minimum,
    "maximum": np.maximum,
    "absolute": np.abs,
    "sqrt": np.sqrt,
}


def resting(steps: Sequence[Step]) -> dict[Step, float]:
    """The resting value of each step. steps: arguments before what reads them."""
    values: dict[Step, Any] = {}
    with np.errstate(all="ignore"):
        for step in steps:
            args = [values[arg] for arg in step.args]
            if step.op == "constant":
                values[step] = np.float32(step.fixed[0])
            elif step.op == "column":
                values[step] = np.float32("nan")
            elif step.op == "section":
                assert all(arg != arg for arg in args), f"{step.fixed[0]} of a section without bars has a value"
                values[step] = np.float32("nan")
            elif step.op in _ELEMENTARY:
                values[step] = _ELEMENTARY[step.op](*args)
            else:
                made = compute(step, (), *(mx.array(arg) for arg in args))
                mx.eval(made)  # waits without the interpreter's lock: a service goes on answering meanwhile
                values[step] = np.array(made)[()]
    return {step: float(value) for step, value in values.items()}
