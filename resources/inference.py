"""Client of the inference service: what the pipeline and the command line ask of it, over HTTP."""

import os
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType, TracebackType
from typing import Any, Self

import httpx
import polars as pl

KEY_VARIABLE = "TENOR_API_KEY"  # where the service asks for one: what this process sends
PAUSE = 0.1  # seconds between looks while waiting for the service

_SCHEMA: dict[str, pl.DataType] = {
    "symbol": pl.String(),
    "timestamp": pl.Datetime("us", "UTC"),
    "prediction": pl.Float64(),
    "coverage": pl.Float64(),
    "novelty": pl.Float32(),
    "abstained": pl.Boolean(),
}


class InferenceError(RuntimeError):
    """The service refused; `problem` is its RFC 9457 document."""

    def __init__(self, message: str, problem: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.problem = problem or {}


class ServiceDown(InferenceError):
    """Nothing answers at the service's address."""


@dataclass(frozen=True)
class Predicted:
    """Predictions of one bundle. frame: symbol, timestamp, prediction, coverage, novelty, abstained."""

    bundle: str
    number: int
    frame: pl.DataFrame


class Inference:
    """A connection to the service at `url`; close it, or use it in a `with` block."""

    def __init__(self, url: str = "http://127.0.0.1:8321", *, timeout: float = 60.0) -> None:
        self.url = url.rstrip("/")
        # A local service is never behind the proxy that the environment may name.
        key = os.environ.get(KEY_VARIABLE)
        headers = {"authorization": f"Bearer {key}"} if key else {}
        self._client = httpx.Client(base_url=self.url, timeout=timeout, trust_env=False, headers=headers)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def wait_ready(self, timeout: float = 60.0) -> None:
        """Wait until a bundle serves; after `timeout` seconds raise what is missing."""
        until = time.monotonic() + timeout
        while not self._ready():
            if time.monotonic() >= until:
                health = self.health()
                raise InferenceError(
                    f"the service at {self.url} serves no bundle after {timeout:g} s: {_troubles(health)}",
                    health,
                )
            time.sleep(PAUSE)

    def wait_alive(self, timeout: float = 30.0) -> None:
        """Return once the process answers, with or without a bundle; ServiceDown after `timeout` seconds."""
        until = time.monotonic() + timeout
        while True:
            try:
                self.health()
                return
            except ServiceDown:
                if time.monotonic() >= until:
                    raise
            time.sleep(PAUSE)

    def health(self) -> dict[str, Any]:
        """The health answer: status, and per horizon the bundle, since when and the model's age."""
        return self._ask("GET", "/health")

    def models(self) -> list[dict[str, Any]]:
        """What serves each horizon, with factor names, look-back and scores."""
        return self._ask("GET", "/models")

    def load(self, horizon: str) -> dict[str, Any]:
        """Make the service serve what the ledger says; InferenceError with the reason where it refuses."""
        return self._ask("POST", f"/models/{horizon}/load")

    def predict_rows(self, horizon: str, frame: pl.DataFrame) -> Predicted:
        """Predict from factors. frame: symbol, timestamp, a column per factor (null or NaN: missing)."""
        names = [name for name in frame.columns if name not in ("symbol", "timestamp")]
        rows = [
            {
                "symbol": row["symbol"],
                "timestamp": row["timestamp"],
                "factors": {name: row[name] for name in names},
            }
            for row in _json_rows(frame, names)
        ]
        return self._predict({"horizon": horizon, "rows": rows})

    def predict_bars(
        self,
        horizon: str,
        bars: pl.DataFrame,
        last: int = 1,
        absent: Collection[str] = (),
        at: Mapping[str, pl.DataFrame] = MappingProxyType({}),
    ) -> Predicted:
        """Predict the newest `last` slots from bars.

        bars: rows of the bars table, the whole section where the model needs it, reaching its look-back.
        absent: symbols of the section that truly have no bar in this window. at: bars of the other horizons that the
        model reads, by name.
        """
        others = {name: _json_bars(theirs) for name, theirs in at.items()}
        body = {"horizon": horizon, "bars": _json_bars(bars), "last": last, "absent": sorted(absent), "at": others}
        return self._predict(body)

    def _predict(self, body: dict[str, Any]) -> Predicted:
        answer = self._ask("POST", "/predict", body)
        rows = [{**row, "timestamp": _instant(row["timestamp"])} for row in answer["predictions"]]
        return Predicted(answer["bundle"], answer["number"], pl.DataFrame(rows, schema=_SCHEMA))

    def _ready(self) -> bool:
        try:
            return self._client.get("/ready").status_code == 200
        except httpx.TransportError:
            return False

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        try:
            response = self._client.request(method, path, json=body)
        except httpx.TimeoutException as error:
            raise InferenceError(
                f"the inference service at {self.url} did not answer {path} within "
                f"{self._client.timeout.read:g} s: it may be loading a bundle; look at {self.url}/health"
            ) from error
        except httpx.TransportError as error:
            raise ServiceDown(
                f"no inference service answers at {self.url} ({error}): start it with `tenor serve`"
            ) from error
        if response.is_success:
            return response.json()
        if "json" not in response.headers.get("content-type", ""):
            raise InferenceError(
                f"{self.url}{path} answered {response.status_code} without a problem document: is it Tenor?"
            )
        problem = response.json()
        raise InferenceError(f"{self.url}{path}: {problem['detail']}", problem)


def _json_bars(bars: pl.DataFrame) -> list[dict[str, Any]]:
    sent = bars.drop("known_at", "source", strict=False)
    return _json_rows(sent, [name for name in sent.columns if name not in ("symbol", "timestamp")])


def _json_rows(frame: pl.DataFrame, numbers: Collection[str]) -> list[dict[str, Any]]:
    """Rows as JSON takes them: NaN as null, timestamps as ISO 8601."""
    floats = [name for name in numbers if frame.schema[name].is_float()]
    # Float32 widens to float64 without rounding, so the service gets back the same float32.
    return frame.with_columns(
        pl.col(floats).cast(pl.Float64).fill_nan(None),
        pl.col("timestamp").dt.strftime("%Y-%m-%dT%H:%M:%S%.6fZ"),
    ).to_dicts()


def _instant(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text).astimezone(UTC) if text else None


def _troubles(health: dict[str, Any]) -> str:
    found = [f"{name}: {one['problem'] or one['status']}" for name, one in health["horizons"].items()]
    return "; ".join(found) or "its registry is empty, train a model with `tenor run`"
