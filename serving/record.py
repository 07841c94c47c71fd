"""What one request was predicted: handed from the scorer to whoever keeps or compares it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import NamedTuple

import numpy as np

from serving.predictor import Predictor

Key = tuple[str | None, datetime | None]  # symbol and bar of a row, None where the client did not say


class Record(NamedTuple):
    """The rows of one request and their answers. Nobody may change the arrays.

    request_id: unique in all the world; its row n is signal `<request id>.<n>`. at: when the answer was made.
    X: float32 [N, F], the factors as the client gave them; values: float64 [N]; keys: per row, None where no row
    has one. seconds: from the request's arrival at the scorer to its answer.
    """

    request_id: str
    at: datetime
    route: str
    horizon: str
    predictor: Predictor
    X: np.ndarray
    values: np.ndarray
    keys: Sequence[Key] | None
    seconds: float


@dataclass(frozen=True)
class Scored:
    """Answers float64 [N] to one request, in its rows' order.

    novelty: of each row, float32 [N], None where it is not measured. abstained: whether each answer is no signal,
    bool [N]: the bundle's own rule, and all False where it has none.
    """

    values: np.ndarray
    request_id: str
    novelty: np.ndarray | None = None
    abstained: np.ndarray | None = None

    @cached_property
    def signals(self) -> list[str]:
        """The id of each row's prediction."""
        return [f"{self.request_id}.{row}" for row in range(len(self.values))]

    def told(self) -> Iterator[tuple[str, float, float | None, bool]]:
        """Signal, prediction, novelty and whether the model abstained, of each row, as JSON values."""
        novelty = [None] * len(self.values) if self.novelty is None else self.novelty.tolist()
        abstained = [False] * len(self.values) if self.abstained is None else self.abstained.tolist()
        return zip(self.signals, self.values.tolist(), novelty, abstained, strict=True)
