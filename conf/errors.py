"""The one error that configuration raises: where, what, the nearest valid name, and what to do."""

import difflib
import json
from collections.abc import Iterable, Mapping
from typing import Any


class ConfigError(ValueError):
    """A mistake in the config, told in one message.

    `where` is a file with its line or "command line"; `problem` names the key and the value; `nearest` is the
    valid name closest to a misspelt one; `fix` says what to do.
    """

    def __init__(self, where: str, problem: str, *, nearest: str | None = None, fix: str = "") -> None:
        self.where = where
        self.problem = problem
        self.nearest = nearest
        hint = f"; did you mean {nearest}?" if nearest else "."
        super().__init__(f"{where}: {problem}{hint}{f' {fix}.' if fix else ''}")


_MUST_BE = {
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "string_type": "must be text: put it in quotes",
    "string_too_short": "must not be empty",
    "date_type": "must be a date such as 2024-01-31",
    "list_type": "must be a list, such as [a, b]",
    "dict_type": "must be a mapping of names to values",
    "model_type": "must be a mapping of keys to values",
    "model_attributes_type": "must be a mapping of keys to values",
    "greater_than": "must be greater than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "too_short": "must hold at least {min_length}, and holds {actual_length}",
    "too_long": "must hold at most {max_length}, and holds {actual_length}",
}


def must_be(finding: Mapping[str, Any]) -> str:
    """One of pydantic's findings in our words: completes "it ..."."""
    return _MUST_BE.get(finding["type"], finding["msg"]).format(**finding.get("ctx", {}))


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name closest to a misspelt one, upper and lower case alike; None when none is close."""
    folded = {candidate.casefold(): candidate for candidate in known}
    close = difflib.get_close_matches(name.casefold(), folded, n=1)
    return folded[close[0]] if close else None


def shown(value: object) -> str:
    """A value as a message shows it: one line, as YAML would have it, cut when long."""
    text = value if isinstance(value, str) and value else json.dumps(value, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."
