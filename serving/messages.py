"""What clients send and what the service answers, as typed JSON."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

# JSON has no NaN: a missing value is null, and a text or a truth value is never taken for a number.
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]

Coverage = Annotated[float, Field(description="share of the factors that had a value, 0 to 1")]
Novelty = Annotated[
    float | None,
    Field(description="share of training rows that are less unusual than this one, 0 to 1; null: an older bundle"),
]
Abstained = Annotated[bool, Field(description="true: the inputs are too unlike training; the prediction is no signal")]

# The next bar of the market that a first `make run` makes.
EXAMPLE_BAR: JsonDict = {
    "symbol": "S000",
    "timestamp": "2021-03-31T13:30:00Z",
    "open": 49.0,
    "high": 49.2,
    "low": 48.9,
    "close": 49.1,
    "volume": 35000,
}

Status = Literal["serving", "loading", "empty", "refused", "unloaded"]


class Message(BaseModel):
    """A request or an answer: unknown keys are an error, never ignored."""

    model_config = ConfigDict(extra="forbid")


class FactorRow(Message):
    """The inputs of one prediction: every factor of the bundle by name, null where it is missing."""

    symbol: str | None = Field(default=None, description="given back with the prediction")
    timestamp: AwareDatetime | None = Field(default=None, description="given back with the prediction")
    factors: dict[str, Number | None]


class WithExtras(BaseModel):
    """A message beside whose own keys any others are numbers."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Number | None]

    @property
    def extras(self) -> dict[str, float | None]:
        return self.__pydantic_extra__


class Bar(WithExtras):
    """One bar as its venue reported it; further numeric columns that the expressions read go beside these."""

    symbol: str
    timestamp: AwareDatetime = Field(description="START of the bar; daily bars: the session date at 00:00 UTC")
    open: Number
    high: Number
    low: Number
    close: Number
    volume: Number | None = Field(default=None, description="null where the venue reports none")
    price_factor: Number = Field(default=1.0, gt=0, description="cumulative forward adjustment; 1 before any split")
    volume_factor: Number = Field(default=1.0, gt=0, description="cumulative forward adjustment of volume")


class PredictRows(Message):
    """Predict from factor values."""

    horizon: str
    rows: list[FactorRow] = Field(min_length=1)

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"horizon": "5m", "rows": [{"symbol": "S000", "factors": {"rsi_14": 55.2, "macd": None}}]}]
        }
    )


class PredictBars(Message):
    """Predict from bars: the service computes the factors with the bundle's own expressions."""

    horizon: str
    bars: list[Bar] = Field(min_length=1)
    last: int = Field(default=1, ge=1, description="predict the newest so many slots of the grid")
    absent: list[str] = Field(default=[], description="symbols of the section that truly have no bar in this window")
    at: dict[str, list[Bar]] = Field(
        default={}, description="bars of the other horizons that the expressions read (`at` in `GET /models`), by name"
    )

    model_config = ConfigDict(json_schema_extra={"examples": [{"horizon": "5m", "last": 1, "bars": [EXAMPLE_BAR]}]})


PredictBody = PredictRows | PredictBars


class Prediction(Message):
    """One signal: null where the model cannot say."""

    signal: str = Field(description="id of this prediction, for `tenor explain`")
    symbol: str | None
    timestamp: datetime | None
    prediction: float | None
    coverage: Coverage
    novelty: Novelty
    abstained: Abstained


class Predictions(Message):
    """Predictions and the bundle that made all of them."""

    horizon: str
    bundle: str
    number: int = Field(description="the ledger entry under which it serves, or its champion, where it is a canary")
    predictions: list[Prediction]


class OtherBars(Message):
    """What the expressions read of another horizon: its bars must be sent beside the horizon's own."""

    interval: str
    calendar: str
    look_back: int = Field(description="slots before the newest that had closed at the first slot of the own look-back")
    columns: list[str] = Field(description="bar columns and calendar fields that the expressions read")


class BesideChampion(Message):
    """The newest bundle that never served, beside the champion."""

    bundle: str
    status: Literal["shadow", "canary", "refused"]
    share: float = Field(description="of the requests that it answers; in shadow it answers none")
    problem: str | None = Field(default=None, description="why it cannot score the champion's requests")


class Model(Message):
    """What serves one horizon and what it needs, or why nothing does."""

    horizon: str
    status: Status
    problem: str | None = Field(default=None, description="why the ledger's newest bundle does not serve")
    bundle: str | None = None
    number: int | None = Field(default=None, description="entry of the promotion ledger it serves under")
    why: str | None = Field(default=None, description="the ledger's reason")
    loaded_at: datetime | None = None
    promoted_at: datetime | None = Field(default=None, description="when this bundle was first promoted")
    evaluator: str | None = Field(
        default=None, description="how the forest is walked; every evaluator gives the same bits"
    )
    interval: str | None = None
    calendar: str | None = None
    look_back: int | None = Field(default=None, description="slots before the first predicted one that bars must reach")
    needs_section: bool | None = Field(default=None, description="whether bars of all symbols must be sent together")
    symbols: list[str] = []
    factors: list[str] = []
    columns: list[str] = Field(default=[], description="bar columns and calendar fields that the expressions read")
    at: dict[str, OtherBars] = Field(default={}, description="the other horizons that the expressions read, by name")
    label: dict[str, Any] = {}
    scores: dict[str, Any] = {}
    challenger: BesideChampion | None = Field(default=None, description="null: no newer bundle, or none is looked for")


class Rollback(Message):
    """Why to go back, and from where."""

    why: str = Field(default="rolled back over HTTP", min_length=1, max_length=500, description="kept in the ledger")
    number: int | None = Field(default=None, ge=1, description="undo this ledger entry, and no other that came since")

    model_config = ConfigDict(json_schema_extra={"examples": [{"why": "trades too much", "number": 7}]})


class Loaded(Message):
    """The outcome of asking for the ledger's bundle."""

    horizon: str
    bundle: str
    number: int
    changed: bool = Field(description="false: it served already")
    previous: str | None


class HorizonHealth(Message):
    """One horizon in the health answer."""

    status: Status
    bundle: str | None
    number: int | None
    since: datetime | None = Field(description="when this bundle took over the traffic")
    model_age_seconds: float | None = Field(description="time since the bundle was first promoted")
    newest_bar: datetime | None = Field(description="start of the newest bar that the live state has")
    data_age_seconds: float | None = Field(description="time since the newest bar began; null without a live state")
    problem: str | None


class Health(Message):
    """Whether the service is well: `degraded` serves, but not everything the ledger names."""

    status: Literal["starting", "serving", "degraded", "empty"]
    store: str = Field(description="root of the store whose registry is served")
    started_at: datetime
    uptime_seconds: float
    horizons: dict[str, HorizonHealth]
    log_problem: str | None = Field(description="why answers cannot be written to the prediction log")
    keys_problem: str | None = Field(description="which lines of the API keys' file are no keys, or why it has none")


class Live(Message):
    """Liveness: the process answers."""

    live: bool


class Ready(Message):
    """Readiness: true once the start-up loads are through and a bundle serves."""

    ready: bool


class FieldError(BaseModel):
    """One thing wrong with a request, and where."""

    pointer: str
    field: str
    detail: str
    row: int | None = None
    column: int | None = None
    nearest: str | None = None


class ProblemDocument(BaseModel):
    """An RFC 9457 problem document."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    detail: str
    instance: str
    correlation_id: str | None = None
    errors: list[FieldError] | None = None
