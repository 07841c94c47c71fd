"""When bars are fetched by themselves, and what counts as late or slow: the types of conf/automation/*.yaml."""

import re
from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import AfterValidator

from conf.fields import Count, Interval, Whole, Wrong, Zone
from conf.strict import Strict


def _cron(text: str) -> str:
    if not re.fullmatch(r"\S+( \S+){4}", text) or not re.fullmatch(r"[\w*/, -]+", text):
        raise Wrong('must be five fields, such as "30 21 * * mon-fri": minute, hour, day, month, weekday')
    if re.search(r"\b[rh]\b", text, re.IGNORECASE):  # croniter takes R, and each process would have another moment
        raise Wrong("must be a cron line that names its moments: R and H stand for drawn ones")
    # Dagster reads the line when it is due. Imported where it is needed: that takes a second.
    from dagster._utils.schedules import get_latest_completed_cron_tick, is_valid_cron_string

    if not is_valid_cron_string(text):
        ranges = "minute 0-59, hour 0-23, day 1-31, month 1-12 or jan-dec, weekday 0-7 or sun-sat"
        raise Wrong(f"must be a cron line whose fields can be: {ranges}; and its day must be one of its month")
    try:
        get_latest_completed_cron_tick(text, datetime(2024, 1, 1, tzinfo=UTC), "UTC")
    except ValueError:
        raise Wrong("must be a cron line that comes round: no month of it has such a day") from None
    return text


class Off(Strict):
    """Nothing of the horizon runs by itself."""

    kind: Literal["off"]


class _Refreshed(Strict):
    """What every way of refreshing has.

    revisions: sessions before the newest that are fetched again each time. most_minutes: after which a run is ended.
    retry_seconds: before a failed refresh is tried again, doubled each time. retry_failed: how often steps that
    failed are tried again without a change of what they read; None: not.
    """

    delay_seconds: Whole
    revisions: Whole
    late_minutes: Count
    expected_minutes: Count
    most_minutes: Count
    retry_seconds: Count
    retry_failed: Literal["hourly", "daily"] | None = None


class AfterSession(_Refreshed):
    """Bars are fetched once after each session's close."""

    kind: Literal["session"]


class AfterInterval(_Refreshed):
    """Bars are fetched at every interval's end inside sessions; None: the horizon's own interval."""

    kind: Literal["interval"]
    every: Interval | None = None


class AtCron(_Refreshed):
    """Bars are fetched at the moments of a cron line."""

    kind: Literal["cron"]
    cron: Annotated[str, AfterValidator(_cron)]
    timezone: Zone


Refreshed = AfterSession | AfterInterval | AtCron
Automation = Refreshed | Off
