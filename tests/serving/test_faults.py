"""What is wrong with a request is named and counted, however much it is, in little time."""

from typing import Any

import numpy as np
import pytest

from quant.bundle import Bundle
from serving import rows, v2_tensors
from serving.messages import FactorRow, PredictRows
from serving.problems import LISTED, Faults, Problem, field_error
from serving.v2_messages import Tensor


class Nearest:
    """Counts how often the nearest name is looked for: a millisecond each time."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, name: str, names: Any) -> str | None:
        self.calls += 1
        return None


def test_errors_are_made_only_where_they_are_listed_and_all_are_counted() -> None:
    made: list[int] = []
    faults = Faults()
    faults.each(range(1000), lambda row: made.append(row) or field_error([row], "wrong"))  # type: ignore[func-returns-value]
    faults.each(range(5), lambda row: made.append(row) or field_error([row], "wrong"))  # type: ignore[func-returns-value]
    assert made == list(range(LISTED))
    with pytest.raises(Problem) as caught:
        faults.refuse("wrong-rows")
    assert caught.value.members["error_count"] == 1005
    assert "(and 1004 more)" in str(caught.value.detail)


def test_rows_of_which_no_factor_is_known_are_refused_without_looking_for_each_name(
    bundles: list[Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = Nearest()
    monkeypatch.setattr(rows, "nearest", looked)
    wrong = FactorRow(factors={f"factor_{number}": 1.0 for number in range(100)})
    with pytest.raises(Problem) as caught:
        rows.rows_of(bundles[0], PredictRows(horizon="5m", rows=[wrong] * 64))
    assert caught.value.members["error_count"] == 64 * (100 + len(bundles[0].factors))
    assert looked.calls == LISTED


def test_a_tensor_for_each_factor_is_joined_without_looking_for_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    looked = Nearest()
    monkeypatch.setattr(v2_tensors, "nearest", looked)
    inputs = [Tensor(name, [2], "FP32", data=[1.0, None]) for name in "abc"]
    X = v2_tensors.matrix(inputs, memoryview(b""), ("c", "a", "b"), 10)
    assert np.array_equal(X, np.array([[1, 1, 1], [np.nan] * 3], np.float32), equal_nan=True)
    assert looked.calls == 0
    with pytest.raises(Problem) as caught:
        v2_tensors.matrix(
            [*inputs, *[Tensor("d", [2], "FP32", data=[1, 2])] * 50], memoryview(b""), ("c", "a", "b"), 10
        )
    assert caught.value.members["error_count"] == 50
    assert looked.calls == LISTED
