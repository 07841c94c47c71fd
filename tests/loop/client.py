"""A client that asks a service all the time, keeps every answer, and holds it against the bundle that it names."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np
import polars as pl

PAUSE = 0.1  # seconds between two questions
ROWS = 8  # of a question, at most


@dataclass(frozen=True)
class Answer:
    """What was asked and what came. X: the rows of a POST /predict, float32 [N, F]; None of another question."""

    path: str
    status: int
    body: Any
    X: np.ndarray | None = None


class Client(threading.Thread):
    """Asks for predictions of rows drawn with a seed, and every few times for health and signals."""

    def __init__(self, url: str, horizon: str, factors: list[str]) -> None:
        super().__init__(name="client")
        self.answers: list[Answer] = []
        self.trouble: BaseException | None = None  # what a question ended with, if not with an answer
        self._url, self._horizon, self._factors = url, horizon, factors
        self._ended = threading.Event()
        self._chance = np.random.default_rng(1)

    def run(self) -> None:
        try:
            with httpx.Client(base_url=self._url, timeout=60, trust_env=False) as asked:
                number = 0
                while not self._ended.wait(PAUSE):
                    number += 1
                    self.answers.append(self._ask(asked, number))
        except BaseException as error:
            self.trouble = error

    def end(self) -> None:
        """The question under way is the last."""
        self._ended.set()
        self.join(120)
        assert not self.is_alive(), "a question has no answer"

    def _ask(self, asked: httpx.Client, number: int) -> Answer:
        if number % 5 == 0:
            path = "/health" if number % 10 else f"/signals/{self._horizon}"
            came = asked.get(path)
            return Answer(path, came.status_code, came.json())
        shape = int(self._chance.integers(1, ROWS + 1)), len(self._factors)
        X = (self._chance.normal(size=shape) * 10.0 ** self._chance.integers(-4, 1, shape)).astype(np.float32)
        X[self._chance.random(shape) < 0.05] = np.nan
        rows = [
            {"factors": {name: None if np.isnan(x) else float(x) for name, x in zip(self._factors, row, strict=True)}}
            for row in X
        ]
        came = asked.post("/predict", json={"horizon": self._horizon, "rows": rows})
        return Answer("/predict", came.status_code, came.json(), X)


@contextmanager
def asking(url: str, horizon: str) -> Iterator[Client]:
    """A client of the service at `url`, which asks until the context ends."""
    factors = httpx.get(f"{url}/models/{horizon}", trust_env=False).raise_for_status().json()["factors"]
    client = Client(url, horizon, factors)
    client.start()
    try:
        yield client
    finally:
        client.end()


def signals(answers: Sequence[Answer]) -> pl.DataFrame:
    """A row for each prediction: signal, bundle, number, prediction, in the order in which they came."""
    return pl.DataFrame(
        [
            {"signal": row["signal"], "bundle": one.body["bundle"], "number": one.body["number"],
             "prediction": row["prediction"]}
            for one in answers
            for row in one.body["predictions"]
        ],
        schema={"signal": pl.String, "bundle": pl.String, "number": pl.Int64, "prediction": pl.Float64},
    )  # fmt: skip
