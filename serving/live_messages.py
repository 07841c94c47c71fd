"""What the live routes take and answer, as typed JSON."""

from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, ConfigDict, Field

from serving.messages import EXAMPLE_BAR, Abstained, Coverage, FieldError, Message, Novelty, Number, WithExtras


def _utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("lies outside the years 1 to 9999 in UTC") from error


Moment = Annotated[AwareDatetime, AfterValidator(_utc)]
# Of a question, where a person types it: UTC unless it says otherwise. A pushed bar has to say, for it is kept.
Asked = Annotated[
    datetime, AfterValidator(lambda moment: _utc(moment if moment.tzinfo else moment.replace(tzinfo=UTC)))
]


class PushedBar(WithExtras):
    """A bar that has closed, raw as its venue reported it; further numeric columns go beside these."""

    symbol: str
    timestamp: Moment = Field(description="START of the bar; daily bars: the session date at 00:00 UTC")
    open: Number | None
    high: Number | None
    low: Number | None
    close: Number | None
    volume: Number | None = Field(default=None, description="null where the venue reports none")


class PushBars(Message):
    """One closed bar or many, of any slots. A bar sent again with other values is a revision."""

    horizon: str
    bars: list[PushedBar] = Field(min_length=1)

    model_config = ConfigDict(json_schema_extra={"examples": [{"horizon": "5m", "bars": [EXAMPLE_BAR]}]})


class Pushed(Message):
    """What became of pushed bars: those not refused are on the disk."""

    horizon: str
    new: int
    same: int = Field(description="were there with these values")
    revised: int = Field(description="were there with other values: the new ones are served")
    late: int = Field(description="of the new and revised: came after their section had closed; they restate it")
    old: int = Field(description="lie before the live state: the bars step takes them from the journal")
    refused: list[FieldError] = Field(default=[], description="bars left out, and why; the first 20")
    refused_count: int = 0


class Signal(Message):
    """A prediction for one symbol of a section."""

    signal: str = Field(description="its id, in the prediction log too")
    symbol: str
    prediction: float | None
    coverage: Coverage
    novelty: Novelty
    abstained: Abstained


class Section(Message):
    """The signals of one closed section, as they were sent."""

    horizon: str
    timestamp: datetime = Field(description="start of the bar that closed")
    closed_at: datetime
    bundle: str
    number: int = Field(description="entry of the promotion ledger that the bundle serves under")
    coverage: float = Field(description="share of the members whose bar had arrived, 0 to 1")
    complete: bool = Field(description="false: the deadline closed it")
    restated_at: datetime | None = Field(default=None, description="when a late bar changed the section's bars")
    signals: list[Signal]


class Signals(Message):
    """The newest closed sections of a horizon, newest first."""

    horizon: str
    sections: list[Section]


class Gap(Message):
    """Bars of which nothing is told."""

    after: datetime
    before: datetime


class Series(Message):
    """Values of one symbol, by column, oldest first."""

    horizon: str
    symbol: str
    timestamp: list[datetime]
    columns: dict[str, list[float | None]]
    known_at: list[datetime] | None = Field(default=None, description="when each bar could first be read")
    next: str | None = Field(default=None, description="send it back as `cursor` for the rows before these")
    gap: Gap | None = Field(
        default=None,
        description="where a feed ran far ahead of the pipeline: the features of the bars between these two are not "
        "made yet, `tenor refresh` makes them",
    )
