"""The types of single config values: each says in its message what the value must be."""

import math
import re
from collections.abc import Sequence
from datetime import date
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any
from zoneinfo import ZoneInfo, available_timezones

from pydantic import AfterValidator, BeforeValidator, Field

from conf.errors import nearest

UNITS = {"m": 1, "h": 60, "d": 1440}
RANGE = ("low", "high", "step", "log")


class Wrong(ValueError):
    """A value that cannot be: the message completes "key is value; it ...", and may name a neighbour.

    A check of several keys together names the one to blame in `key`, or the way to it.
    """

    def __init__(self, message: str, *, nearest: str | None = None, key: str | Sequence[str] = ()) -> None:
        super().__init__(message)
        self.nearest = nearest
        self.key = key


def minutes(interval: str) -> int:
    """The length of an interval, in minutes; a day counts as 1440 whatever its session's hours."""
    match = re.fullmatch(r"([1-9]\d*)([mhd])", interval)
    if not match:
        raise Wrong("must be a whole number and a unit, m, h or d, such as 5m, 1h or 1d")
    length = int(match[1]) * UNITS[match[2]]
    if length > 1440 or (length == 1440 and match[2] != "d"):
        raise Wrong("must be shorter than a day, or 1d: the longest bar is one session")
    return length


def _interval(text: object) -> object:
    minutes(str(text))
    return text


def _day(value: object) -> object:
    if isinstance(value, str):
        try:
            return date.fromisoformat(value)
        except ValueError:
            raise Wrong("must be a date such as 2024-01-31") from None
    return value


def _clock(value: object) -> object:
    if isinstance(value, int):  # YAML 1.1 reads 18:00 as a number to base 60
        raise Wrong('must be a time of day in quotes, such as "18:00"')
    if not isinstance(value, str) or not re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d", value):
        raise Wrong('must be a time of day such as "09:30"')
    return value


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (LookupError, OSError, ValueError):  # unknown; a folder of zones; a path
        known = available_timezones()
        raise Wrong("must be a time zone such as America/New_York", nearest=nearest(name, known)) from None
    return name


@cache
def _calendars() -> frozenset[str]:
    import exchange_calendars

    return frozenset(exchange_calendars.get_calendar_names())


def _exchange(name: str) -> str:
    spec = find_spec("exchange_calendars")
    assert spec
    assert spec.origin
    # An exchange's own code is a module's name: looking for the file spares importing pandas.
    module = Path(spec.origin).parent / f"exchange_calendar_{name.lower()}.py"
    if not (name.isupper() and name.isalpha() and module.is_file()) and name not in _calendars():
        known = nearest(name, sorted(_calendars()))
        raise Wrong("must be a calendar that exchange_calendars knows, such as XNYS", nearest=known)
    return name


def _calendar(name: str) -> str:
    if name in ("24/7", "template"):
        return name
    try:
        return _exchange(name)
    except Wrong as wrong:
        raise Wrong(f"{wrong}, or 24/7 or template", nearest=wrong.nearest) from None


def _entry(entry: object) -> object:
    text = entry.get("expr") if isinstance(entry, dict) else entry
    if not isinstance(text, str) or not text.strip():
        raise Wrong("must be an expression, such as mean(close, 5) / close, or {expr: an expression, ...}")
    return entry


def _attributes(value: object) -> object:
    if value is None or isinstance(value, str):
        return value
    if not isinstance(value, dict) or not value:
        raise Wrong("must be a file, or each attribute's value by symbol, such as {sector: {AAPL: tech, XOM: energy}}")
    for name, held in value.items():
        key = str(name)
        if not isinstance(name, str) or not re.fullmatch(r"[a-zA-Z][a-zA-Z0-9_]*", name):
            raise Wrong("must be named with letters, digits and _, a letter first, to stand in expressions", key=key)
        if not isinstance(held, dict) or not held:
            raise Wrong("must be a mapping of symbols to values, such as {AAPL: tech, XOM: energy}", key=key)
        for symbol, what in held.items():
            if not isinstance(symbol, str):  # YAML reads ON as true and 0700 as a number
                raise Wrong(f"must put the symbol {symbol} in quotes", key=key)
            if isinstance(what, bool) or not isinstance(what, str | int | float) or not str(what).strip():
                raise Wrong(f"must give {symbol} a text or a number (or leave it out), not {what!r}", key=key)
        if len({isinstance(what, str) for what in held.values()}) > 1:
            raise Wrong("must hold texts alone or numbers alone: put numbers that are names in quotes", key=key)
    return value


def _choice(value: object) -> object:
    """A range of numbers or a list of values, as tuning takes them."""
    if isinstance(value, list):
        if not value or len({repr(held) for held in value}) < len(value):
            raise Wrong("must hold at least one value, and each once")
        if any(not isinstance(held, int | float | str | bool | None) for held in value):
            raise Wrong("must hold single values")
        return value
    if not isinstance(value, dict):
        raise Wrong("must be a range, such as {low: 7, high: 127, log: true}, or a list of choices")
    for key, held in value.items():
        if key not in RANGE:
            message = "must be one of the keys low, high, log and step"
            raise Wrong(message, nearest=nearest(str(key), RANGE), key=str(key))
        number = isinstance(held, int | float) and not isinstance(held, bool) and math.isfinite(held)
        if not (isinstance(held, bool) if key == "log" else number):
            raise Wrong("must be true or false" if key == "log" else "must be a finite number", key=key)
    low, high, step, log = (value.get(key) for key in RANGE)
    if low is None or high is None:
        raise Wrong("must have both low and high")
    if low >= high:
        raise Wrong(f"must be below high, {high}", key="low")
    if log and low <= 0:
        raise Wrong("must be above 0 where log is true", key="low")
    if step is not None and (log or not 0 < step <= high - low):
        raise Wrong("must be above 0, at most high - low, and is not for a range with log: true", key="step")
    return value


Interval = Annotated[str, BeforeValidator(_interval)]
Day = Annotated[date, BeforeValidator(_day)]
Clock = Annotated[str, BeforeValidator(_clock)]
Zone = Annotated[str, AfterValidator(_zone)]
Exchange = Annotated[str, AfterValidator(_exchange)]
CalendarName = Annotated[str, AfterValidator(_calendar)]
Entry = Annotated[str | dict[str, Any], BeforeValidator(_entry)]
Sets = dict[str, dict[str, Entry]]
Choice = Annotated[Any, BeforeValidator(_choice)]
Attributes = Annotated[
    str | dict[str, dict[str, str | Annotated[float, Field(allow_inf_nan=False)]]] | None, BeforeValidator(_attributes)
]

Count = Annotated[int, Field(ge=1)]
Whole = Annotated[int, Field(ge=0)]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Inside = Annotated[float, Field(gt=0, lt=1)]
Port = Annotated[int, Field(ge=1, le=65535)]
