"""The config of one horizon, typed: what a YAML file may say, and which of it shapes the graph.

Every model is frozen and refuses unknown keys. Defaults live in the YAML files and only there: `None` here
means that something is absent. A field marked STRUCTURAL (sources, calendars, sets: whatever the asset graph
or its resources are built from) is fixed when the code location loads; the others may change from run to run.
"""

import re
from typing import Annotated, Any, Final, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from conf.alerting import Alerts
from conf.errors import nearest
from conf.fields import (
    Amount,
    Attributes,
    CalendarName,
    Clock,
    Count,
    Day,
    Exchange,
    Inside,
    Interval,
    Sets,
    Share,
    Whole,
    Wrong,
    Zone,
    minutes,
)
from conf.learning import Combinatorial, Model, Tuning, WalkForward
from conf.novelty import Novelty
from conf.options import Serving
from conf.refreshing import Automation
from conf.retention import Retention
from conf.retraining import Retraining
from conf.strict import Strict

STRUCTURAL: Final = "structural"

Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]


class Bars(Strict):
    """Where bars come from: "source", or the finer horizon whose bars are resampled."""

    from_: str = Field(alias="from")


class SyntheticSource(Strict):
    """A seeded market with a planted signal of known size."""

    kind: Literal["synthetic"]
    seed: Whole
    start: Day
    sessions: Count | None  # None: it goes on with the clock
    symbols: Count
    signal_ic: Annotated[float, Field(gt=-1, lt=1)]
    gap_rate: Annotated[float, Field(ge=0, lt=1)]
    splits: Whole
    derived: dict[str, str]

    @property
    def identity(self) -> str:
        """What makes it the same market: more sessions of it do not make another."""
        drawn = self.model_dump(mode="json", exclude={"kind", "sessions", "derived"})
        return f"{self.kind}:{','.join(f'{key}={value}' for key, value in drawn.items())}"


class FileSource(Strict):
    """Bars in files that match a glob, whatever their interval."""

    kind: Literal["parquet", "csv"]
    path: str
    columns: dict[str, str]
    volume: str | None = None
    extras: list[str]
    derived: dict[str, str]
    timezone: Zone
    stamp: Literal["start", "end"]
    actions: str | None = None
    start: Day | None = None
    end: Day | None = None

    @property
    def identity(self) -> str:
        """What makes it the same source: more days of it do not make another."""
        return f"{self.kind}:{self.path}"

    @model_validator(mode="after")
    def _columns_are_ours(self) -> "FileSource":
        ours = ["symbol", "timestamp", "open", "high", "low", "close", *self.extras]
        for name in self.columns:
            if name == "volume":
                raise Wrong("has a key of its own, source.volume", key="columns")
            if name not in ours:
                message = f"maps {name}, and the left side must be one of {', '.join(ours)}"
                raise Wrong(message, nearest=nearest(name, ours), key="columns")
        if self.start and self.end and self.end < self.start:
            raise Wrong(f"lies before source.start, {self.start}", key="end")
        return self


class Universe(Strict):
    """The symbols of a horizon (None: all of the source), membership by date, attributes, the one for the market."""

    name: str
    symbols: list[str] | None = None
    members: str | None = None
    attributes: Attributes = None
    reference: str | None = None


class Calendar(Strict):
    """When bars can exist: an exchange_calendars name, "24/7", or a template with hours of its own."""

    name: CalendarName
    timezone: Zone | None = None
    open: Clock | None = None
    close: Clock | None = None
    weekdays: list[Weekday] | None = None
    breaks: list[Annotated[list[Clock], Field(min_length=2, max_length=2)]] | None = None
    holidays: Exchange | None = None

    def spec(self) -> dict[str, Any]:
        """The keys that are set, as `quant.calendars.CalendarSpec` takes them: tuples, Monday as 0."""
        given = self.model_dump(exclude_none=True)
        if self.weekdays is not None:
            given["weekdays"] = tuple(get_args(Weekday).index(day) for day in self.weekdays)
        if self.breaks is not None:
            given["breaks"] = tuple(tuple(pair) for pair in self.breaks)
        return given

    @model_validator(mode="after")
    def _hours_belong_to_templates(self) -> "Calendar":
        for key in ("timezone", "open", "close", "weekdays"):
            given = getattr(self, key)
            if self.name == "template" and not given:
                raise Wrong("is needed by a calendar named template", key=key)
        for key in ("timezone", "open", "close", "weekdays", "breaks", "holidays"):
            if self.name != "template" and getattr(self, key) is not None:
                raise Wrong(f"is for a calendar named template, and this one is {self.name}", key=key)
        return self


