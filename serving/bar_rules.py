"""A bar that breaks a rule of the bars step, told by its fields: the step itself tells the rule alone."""

from collections.abc import Mapping, Sequence
from typing import Any

from quant.bars import PRICES
from quant.validate import REASONS
from serving.problems import field_error


def broken(where: Sequence[str | int], reason: str, bar: Mapping[str, Any]) -> dict[str, Any]:
    """The field error of a bar at `where`; it points to the first field at fault and names the others.

    bar: prices and volume by name, None where absent.
    """
    fields = _fields(reason, bar)
    told = f" ({', '.join(fields)})" if len(fields) > 1 else ""
    return field_error([*where, *fields[:1]], f"{reason}: {REASONS[reason]}{told}")


def _fields(reason: str, bar: Mapping[str, Any]) -> list[str]:
    """Those that break the rule, which the bar breaks."""
    prices = {name: bar[name] for name in PRICES}
    match reason:
        case "null_price":
            return [name for name, value in prices.items() if value is None]
        case "non_positive":
            return [name for name, value in prices.items() if value is not None and value <= 0]
        case "ohlc_order":
            sides = {"high": max(prices.values()), "low": min(prices.values())}
            return [name for name, bound in sides.items() if prices[name] != bound]
        case "negative_volume":
            return ["volume"]
        case "off_grid" | "duplicate" | "duplicate_key":
            return ["timestamp"]
    return []  # JSON has no infinity, and a bar without its key is no bar: neither comes as far as the rules