class _Parameters(BaseModel):
    """Keys beside those of the schema are the parameters of an expression, under their own names."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    def _parameters(self, key: str, *shared: str) -> dict[str, int | float]:
        """The parameters that the expression of that key uses, of these fields too; Wrong for one that it does not."""
        text = getattr(self, key)
        names = set(re.findall(r"[A-Za-z_]\w*", text))
        given = dict(self.model_extra or {})
        for name, value in given.items():
            if name not in names:
                known = nearest(name, [*type(self).model_fields, *names])
                message = f"must be a parameter that {key} uses: {text} (~label.{name} takes it away)"
                raise Wrong(message, nearest=known, key=name)
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise Wrong("must be a number", key=name)
            if isinstance(value, int) and value < 1:
                raise Wrong("must be at least 1: a whole number counts bars", key=name)
        return given | {name: getattr(self, name) for name in shared if name in names}


class Label(_Parameters):
    """What is predicted: an expression that may look ahead, and its parameters under their own names."""

    kind: Literal["expression"]
    name: str
    expr: str
    entry: Literal["next_open", "this_close"]

    @property
    def params(self) -> dict[str, int | float]:
        """The parameters that `expr` uses, by name."""
        return self._parameters("expr")

    @model_validator(mode="after")
    def _parameters_are_used_numbers(self) -> "Label":
        self._parameters("expr")
        return self


class TripleBarrier(_Parameters):
    """What is predicted: the return until a profit, a loss or the end of its time, in units of `width`."""

    kind: Literal["triple_barrier"]
    name: str
    width: str
    profit: Annotated[float, Field(gt=0)] | None = None
    loss: Annotated[float, Field(gt=0)] | None = None
    bars: Count
    entry: Literal["next_open", "this_close"]
    tie: Literal["loss", "profit"]

    @property
    def params(self) -> dict[str, int | float]:
        """The parameters that `width` uses, by name."""
        return self._parameters("width", "bars")

    @model_validator(mode="after")
    def _parameters_are_used_numbers(self) -> "TripleBarrier":
        self._parameters("width", "bars")
        return self


class Costs(Strict):
    """What trading costs, in basis points of the traded value, and how predictions become positions."""

    bps_per_side: Amount
    spread_bps: Amount
    slippage_bps: Amount
    weighting: Literal["rank", "deciles", "proportional"]
    overnight: bool


class Judging(Strict):
    """When a new model replaces the one that serves."""

    metric: Literal["rank_ic", "net_return"]
    margin: float
    level: Annotated[float, Field(ge=0.001, le=0.5)]
    correct_for_tries: bool
    min_sections: Annotated[int, Field(ge=2)]
    first: Literal["always", "significant"]


class RealizedScores(Strict):
    """When what was served scores worse than judging promised. min_sections: of either side, or nothing is said."""

    sessions: Count
    kept: Annotated[float, Field(gt=0, le=1)]
    level: Annotated[float, Field(gt=0, le=0.5)]
    min_sections: Annotated[int, Field(ge=2)]


class Drift(Strict):
    """When the latest sessions no longer look like the training data."""

    method: Literal["wasserstein", "jensenshannon", "psi", "kl_div", "hellinger", "ed"]
    rate: Inside
    share: Annotated[float, Field(ge=0, lt=1)]
    severe_share: Annotated[float, Field(ge=0, lt=1)]
    window_sessions: Annotated[Count, STRUCTURAL]  # how many partitions of factors a report reads
    calibration_windows: Annotated[int, Field(ge=2)]
    sample_rows: Count
    max_columns: Count
    evidently_page: bool
    realized: RealizedScores

    @model_validator(mode="after")
    def _severe_is_more(self) -> "Drift":
        if self.severe_share < self.share:
            raise Wrong(f"must not be below drift.share, {self.share}", key="severe_share")
        return self


class Validation(Strict):
    """When a bar is on another price scale, and when the rows that break their declared bounds are too many."""

    max_rejected: Share
    max_jump: Annotated[float, Field(gt=1, allow_inf_nan=False)] | None


class Vectors(Strict):
    """Which factors make the vector of a market state, what standardises them, and how states are searched."""

    window: Annotated[int, Field(ge=2)]
    index: Literal["none", "hnsw", "diskann"]
    apart: Count
    columns: Annotated[list[str], Field(min_length=1, max_length=64)] | None = None


class Store(Strict):
    """Where tables, models and reports are kept: a folder or an object store's URL."""

    root: Annotated[str, Field(min_length=1)]


class Elsewhere(Strict):
    """Another horizon as expressions read it, with at("1h", x): never written in a file, composed from its own."""

    interval: Interval
    calendar: Calendar
    extras: list[str]
    derived: dict[str, str]
    attributes: Attributes = None
    features: Sets


class Horizon(Strict):
    """Everything one horizon's pipeline is built from, resolved."""

    name: str
    interval: Annotated[Interval, STRUCTURAL]
    bars: Annotated[Bars, STRUCTURAL]
    automation: Annotated[Automation, Field(discriminator="kind"), STRUCTURAL]
    partition: Annotated[Literal["day", "month", "year"], STRUCTURAL]
    source: Annotated[SyntheticSource | FileSource, Field(discriminator="kind"), STRUCTURAL]
    universe: Annotated[Universe, STRUCTURAL]
    calendar: Annotated[Calendar, STRUCTURAL]
    features: Annotated[Sets, STRUCTURAL]
    factors: Annotated[Sets, STRUCTURAL]
    label: Annotated[Label | TripleBarrier, Field(discriminator="kind")]
    model: Model
    folds: Annotated[WalkForward | Combinatorial, Field(discriminator="kind")]
    tuning: Tuning
    costs: Costs
    validation: Validation
    judging: Judging
    drift: Drift
    retraining: Retraining
    vectors: Vectors
    novelty: Novelty
    store: Annotated[Store, STRUCTURAL]
    serving: Annotated[Serving, STRUCTURAL]
    alerts: Annotated[Alerts, STRUCTURAL]  # the sensor that tells them is made of it
    retention: Retention
    at: Annotated[dict[str, Elsewhere] | None, STRUCTURAL] = None  # the horizons that its expressions read

    @model_validator(mode="after")
    def _the_loss_can_be_compared(self) -> "Horizon":
        if self.tuning.wanted and self.tuning.metric == "loss":
            if self.model.objective in ("lambdarank", "rank_xendcg"):
                raise Wrong(
                    f"must have a metric that a {self.model.objective} model has: rank_ic or ic",
                    key=("tuning", "metric"),
                )
            if "alpha" in self.tuning.space:
                raise Wrong(
                    "must not be searched by the loss, which alpha itself defines", key=("tuning", "space", "alpha")
                )
        return self

    @property
    def minutes(self) -> int:
        """The interval's length; a day counts as 1440."""
        return minutes(self.interval)
